"""The trail of changes: kept over crashes, bounded, and no flood of refusals pushes a change out."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request

from gateway.admin import trail as rooms
from gateway.admin.auth import Principal
from gateway.admin.looks import Looks
from gateway.admin.operations import Call
from gateway.admin.overview import Overview
from gateway.admin.trail import Entry, Trail
from gateway.master import Master, Overrides
from tests.clock import Clock
from tests.gateway.process import TOKEN

FEATURE = "/api/features/recommendations"


async def test_what_was_answered_outlives_every_crash(start_gateway: Any, tmp_path: Path, until: Any) -> None:
    """Kill -9 of a worker, then of the master: the change and the refusal are there afterwards."""
    admin = {"port": 0, "state_file": str(tmp_path / "switches.json")}
    gateway = await start_gateway(admin=admin)
    await gateway.admin("PUT", FEATURE, {"state": "off", "reason": "sale"})
    worker = (await gateway.admin("GET", "/api/status")).json()["workers"]["each"][0]["pid"]
    os.kill(worker, signal.SIGKILL)

    async def replaced() -> bool:
        workers = (await gateway.admin("GET", "/api/status")).json()["workers"]
        return workers["restarts"] == 1 and workers["ready"] == 2

    await until(replaced)
    assert (await gateway.admin("GET", "/api/audit")).json()["changes"][0]["reason"] == "sale"
    await gateway.admin("PUT", FEATURE, {"state": "maybe"})
    await gateway.stop(signal.SIGKILL)

    again = await start_gateway(admin=admin)

    trail = (await again.admin("GET", "/api/audit")).json()
    assert [(one["reason"], one["value"]) for one in trail["changes"]] == [("sale", "off")]
    assert [(one["status"], one["name"]) for one in trail["refused"]] == [(422, f"PUT {FEATURE}")]
    assert "tidegate-degraded" in (await again.fresh("/recommendations")).headers


async def test_a_change_whose_operator_left_is_recorded(start_gateway: Any, until: Any) -> None:
    """A worker that stands still keeps the answer waiting; the switch holds, and who threw it leaves."""
    gateway = await start_gateway()
    worker = (await gateway.admin("GET", "/api/status")).json()["workers"]["each"][0]["pid"]
    os.kill(worker, signal.SIGSTOP)
    address = urlsplit(gateway.admin_url)
    _, writer = await asyncio.open_connection(address.hostname, address.port)
    form = json.dumps({"state": "off", "reason": "unseen"})
    writer.write(
        f"PUT {FEATURE} HTTP/1.1\r\nhost: {address.netloc}\r\nauthorization: Bearer {TOKEN}\r\n"
        f"content-type: application/json\r\ncontent-length: {len(form)}\r\n\r\n{form}".encode()
    )

    async def thrown() -> bool:
        return (await gateway.admin("GET", FEATURE)).json()["pin"] is not None

    async def recorded() -> bool:
        changes = (await gateway.admin("GET", "/api/audit")).json()["changes"]
        return [one["reason"] for one in changes] == ["unseen"]

    try:
        await until(thrown)
        writer.transport.abort()
        await until(recorded)
    finally:
        os.kill(worker, signal.SIGCONT)


async def test_a_line_cut_short_costs_only_itself(tmp_path: Path) -> None:
    """A crash in the middle of a line: those before and after are read."""
    first = Trail(tmp_path / "switches.json", Clock(1_000_000.0))
    first.done(Entry(1, "feature", reason="one"))
    await first.written()
    file = tmp_path / "switches.trail.jsonl"
    file.write_bytes(file.read_bytes() + b'{"at": 2, "kind": "fea')
    second = Trail(tmp_path / "switches.json", Clock(1_000_000.0))
    second.done(Entry(3, "feature", reason="three"))
    await second.written()

    assert [entry.reason for entry in Trail(tmp_path / "switches.json").changes] == ["three", "one"]
    assert file.stat().st_mode & 0o077 == 0  # nobody else's business


async def test_who_leaves_takes_no_entry_along(tmp_path: Path) -> None:
    """Cancelled while its entry waits for a thread to write it: it is written all the same."""
    trail, busy = Trail(tmp_path / "switches.json", Clock(1_000_000.0)), threading.Event()
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(1))
    held = loop.run_in_executor(None, busy.wait)

    async def changes() -> None:
        trail.done(Entry(1, "feature", reason="sale"))
        await trail.written()

    operator = asyncio.create_task(changes())
    for _ in range(5):
        await asyncio.sleep(0)
    operator.cancel()
    await asyncio.wait([operator])
    busy.set()
    await held
    await trail.written()

    assert operator.cancelled()
    assert [entry.reason for entry in Trail(tmp_path / "switches.json").changes] == ["sale"]


async def test_files_and_memory_are_bounded(tmp_path: Path) -> None:
    """Full files are moved aside, a few of them; the newest entries are shown, over a rotation too."""
    clock = Clock(1_000_000.0)
    trail = Trail(tmp_path / "switches.json", clock)
    for number in range(3 * rooms.REMEMBERED):
        trail.done(Entry(number, "feature", reason="x" * 2000))
        if number % 100 == 0:
            await trail.written()
    await trail.written()

    files = list(tmp_path.glob("switches.trail.jsonl*"))  # noqa: ASYNC240 - nobody waits
    assert len(files) <= rooms.KEPT_FILES + 1
    assert all(file.stat().st_size <= rooms.MAX_FILE + 100 * 2400 for file in files)
    assert len(trail.changes) == rooms.REMEMBERED
    assert Trail(tmp_path / "switches.json").changes[0].at == 3 * rooms.REMEMBERED - 1


async def test_a_flood_of_refusals_is_counted_and_fills_nothing(tmp_path: Path) -> None:
    """Changes stay; of the flood some are kept, and the next one says how many were not."""
    clock = Clock(1_000_000.0)
    trail = Trail(tmp_path / "switches.json", clock)
    trail.done(Entry(1, "feature", reason="sale"))
    for number in range(10_000):
        trail.refused(Entry(number, "request", result="refused"))
    kept = len(trail.refusals)
    clock.now += 5
    trail.refused(Entry(1, "request", result="refused"))
    await trail.written()

    assert kept == rooms.BURST
    assert trail.refusals[0].left_out == 10_000 - kept
    assert [entry.reason for entry in trail.changes] == ["sale"]
    lines = (tmp_path / "switches.refused.jsonl").read_text().splitlines()
    assert [json.loads(line)["left_out"] for line in lines][-1] == 10_000 - kept


async def test_a_trail_that_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    """A full or broken disk: it is told of, and the change is in memory all the same."""
    (tmp_path / "file").write_text("")
    trail = Trail(tmp_path / "file" / "switches.json", Clock(1_000_000.0))
    trail.done(Entry(1, "feature"))
    await trail.written()

    assert len(trail.changes) == 1


async def test_a_long_trail_is_told_without_stopping_the_master(tmp_path: Path) -> None:
    """Its ladder and its line to other hosts go on while a megabyte of JSON is made; every entry is in it."""
    file = tmp_path / "gateway.yaml"
    file.write_text(
        "upstreams: {shop: {servers: ['http://127.0.0.1:9']}}\nroutes: [{match: '/**', upstream: shop}]"
    )
    master = Master(file, Overrides(), {})
    for number in range(rooms.REMEMBERED):
        master.trail.done(Entry(number, "feature", reason='"ü\n'))
    master.trail.refused(Entry(7, "request", result="refused"))
    await master.trail.written()
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    counting = asyncio.create_task(count())
    by = Principal("vera", "viewer", "10.0.0.1")
    answer = await Looks(master, Overview(master)).trail(Call(Request({"type": "http"}), by, None))
    counting.cancel()

    told = json.loads(bytes(answer.body))
    assert turns > 0
    assert [one["at"] for one in told["changes"]] == [*reversed(range(rooms.REMEMBERED))]
    assert told["changes"][0] == master.trail.changes[0].told()
    assert [one["at"] for one in told["refused"]] == [7]


async def test_a_switch_of_another_host_is_in_the_trail(
    start_gateway: Any, redis_volatile_url: str, until: Any
) -> None:
    """With who did it there."""
    shared = {"url": redis_volatile_url, "timeout": "5s"}
    one, other = await start_gateway(redis=shared), await start_gateway(redis=shared)
    await one.admin("PUT", FEATURE, {"state": "off", "reason": "sale"})

    async def heard() -> Any:
        return (await other.admin("GET", "/api/audit")).json()["changes"]

    (entry,) = await until(heard)
    assert (entry["result"], entry["reason"], entry["by"]) == ("heard", "sale", "operator at 127.0.0.1")


async def test_ending_shut_offs_is_recorded(start_gateway: Any, shop: Any, until: Any) -> None:
    """What was let through again and by whom; an id that is not shut off is refused, and recorded as that."""

    async def sold_out(_: Any, writer: Any, __: Any) -> None:
        writer.write(
            b"HTTP/1.1 410 Gone\r\nTidegate-Shut: sku=steam-50; for=60\r\nContent-Length: 8\r\n\r\nsold out"
        )

    shop.scripts["/buy/steam-50"] = sold_out
    gateway = await start_gateway(routes=[{"match": "/buy/{sku}", "upstream": "shop"}])
    assert (await gateway.fresh("/buy/steam-50")).status_code == 410

    async def told() -> Any:
        return (await gateway.admin("GET", "/api/shut-offs")).json()["shut_offs"]

    (held,) = await until(told)

    assert (await gateway.admin("DELETE", f"/api/shut-offs/{held['id']}")).json() == {"cleared": 1}
    assert (await gateway.admin("DELETE", "/api/shut-offs/nothing")).status_code == 404

    trail = (await gateway.admin("GET", "/api/audit")).json()
    (entry,) = trail["changes"]
    told = (entry["kind"], entry["name"], entry["value"], entry["by"])
    assert told == ("shut-off", "/buy/{sku} sku=steam-50", "1 let through", "operator at 127.0.0.1")
    assert (trail["refused"][0]["kind"], trail["refused"][0]["status"]) == ("shut-off", 404)
