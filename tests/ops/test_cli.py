"""The command line: what it says, what it answers, and how it ends."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import redis
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ops import change, cli, status, stock
from ops.admin_client import AdminClient
from ops.cli import main
from ops.errors import Unreachable

ROOT = Path(__file__).resolve().parents[2]


class Api:
    """An admin API that answers with what it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, Any]] = []  # method, path, authorization, body
        self.answer: tuple[int, bytes] = (200, b"{}")

    @contextlib.contextmanager
    def serve(self) -> Iterator[str]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def _handle(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = json.loads(raw) if raw else None
                api.asked.append((self.command, self.path, self.headers["Authorization"], body))
                self.send_response(api.answer[0])
                self.send_header("Content-Length", str(len(api.answer[1])))
                self.end_headers()
                self.wfile.write(api.answer[1])

            do_GET = do_PUT = _handle  # noqa: N815 - named by http.server

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()
            thread.join()


@pytest.fixture
def api() -> Api:
    return Api()


def _run(api: Api, *words: str) -> Result:
    with api.serve() as url:
        return CliRunner().invoke(main, [*words, "--admin-url", url, "--token", "t0ken"])


@pytest.mark.parametrize(
    ("words", "path", "body"),
    [
        (("switch", "profile", "off"), "/api/features/profile", {"state": "off"}),
        (
            ("switch", "profile", "off", "--for", "10m", "--reason", "sale"),
            "/api/features/profile",
            {"state": "off", "for": "10m", "reason": "sale"},
        ),
        (("step", "2"), "/api/step", {"step": 2}),  # a name is looked up first, see below
        (("step", "auto"), "/api/step", {"step": "auto"}),
        (("breaker", "shop", "open"), "/api/breakers/shop", {"state": "open"}),
        (("limit", "user", "5/second", "--for", "1h"), "/api/limits/user", {"rate": "5/second", "for": "1h"}),
        (("limit", "a/../b", "off"), "/api/limits/a%2F..%2Fb", {"rate": "off"}),
    ],
)
def test_words_become_the_contracts_requests(
    api: Api, words: tuple[str, ...], path: str, body: dict[str, Any]
) -> None:
    """Each command is one PUT with the token; --json prints the answer as it is."""
    done = _run(api, *words, "--json")

    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == {}
    assert api.asked == [("PUT", path, "Bearer t0ken", body)]


@pytest.mark.parametrize(
    "words",
    [
        ("switch", "profile", "maybe"),
        ("step", "-1"),
        ("breaker", "shop", "half"),
        ("nothing",),
    ],
)
def test_wrong_words_never_reach_the_api(api: Api, words: tuple[str, ...]) -> None:
    """Usage errors: exit 2."""
    done = _run(api, *words)

    assert done.exit_code == 2
    assert api.asked == []


def test_a_refusal_is_the_apis_own_words_on_one_line(api: Api) -> None:
    """Problem details become one line; exit 8."""
    detail = "no feature of that\nname; there are: profile, recommendations"
    api.answer = (404, json.dumps({"title": "Not found", "detail": detail}).encode())
    done = _run(api, "switch", "profil", "off")

    assert done.exit_code == 8
    assert done.output == (
        "tidegate: no feature of that name; there are: profile, recommendations; did you mean profile?\n"
    )


def test_a_refused_field_is_named_with_its_mistake(api: Api) -> None:
    """No data structure of ours: `FIELD: what is wrong`."""
    errors = [{"field": "for", "detail": "not a duration; write for example 5s"}]
    api.answer = (422, json.dumps({"title": "Bad", "detail": "wanted: for", "errors": errors}).encode())
    done = _run(api, "switch", "profile", "off", "--for", "10")

    assert done.exit_code == 8
    assert done.output == "tidegate: for: not a duration; write for example 5s\n"


def test_a_wrong_token_says_where_to_put_the_right_one(api: Api) -> None:
    """401: the address and the variable, never the token."""
    api.answer = (401, json.dumps({"detail": "send the admin token"}).encode())
    done = _run(api, "status")

    assert done.exit_code == 8
    assert "set TIDEGATE_ADMIN_TOKEN" in done.output
    assert "t0ken" not in done.output


PIN = {"by": "operator", "reason": "database is hot", "since": 100.0, "until": 700.0, "seconds_left": 599}
IN_ALL = {"applied": 2, "workers": 2}


@pytest.mark.parametrize(
    ("words", "answer", "sentence"),
    [
        (
            ("switch", "profile", "off"),
            {"on": False, "pin": PIN, **IN_ALL},
            "profile is off for 10 min in 2 of 2 workers: database is hot",
        ),
        (
            ("switch", "profile", "auto"),
            {"on": True, "pin": {}, **IN_ALL},
            "profile is left to the ladder (now on) in 2 of 2 workers",
        ),
        (
            ("step", "2"),
            {"step": 2, "name": "high", "pin": {}, "applied": 1, "workers": 2},
            "step 2 (high) is pinned in 1 of 2 workers",
        ),
        (("step", "auto"), {"step": 0, "name": "normal"}, "the step follows the pressure (now 0 normal)"),
        (
            ("breaker", "shop", "open"),
            {"pin": PIN | {"reason": ""}},
            "the breaker of shop is held open for 10 min",
        ),
        (("breaker", "shop", "auto"), {}, "the breaker of shop judges by itself"),
        (("limit", "user", "5 per second"), {"rate": "5/second"}, "limit user is 5/second"),
        (("limit", "user", "auto"), {"configured": "9/hour"}, "limit user is as configured (now 9/hour)"),
        (("limit", "user", "off"), {"rate": "off"}, "limit user is off: it refuses nobody"),
    ],
)
def test_a_change_is_told_in_a_sentence(
    api: Api, words: tuple[str, ...], answer: dict[str, Any], sentence: str
) -> None:
    """What holds now, for how long, where, and why."""
    api.answer = (200, json.dumps(answer).encode())
    done = _run(api, *words)

    assert done.exit_code == 0, done.output
    assert done.output == sentence + "\n"


@given(seconds=st.integers(0, 10**8))
def test_durations_are_exact(seconds: int) -> None:
    """The words stand for as many seconds as there were."""
    number, unit = change.duration(seconds).split()

    assert int(number) * {"s": 1, "min": 60, "h": 3600, "d": 86400}[unit] == seconds


def test_a_step_may_be_given_by_name(api: Api) -> None:
    """The ladder is asked for its rungs; an unknown name is told with what there is."""
    rungs = [{"step": 0, "name": "normal"}, {"step": 1, "name": "elevated"}]
    api.answer = (200, json.dumps({"steps": rungs}).encode())
    done = _run(api, "step", "elevated")
    wrong = _run(api, "step", "elevatd")

    assert done.exit_code == 0, done.output
    assert [(method, path, body) for method, path, _, body in api.asked[:2]] == [
        ("GET", "/api/step", None),
        ("PUT", "/api/step", {"step": 1}),
    ]
    assert wrong.exit_code == 8
    assert "there are: 0 normal, 1 elevated, and auto; did you mean elevated?" in wrong.output
    assert len(api.asked) == 3


@pytest.mark.parametrize("raw", [b"", b"<html>", b"[1, 2]", b"\xff"])
def test_a_strange_answer_is_one_line(api: Api, raw: bytes) -> None:
    """Whatever stands behind the address, no stack trace."""
    api.answer = (500, raw)
    done = _run(api, "step", "1")

    assert done.exit_code == 8
    assert done.output.count("\n") == 1


def test_nobody_there_is_one_line_and_the_token_stays_secret(tmp_path: Path) -> None:
    """Exit 7, with the address and a hint."""
    words = ["status", "--admin-url", "http://127.0.0.1:1", "--token", "t0ken", "--data", str(tmp_path)]
    done = CliRunner().invoke(main, words)

    assert done.exit_code == 7
    assert "the admin API at http://127.0.0.1:1 does not answer" in done.output
    assert "t0ken" not in done.output


def test_no_stack_is_one_line(tmp_path: Path) -> None:
    """A folder where nothing ran yet: says so, and what to do."""
    empty = {"TIDEGATE_ADMIN_URL": "", "TIDEGATE_ADMIN_TOKEN": ""}
    done = CliRunner().invoke(main, ["status", "--data", str(tmp_path)], env=empty)

    assert done.exit_code == 7
    assert f"no stack has run in {tmp_path}" in done.output


def test_a_token_alone_means_the_standard_address(tmp_path: Path) -> None:
    """A gateway of its own has no stack's folder: the token is enough."""
    client = AdminClient.find(tmp_path, None, "t0ken")

    assert client.url == "http://127.0.0.1:9900"
    assert client.shop_metrics == ()


def _screen(gate: dict[str, Any], *words: Any, width: int = 120) -> str:
    out = io.StringIO()
    status.show(gate, *words, console=Console(file=out, width=width))
    return out.getvalue()


def test_status_before_ones_own_backend_speaks_of_no_shop() -> None:
    """No Redis: limits are local. No shop: no queues, no stock, and no complaint."""
    said = _screen({"limit_store": {"shared": False, "up": False}}, [])

    assert re.search(r"limit store +local", said)
    assert "queues" not in said
    assert "shop" not in said


def test_status_says_when_the_shop_does_not_answer() -> None:
    """One process of two is named as such."""
    assert "(all of its processes)" in _screen({}, ["", ""])
    assert "(some of its processes)" in _screen({}, ["shop_outbox_pending 0.0\n", ""])


def test_status_shows_a_mistake_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A broken edit: each mistake on its line, under the path as the operator sees it."""
    monkeypatch.chdir(tmp_path)
    file = str(tmp_path / "config" / "gateway.yaml")
    mistakes = [f"{file}:3: listen.prot: unknown", f"{file}:9: routes: missing"]
    said = _screen({"config": {"file": file, "mistakes": mistakes}}, [])

    lines = [line.strip("│ \n") for line in said.splitlines()]
    assert "config/gateway.yaml:3: listen.prot: unknown" in lines
    assert "config/gateway.yaml:9: routes: missing" in lines
    assert "[" not in said


def test_status_counts_one_order_once_in_each_state() -> None:
    """Counters read as what happened, zeros too; the stock is that of this moment when it is known."""
    page = "".join(f'shop_orders_total{{state="{s}"}} 1.0\n' for s in ("reserved", "pending", "paid"))
    said = _screen({}, [page], {"card-1": (7, 2)})

    assert "orders, since the shop started" in said
    assert re.search(r"were paid +1\b", said)
    assert re.search(r"were delivered +0\b", said)
    assert re.search(r"card-1 +7 +2\b", said)
    assert "stock now" in said


def test_the_stock_is_read_as_it_is(redis_durable_url: str) -> None:
    """Free cards and open holds of every shard, from Redis; a hold that ended meanwhile counts nothing."""
    with redis.Redis.from_url(redis_durable_url) as client:
        client.sadd("{stock}:skus", "a", "b")
        client.hset("{stock}:sku:a", "free", 5)
        client.set("{stock}:epoch", "1/2")
        orders = [f"00000000-0000-8000-8000-00000000000{n}" for n in range(4)]
        client.zadd("{stock}:holds", {orders[0]: 1, orders[1]: 2, orders[2]: 3})
        for order, quantity in ((orders[0], 2), (orders[1], 1)):
            client.hset(f"{{stock}}:hold:{order[15:]}", mapping={"sku": "a", "quantity": quantity})
        client.sadd("{stock:1}:skus", "c")
        client.hset("{stock:1}:sku:c", "free", 7)
        client.zadd("{stock:1}:holds", {orders[3]: 1})
        client.hset(f"{{stock:1}}:hold:{orders[3][15:]}", mapping={"sku": "c", "quantity": 4})

    assert stock.read(redis_durable_url) == {"a": (5, 3), "b": (0, 0), "c": (7, 4)}
    with pytest.raises(Unreachable):
        stock.read("redis://127.0.0.1:1")


def test_status_survives_an_empty_gate(api: Api) -> None:
    """A gateway that says little is still shown."""
    done = _run(api, "status")

    assert done.exit_code == 0, done.output
    assert "traffic" in done.output


def test_the_shops_metrics_are_summed_over_its_processes() -> None:
    """Shop and worker both report; one screen shows the sum."""
    page = 'shop_orders_total{state="paid"} 2.0\nshop_stock{sku="a",state="free"} 5.0\n'

    samples = status.shop_samples([f"# TYPE shop_orders counter\n{page}", page, ""])

    assert samples["shop_orders_total"][("paid",)] == 4
    assert samples["shop_stock"]["a", "free"] == 10


def test_help_lists_every_exit_status() -> None:
    """Documented where an operator looks."""
    done = CliRunner().invoke(main, ["--help"])

    for code in range(9):
        assert f"\n    {code}  " in done.output


def test_help_loads_no_drivers() -> None:
    """The command line starts quickly: heavy modules wait for the command that needs them."""
    code = (
        "import sys, ops.cli\n"
        "heavy = {'psycopg', 'redis', 'rich.console', 'cryptography', 'httpx'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)

    assert done.returncode == 0, done.stderr


def test_check_is_the_gateways_own(tmp_path: Path) -> None:
    """`tidegate check` ends with the gateway's verdict and its lines."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("listen: {prot: 1}\n")
    argv = [sys.executable, "-m", "ops.cli", "check", str(bad)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, env={**os.environ}, check=False)

    assert done.returncode == 1
    assert f"{bad}:1: listen.prot: " in done.stdout + done.stderr


def test_check_speaks_of_the_file_when_there_is_no_key(tmp_path: Path) -> None:
    """A folder, an empty file, a good file: words without an odd placeholder."""
    (tmp_path / "empty.yaml").touch()
    one = 'upstreams: {a: {servers: ["http://127.0.0.1:1"]}}\nroutes: [{match: "/**", upstream: a}]\n'
    (tmp_path / "one.yaml").write_text(one)

    def said(file: Path) -> str:
        argv = [sys.executable, "-m", "ops.cli", "check", str(file)]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)
        return done.stdout + done.stderr

    assert said(tmp_path) == f"{tmp_path}: can't be read: is a directory\n"
    assert said(tmp_path / "empty.yaml").startswith(f"{tmp_path}/empty.yaml:1: the file is empty; expected")
    assert said(tmp_path / "one.yaml") == f"{tmp_path}/one.yaml: good (1 route, 0 limits)\n"


def test_the_gateway_alone_says_when_it_stops(tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    """One line at its start, one at its end."""
    config = tmp_path / "one.yaml"
    config.write_text(
        'upstreams: {a: {servers: ["http://127.0.0.1:1"]}}\nroutes: [{match: "/**", upstream: a}]\n'
        f"admin: {{state_file: {tmp_path}/switches.json}}\n"
    )
    log = tmp_path / "log"
    words = ["gateway", "--config", str(config), "--port", "0", "--admin-port", "0", "--workers", "1"]
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "ops.cli", *words],
            stdout=out,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, "TIDEGATE_ADMIN_TOKEN": "t0ken"},
        )
    try:
        wait_until(lambda: "gateway ready" in log.read_text(), within=30, what="the gateway")
    finally:
        process.terminate()
        process.wait(30)

    assert process.returncode == 0
    assert log.read_text().splitlines()[-1] == "gateway stopped"


def test_keys_are_made_for_containers(tmp_path: Path) -> None:
    """`tidegate keys` makes what compose mounts, and says nothing secret."""
    done = CliRunner().invoke(main, ["keys", "--data", str(tmp_path / "keys")])

    token = (tmp_path / "keys" / "admin-token").read_text().strip()
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "keys" / "keys").iterdir()} == {
        "card-key",
        "sandbox-secret",
        "session.pem",
        "session.pub.pem",
    }
    assert token not in done.output


def test_every_command_has_a_summary() -> None:
    """`--help` says what each is for."""
    assert all(command.get_short_help_str() for command in cli.main.commands.values())
