"""The auditor is audited: each violation is seeded by hand, and it must name it."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from click.testing import CliRunner

from ops import datadir
from ops.audit import command
from ops.audit.evidence import Capture, Evidence, open_snapshot, read_captures, read_stock
from ops.cli import main
from ops.errors import Unreachable

DELIVERED = "00000000-0000-4000-8000-000000000001"
PENDING = "00000000-0000-4000-8000-000000000002"
EXPIRED = "00000000-0000-4000-8000-000000000003"
REFUNDED = "00000000-0000-4000-8000-000000000004"
DEAD = "00000000-0000-4000-8000-000000000005"
STRANGER = "00000000-0000-4000-8000-00000000000f"

ORDERS = {
    "delivered": DELIVERED,
    "pending": PENDING,
    "expired": EXPIRED,
    "refunded": REFUNDED,
    "dead": DEAD,
}


def _script(name: str) -> str:
    """An SQL file beside this one, order ids filled in."""
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    names = "|".join(ORDERS)
    return re.sub(rf":({names})\b", lambda match: f"'{ORDERS[match[1]]}'", text.partition("\n")[2])


def _violations() -> dict[str, str]:
    """Headline → statements."""
    pieces = re.split(r"^-- (I\d+ .+)$", _script("audit_violations.sql"), flags=re.MULTILINE)
    return dict(zip(pieces[1::2], pieces[2::2], strict=True))


@dataclass
class World:
    """A shop whose every invariant holds, and the means to break one."""

    database_url: str
    redis_url: str
    captures: list[Capture] = field(default_factory=list)
    answered: frozenset[str] = frozenset()

    def sql(self, statements: str) -> None:
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            connection.execute(statements)

    @contextlib.contextmanager
    def redis(self) -> Iterator[redis.Redis]:
        with redis.Redis.from_url(self.redis_url, decode_responses=True) as client:
            yield client

    def hold(self, order_id: str, state: str, user: str, quantity: int = 1) -> None:
        fields = {"id": order_id, "sku": "card", "user": user, "quantity": quantity, "state": state}
        with self.redis() as client:
            client.hset(f"{{stock}}:hold:{order_id[15:]}", mapping=fields)

    def set(self, key: str, name: str, value: object) -> None:
        with self.redis() as client:
            client.hset(key, name, str(value))

    def audit(self) -> dict[str, list[str]]:
        with contextlib.closing(open_snapshot(self.database_url)) as connection:
            evidence = Evidence(connection, read_stock(self.redis_url), self.captures, self.answered)
            return command.violations(evidence)

    def broken(self) -> set[str]:
        return {name for name, messages in self.audit().items() if messages}


@pytest.fixture
def world(migrated_database_url: str, redis_durable_url: str) -> World:
    world = World(migrated_database_url, redis_durable_url)
    world.sql(_script("audit_shop.sql"))
    with world.redis() as client:
        client.set("{stock}:epoch", "7/1")
        client.sadd("{stock}:skus", "card")
        client.hset("{stock}:sku:card", mapping={"free": 2, "cap": 3})
        for stream in ("orders", "callbacks"):
            client.xgroup_create(f"{{stock}}:{stream}", "shop", mkstream=True)
    world.hold(DELIVERED, "confirmed", "ann", 2)
    world.hold(PENDING, "held", "ann")
    world.hold(EXPIRED, "expired", "bob")
    world.hold(REFUNDED, "expired", "eve")
    world.hold(DEAD, "released", "mal")
    world.captures = [Capture("pay1", DELIVERED, 1000, 0), Capture("pay3", REFUNDED, 500, 500)]
    world.answered = frozenset({DELIVERED, PENDING, EXPIRED, REFUNDED, DEAD})
    return world


def test_a_shop_in_order_is_clean(world: World) -> None:
    """No false alarm."""
    assert world.broken() == set()


SQL_VIOLATIONS = _violations()


@pytest.mark.parametrize("name", SQL_VIOLATIONS)
def test_a_violation_in_sql_is_named(world: World, name: str) -> None:
    """Broken by hand in SQL, named by its invariant."""
    world.sql(SQL_VIOLATIONS[name])

    assert name.split()[0] in world.broken()


OTHER_VIOLATIONS: dict[str, Callable[[World], object]] = {
    "I2 stock given away twice": lambda w: w.set("{stock}:sku:card", "free", 3),
    "I2 negative stock": lambda w: w.set("{stock}:sku:card", "free", -1),
    "I2 Redis lost its data": lambda w: _flush(w),
    "I6 a capture we never recorded": lambda w: w.captures.append(Capture("pay9", PENDING, 500, 0)),
    "I6 a capture of another amount": lambda w: w.captures.__setitem__(
        0, replace(w.captures[0], amount_cents=1)
    ),
    "I6 a refund that never reached the buyer": lambda w: w.captures.__setitem__(
        1, replace(w.captures[1], refunded_cents=0)
    ),
    "I6 a refund we never asked for": lambda w: w.captures.__setitem__(
        0, replace(w.captures[0], refunded_cents=1000)
    ),
    "I7 a hold whose order never arrived": lambda w: w.hold(STRANGER, "held", "zoe"),
    "I7 a client's answered order is unknown": lambda w: setattr(w, "answered", frozenset({STRANGER})),
    "I7 an order nobody reserved": lambda w: _forget(w, EXPIRED),
    "I9 holds beyond the cap": lambda w: w.hold(STRANGER, "held", "ann"),
    "I10 an entry nobody took": lambda w: _add(w, "orders"),
    "I10 an entry never acknowledged": lambda w: _claim(w, "callbacks"),
    "I10 a dead letter that keeps its hold": lambda w: w.hold(DEAD, "held", "mal"),
}


def _flush(world: World) -> None:
    with world.redis() as client:
        client.flushall()


def _forget(world: World, order_id: str) -> None:
    world.answered = world.answered - {order_id}
    with world.redis() as client:
        client.delete(f"{{stock}}:hold:{order_id[15:]}")


def _add(world: World, stream: str) -> None:
    with world.redis() as client:
        client.xadd(f"{{stock}}:{stream}", {"a": "b"})


def _claim(world: World, stream: str) -> None:
    _add(world, stream)
    with world.redis() as client:
        client.xreadgroup("shop", "worker", {f"{{stock}}:{stream}": ">"})
        client.xtrim(f"{{stock}}:{stream}", maxlen=0)


@pytest.mark.parametrize("name", OTHER_VIOLATIONS)
def test_a_violation_elsewhere_is_named(world: World, name: str) -> None:
    """Broken by hand in Redis, at the provider or in a client's log, named by its invariant."""
    OTHER_VIOLATIONS[name](world)

    assert name.split()[0] in world.broken()


def test_every_invariant_has_a_seeded_violation() -> None:
    """No check goes untested."""
    seeded = {name.split()[0] for name in (*SQL_VIOLATIONS, *OTHER_VIOLATIONS)}

    assert seeded == set(command.CHECKS) == {f"I{n}" for n in range(1, 13)}


def test_the_snapshot_can_not_write(world: World) -> None:
    """An audit changes nothing."""
    with (
        contextlib.closing(open_snapshot(world.database_url)) as connection,
        pytest.raises(psycopg.errors.ReadOnlySqlTransaction),
    ):
        connection.execute("DELETE FROM outbox")


# ---- the command ----------------------------------------------------------------------------------


@pytest.fixture
def provider() -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """A provider's ledger behind HTTP: its URL and the payments it serves, one a page."""
    payments: list[dict[str, Any]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            since = int(self.path.partition("since=")[2].partition("&")[0])
            found = [payment for payment in payments if payment["seq"] > since][:1]
            allowed = self.headers["Authorization"] == "Bearer whsec_x"
            body = json.dumps({"payments": found, "next": found[-1]["seq"] if found else since}).encode()
            self.send_response(200 if allowed else 401)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Stay quiet."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}", payments
        server.shutdown()
        thread.join()


def _payment(seq: int, capture: Capture, outcome: str = "succeeded") -> dict[str, Any]:
    return {
        "seq": seq,
        "id": capture.payment_id,
        "order_id": capture.order_id,
        "amount_cents": capture.amount_cents,
        "refunded_cents": capture.refunded_cents,
        "outcome": outcome,
    }


def test_the_ledger_is_read_to_its_end(provider: tuple[str, list[dict[str, Any]]]) -> None:
    """Page after page, successes only; a wrong secret is an error, not an empty ledger."""
    url, payments = provider
    captures = [Capture("p1", DELIVERED, 1000, 0), Capture("p3", REFUNDED, 500, 500)]
    payments += [_payment(1, captures[0]), _payment(2, captures[0], "failed"), _payment(3, captures[1])]

    assert read_captures(url, "whsec_x") == captures
    with pytest.raises(Unreachable, match="401"):
        read_captures(url, "whsec_wrong")


def _run(world: World, url: str, folder: Path, *words: str) -> Any:
    datadir.write_state(folder, {"urls": {"sandbox": url}, "stores": {}})
    environment = {
        "TIDEGATE_DATABASE_URL": world.database_url,
        "TIDEGATE_STOCK_REDIS_URL": world.redis_url,
        "TIDEGATE_SANDBOX_SECRET": "whsec_x",
        "TIDEGATE_DATA_DIR": str(folder),
    }
    return CliRunner().invoke(main, ["audit", "--wait", "0", *words], env=environment)


def test_the_command_says_what_holds_and_what_does_not(
    world: World, provider: tuple[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    """Exit 0 and twelve lines when clean; exit 1 and the violation named when not."""
    url, payments = provider
    payments += [_payment(seq, capture) for seq, capture in enumerate(world.captures, 1)]

    clean = _run(world, url, tmp_path)
    world.sql("UPDATE products SET per_user_cap = 2")
    broken = _run(world, url, tmp_path)
    document = json.loads(_run(world, url, tmp_path, "--json").output)

    assert (clean.exit_code, broken.exit_code) == (0, 1), clean.output
    assert clean.output.count(" holds  ") == 12
    assert "I9: card: user ann has 3, the cap is 2" in broken.output
    assert document["clean"] is False
    assert document["violations"]["I9"] == ["card: user ann has 3, the cap is 2"]


RUNNING_VIOLATIONS = [name for name in SQL_VIOLATIONS if name.split()[0] in command.RUNNING]


def test_what_holds_at_every_moment_is_seen_while_a_sale_goes_on(world: World, tmp_path: Path) -> None:
    """Mails unsent, streams full, provider and Redis away: nothing wrong; I1 and I5 are among the checks."""
    world.sql("UPDATE outbox SET state = 'pending'")
    with world.redis() as client:
        client.flushall()

    answer = _run(world, "http://127.0.0.1:1", tmp_path, "--running")

    assert answer.exit_code == 0, answer.output
    assert answer.output.count(" holds  ") == len(command.RUNNING)
    assert {"I1", "I5"} <= set(command.RUNNING) < set(command.CHECKS)


@pytest.mark.parametrize("name", RUNNING_VIOLATIONS)
def test_a_violation_is_named_while_a_sale_goes_on(world: World, name: str) -> None:
    """By one snapshot of the database, without Redis and provider."""
    world.sql(SQL_VIOLATIONS[name])

    found = command.look_running({"TIDEGATE_DATABASE_URL": world.database_url})

    assert found[name.split()[0]]


def test_a_provider_that_is_away_is_one_line(world: World, tmp_path: Path) -> None:
    """Not a violation, not a stack trace: exit 7."""
    answer = _run(world, "http://127.0.0.1:1", tmp_path)

    assert answer.exit_code == 7
    assert answer.output.startswith("tidegate: the provider at http://127.0.0.1:1 does not answer")
    assert answer.output.count("\n") == 1
