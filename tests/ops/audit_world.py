"""A shop whose every invariant holds, in SQL and Redis, and the means to break one by hand."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psycopg
import redis

from ops.audit import command
from ops.audit.evidence import Evidence, open_snapshot, read_stock
from ops.audit.ledgers import Books, Capture

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


def script(name: str) -> str:
    """An SQL file beside this one, order ids filled in."""
    text = (Path(__file__).parent / name).read_text(encoding="utf-8")
    names = "|".join(ORDERS)
    return re.sub(rf":({names})\b", lambda match: f"'{ORDERS[match[1]]}'", text.partition("\n")[2])


def sql_violations() -> dict[str, str]:
    """Headline → statements."""
    pieces = re.split(r"^-- (I\d+ .+)$", script("audit_violations.sql"), flags=re.MULTILINE)
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
            if state == "held":
                client.zadd("{stock}:holds", {order_id: 1})

    def set(self, key: str, name: str, value: object) -> None:
        with self.redis() as client:
            client.hset(key, name, str(value))

    def sells(self, sku: str) -> None:
        with self.redis() as client:
            client.sadd("{stock}:skus", sku)
            client.hset(f"{{stock}}:sku:{sku}", mapping={"free": 1, "cap": 3})

    def unlist(self, order_id: str) -> None:
        with self.redis() as client:
            client.zrem("{stock}:holds", order_id)

    def audit(self) -> dict[str, list[str]]:
        with contextlib.closing(open_snapshot(self.database_url)) as connection:
            books = Books(tuple(self.captures), frozenset({"sandbox"}))
            evidence = Evidence(connection, read_stock(self.redis_url), books, self.answered)
            return command.violations(evidence)

    def broken(self) -> set[str]:
        return {name for name, messages in self.audit().items() if messages}


def build(database_url: str, redis_url: str) -> World:
    """Fill an empty, migrated database and an empty Redis."""
    world = World(database_url, redis_url)
    world.sql(script("audit_shop.sql"))
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
