"""`tidegate status`: what its screen says, on a terminal and in a pipe."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
import redis
from rich.console import Console

from ops import shop_status, status, stock
from ops.errors import Unreachable

PIN = {"by": "operator at 127.0.0.1", "since": 100.0, "until": 700.0, "seconds_left": 599}
NIGHT = {  # a gateway with its hands full
    "step": {
        "step": 2,
        "state": "2",
        "name": "high",
        "pin": {**PIN, "reason": "the database is hot, and it is not even nine"},
        "steps": [
            {"step": 0, "name": "normal", "off": []},
            {"step": 1, "name": "elevated", "off": ["recommendations"]},
            {"step": 2, "name": "high", "off": ["profile"]},
            {"step": 3, "name": "emergency", "off": [], "only": "critical"},
        ],
    },
    "features": [{"name": "recommendations", "on": False, "state": "auto", "pin": None}],
    "breakers": [
        {"upstream": "shop", "now": "open", "state": "open", "pin": {**PIN, "seconds_left": None}},
    ],
    "limits": [
        {
            "name": name,
            "rate": "5/10 seconds",
            "per": ["user"],
            "mode": "enforce",
            "checks": {"allowed": 12345678, "denied": 1234567, "shadow": 0, "fallback": local},
            "pin": {**PIN, "reason": "bots at the till"} if local else None,
        }
        for name, local in (("address", 0), ("checkout", 99))
    ],
}


def _screen(gate: dict[str, Any], *words: Any, width: int = 80, terminal: bool = True) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width, force_terminal=terminal, color_system=None)
    status.show(gate, *words, console=console)
    return out.getvalue()


def test_a_terminal_of_80_columns_is_wide_enough() -> None:
    """Every limit stands on a line of its own with all its numbers, and no line is longer than the screen."""
    said = _screen(NIGHT, [])

    assert re.search(r"checkout +5/10 seconds +user +enforce +12345678 +1234567 +99\b", said), said
    assert re.search(r"limit +rate +per +mode +allowed +denied +local\b", said), said
    assert max(map(len, said.splitlines())) <= 80


def test_a_narrow_terminal_loses_nothing() -> None:
    """What does not fit into a box stands there whole, for the terminal to break."""
    said = _screen(NIGHT, [], width=40)

    assert re.search(r"checkout +5/10 seconds +user +enforce +12345678 +1234567 +99\b", said), said
    assert "the database is hot, and it is not even nine" in said


def test_a_pipe_gets_plain_lines() -> None:
    """No boxes, no colours, a line for each row however long, nothing behind it."""
    said = _screen(NIGHT, [], width=80, terminal=False)

    assert not re.search("[│╭╰\x1b]", said)
    assert said == "\n".join(line.rstrip() for line in said.splitlines()) + "\n"
    assert re.search(r"\n  step +2 high +operator +9 min 59 s +the database .* even nine\n", said), said


def test_what_is_pinned_says_by_whom_for_how_long_and_why() -> None:
    """The step, features, breakers and limits alike; without a pin, that there is none."""
    said = _screen(NIGHT, [], width=120)

    assert re.search(r"step +2 high +operator +9 min 59 s +the database is hot", said), said
    assert re.search(r"breaker shop +open +operator +until changed", said), said
    assert re.search(r"limit checkout +5/10 seconds +operator +9 min 59 s +bots at the till", said), said
    assert "recommendations  auto" not in said.partition("pinned by operators")[2].partition("features")[0]
    assert "pinned by operators\n  none\n" in _screen({}, [], terminal=False)


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


def test_status_tells_what_is_rare() -> None:
    """Draining, other hosts and what upstreams have shut off, only if there are such."""
    rare = {"draining": True, "shut_offs": 3, "hosts": [{"name": "a:8000"}, {"name": "b:8000"}]}
    said = _screen(rare, [], terminal=False)

    for row in ("draining +takes no new requests\n", "hosts +2\n", "shut off +3\n"):
        assert re.search(row, said), said
    plain = _screen({"draining": False, "shut_offs": 0, "hosts": [{"name": "a:8000"}]}, [], terminal=False)
    assert not re.search("draining|hosts|shut off", plain)


def test_status_tells_in_how_many_workers_the_config_holds() -> None:
    """One that serves by another is told of, unless it does not serve at all yet."""
    each = [{"ready": True, "config": 3}, {"ready": True, "config": 2}, {"ready": False, "config": 2}]
    said = _screen({"config": {"version": 3}, "workers": {"each": each}}, [], terminal=False)

    assert re.search(r"config +in 1 of 2 workers\n", said), said


def test_status_tells_what_waits_for_a_restart() -> None:
    """An edit that is taken and does not hold yet: each key, as it is and as it will be."""
    pending = [{"path": "listen.workers", "before": 2, "after": 4, "restart": True}]
    said = _screen({"config": {"mistakes": [], "restart": pending}}, [], terminal=False)

    assert re.search(r"config +good, restart pending\n", said), said
    assert re.search(r"key +now +after a restart\n +listen.workers +2 +4\n", said), said
    assert "restart" not in _screen({"config": {"mistakes": [], "restart": []}}, [])


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
        # On no shelf: there while its sale is open, then gone.
        client.sadd("{stock:1}:skus", "rehearsed", "rehearsing")
        client.hset("{stock:1}:sku:rehearsed", mapping={"free": 9, "listed": 0, "ends_ms": 1})
        client.hset("{stock:1}:sku:rehearsing", mapping={"free": 9, "listed": 0, "ends_ms": 10**15})
        client.zadd("{stock:1}:holds", {orders[3]: 1})
        client.hset(f"{{stock:1}}:hold:{orders[3][15:]}", mapping={"sku": "c", "quantity": 4})

    assert stock.read(redis_durable_url) == {"a": (5, 3), "b": (0, 0), "c": (7, 4), "rehearsing": (9, 0)}
    with pytest.raises(Unreachable):
        stock.read("redis://127.0.0.1:1")


def test_the_shops_metrics_are_summed_over_its_processes() -> None:
    """Shop and worker both report; one screen shows the sum."""
    page = 'shop_orders_total{state="paid"} 2.0\nshop_stock{sku="a",state="free"} 5.0\n'

    samples = shop_status.summed([f"# TYPE shop_orders counter\n{page}", page, ""])

    assert samples["shop_orders_total"][("paid",)] == 4
    assert samples["shop_stock"]["a", "free"] == 10
