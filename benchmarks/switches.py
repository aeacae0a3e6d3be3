"""How soon an operator's word holds everywhere: `python -m benchmarks.switches`.

Two gateways share a Redis. A feature is switched, and a limit changed, by the admin API of one of them, in
turn; a connection to every worker of both asks on and on, and tells when the answer is the new one.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import httpx

from benchmarks import machine, report
from benchmarks.gateway import TOKEN, Gateway
from benchmarks.line import Answer, Line
from benchmarks.proxy import stopped_by_signals
from benchmarks.redis_server import RedisServer
from benchmarks.report import percentile

GOAL = 500.0  # milliseconds
HOSTS, WORKERS = 2, 2
PATIENCE = 30.0  # seconds for one change
SETTINGS: dict[str, Any] = {
    "upstreams": {"shop": {"servers": ["http://127.0.0.1:9"]}},  # nobody there: what is asked needs no shop
    "features": {"off": {"fallback": {"json": {}}, "state": "off"}, "seen": {"fallback": {"json": {}}}},
    "limits": {"seen": {"rate": "1000000/second", "per": "global"}},
    "routes": [
        {"match": "/feature", "upstream": "shop", "feature": "seen"},
        {"match": "/limit", "upstream": "shop", "feature": "off", "limits": ["seen"]},
    ],
}

Holds = Callable[[Answer], bool]


async def lines_to_workers(gateway: Gateway, workers: int, path: str = "/limit") -> list[Line]:
    """A connection to each worker. The kernel chooses who gets one: open more until all have theirs."""
    found: dict[int, Line] = {}
    while len(found) < workers:
        line = await Line.open(gateway.port)
        await line.get(path)  # accepted by now
        worker = gateway.worker_of(line.own_port)
        if worker is None or worker in found:
            line.close()
        else:
            found[worker] = line
    return list(found.values())


async def until_it_holds(line: Line, path: str, holds: Holds) -> float:
    """The moment of a worker's first answer by the new word."""
    while not holds(await line.get(path)):
        pass
    return time.perf_counter()


def is_off(off: bool) -> Holds:
    """Whether the feature's fallback was served, or its (absent) upstream was asked."""
    return lambda answer: (answer.status == 200) == off


def has_rate(rate: int) -> Holds:
    """Whether the limit told is the new one."""
    return lambda answer: f"q={rate};" in answer.field("ratelimit-policy")


async def change(admin: httpx.AsyncClient, lines: list[Line], path: str, body: object, holds: Holds) -> float:
    """Milliseconds from the operator's request to the last worker's first new answer.

    Raises:
        TimeoutError: it did not reach all of them.
    """
    kind = "/feature" if "features" in path else "/limit"
    waiting = [asyncio.create_task(until_it_holds(line, kind, holds)) for line in lines]
    await asyncio.sleep(0)
    began = time.perf_counter()
    async with asyncio.timeout(PATIENCE):
        said = await admin.put(path, json=body)
        said.raise_for_status()
        return (max(await asyncio.gather(*waiting)) - began) * 1000


async def measure(folder: Path, times: int) -> dict[str, list[float]]:
    """Milliseconds of each change, by what was changed."""
    found: dict[str, list[float]] = {"a feature's switch": [], "a limit's rate": []}
    with ExitStack() as running:
        server = running.enter_context(RedisServer(folder))
        shared = {"url": server.url, "timeout": "20ms"}
        gateways = [
            running.enter_context(Gateway(folder / f"host-{n}", WORKERS, redis=shared, **SETTINGS))
            for n in range(HOSTS)
        ]
        async with AsyncExitStack() as open_:
            token = {"authorization": f"Bearer {TOKEN}"}
            admins = [
                await open_.enter_async_context(
                    httpx.AsyncClient(base_url=one.admin_url, headers=token, timeout=PATIENCE)
                )
                for one in gateways
            ]
            lines = [line for one in gateways for line in await lines_to_workers(one, WORKERS)]
            for turn in range(times):
                admin, off, rate = admins[turn % HOSTS], turn % 2 == 0, 1000 + turn
                switch = {"state": "off" if off else "on", "for": "10m", "reason": "measured"}
                found["a feature's switch"].append(
                    await change(admin, lines, "/api/features/seen", switch, is_off(off))
                )
                limit = {"rate": f"{rate}/second", "for": "10m"}
                found["a limit's rate"].append(
                    await change(admin, lines, "/api/limits/seen", limit, has_rate(rate))
                )
            for line in lines:
                line.close()
    return found


def text(found: dict[str, list[float]]) -> str:
    """The table."""
    rows = [
        (
            what,
            str(len(times)),
            *(f"{percentile(times, share):.1f}" for share in (0.5, 0.99)),
            f"{max(times):.1f}",
            "yes" if max(times) <= GOAL else "no",
        )
        for what, times in found.items()
    ]
    return report.table(("changed", "times", "p50 ms", "p99 ms", "max ms", f"within {GOAL:g} ms"), rows)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.switches", description=__doc__)
    parser.add_argument("--times", type=int, default=200, help="each is changed (%(default)s)")
    given = parser.parse_args(arguments)
    machine.require_two_cores()
    with stopped_by_signals(), tempfile.TemporaryDirectory() as place:
        found = asyncio.run(measure(Path(place), given.times))
    print(json.dumps(machine.describe() | {"load": machine.load_average()}))
    print(f"{HOSTS} gateways with {WORKERS} workers each, all on one core\n\n{text(found)}")
    return 0 if all(max(times) <= GOAL for times in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
