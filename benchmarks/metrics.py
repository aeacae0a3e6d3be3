"""What metrics cost, to a scraper and to a request: `python -m benchmarks.metrics`.

A gateway with many routes, each of which every worker has answered, is scraped and asked for its status. What
a request costs is measured where it is counted, without a gateway around it, in CPU time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks import machine, report
from benchmarks.gateway import TOKEN, Gateway
from benchmarks.line import Line
from benchmarks.proxy import stopped_by_signals
from benchmarks.report import percentile
from benchmarks.switches import lines_to_workers
from gateway.metrics import WorkerMetrics

SCRAPE_GOAL, REQUEST_GOAL = 50.0, 3.0  # milliseconds; microseconds
CODES = 3  # of answers, on each route
BATCH = 20_000  # requests that are counted between two looks at the clock
PAGES = {"a scrape": "/metrics", "the status": "/api/status"}


def settings(routes: int) -> dict[str, Any]:
    """So many routes, each answered by the gateway itself, and a limit on all."""
    return {
        "upstreams": {"shop": {"servers": ["http://127.0.0.1:9"], "breaker": {}}},
        "features": {"off": {"fallback": {"json": {}}, "state": "off"}},
        "limits": {"all": {"rate": "1000000/second", "per": "global"}},
        "routes": [
            {"match": f"/r{n}/{{x}}", "upstream": "shop", "feature": "off", "limits": ["all"]}
            for n in range(routes)
        ],
    }


async def warm(line: Line, routes: int) -> None:
    """Have a worker answer on each route."""
    for number in range(routes):
        await line.get(f"/r{number}/x")


@dataclass(frozen=True, slots=True)
class Page:
    """A page that was asked for again and again.

    Attributes:
        name: for the table.
        taken: milliseconds of each answer.
        cpu: milliseconds of all the gateway's processes for one.
        size: bytes of the last.
    """

    name: str
    taken: list[float]
    cpu: float
    size: int


async def scrape(folder: Path, workers: int, routes: int, times: int) -> list[Page]:
    """Ask for every page so many times."""
    found = []
    with Gateway(folder / "gateway", workers, **settings(routes)) as gateway:
        lines = await lines_to_workers(gateway, workers, path="/r0/x")
        await asyncio.gather(*(warm(line, routes) for line in lines))
        token = {"authorization": f"Bearer {TOKEN}"}
        async with httpx.AsyncClient(base_url=gateway.admin_url, headers=token, timeout=30) as client:
            for name, path in PAGES.items():
                await client.get(path)  # opens the connection
                taken, size, spent = [], 0, gateway.cpu_seconds()
                for _ in range(times):
                    began = time.perf_counter()
                    answer = await client.get(path)
                    taken.append((time.perf_counter() - began) * 1000)
                    size = len(answer.raise_for_status().content)
                cpu = (gateway.cpu_seconds() - spent) / times * 1000
                found.append(Page(name, taken, cpu, size))
        for line in lines:
            line.close()
    return found


def count(routes: int, rounds: int) -> list[float]:
    """CPU microseconds that counting one proxied request takes, a figure for each round.

    All that is counted: the request by route, method, code and outcome, its time, the upstream's time, and
    two limits' decisions.
    """
    metrics = WorkerMetrics()
    tallies = metrics.limit_tally("global"), metrics.limit_tally("user")
    names = [f"/r{n}/{{x}}" for n in range(routes)]
    taken = []
    for _ in range(rounds):
        began = time.process_time()
        for number in range(BATCH):
            metrics.request(names[number % routes], "GET", 200 + number % CODES, "proxied", number / BATCH)
            metrics.upstream("shop", 0.004)
            for tally in tallies:
                tally.allowed += 1
        full = time.process_time() - began
        began = time.process_time()
        for number in range(BATCH):
            names[number % routes], 200 + number % CODES, number / BATCH  # what the loop itself costs
        taken.append((full - (time.process_time() - began)) / BATCH * 1e6)
    return taken


def text(pages: list[Page], counted: list[float]) -> str:
    """The tables."""
    rows = [
        (
            page.name,
            str(len(page.taken)),
            *(f"{percentile(page.taken, share):.1f}" for share in (0.5, 0.99)),
            f"{page.cpu:.1f}",
            f"{page.size:,}",
            ("yes" if percentile(page.taken, 0.5) <= SCRAPE_GOAL else "no") if page is pages[0] else "",
        )
        for page in pages
    ]
    head = ("page", "times", "p50 ms", "p99 ms", "CPU ms", "bytes", f"p50 within {SCRAPE_GOAL:g} ms")
    middle = percentile(counted, 0.5)
    good = "yes" if middle <= REQUEST_GOAL else "no"
    row = (f"{middle:.2f}", f"{min(counted):.2f}-{max(counted):.2f}", str(len(counted)), good)
    cost = report.table(("µs CPU a request", "low-high", "rounds", f"within {REQUEST_GOAL:g} µs"), [row])
    return f"{report.table(head, rows)}\n\n{cost}"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.metrics", description=__doc__)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--routes", type=int, default=200)
    parser.add_argument("--times", type=int, default=50, help="each page is asked for (%(default)s)")
    given = parser.parse_args(arguments)
    machine.require_two_cores()
    with stopped_by_signals(), tempfile.TemporaryDirectory() as place:
        pages = asyncio.run(scrape(Path(place), given.workers, given.routes, given.times))
    counted = count(given.routes, 9)
    print(json.dumps(machine.describe() | {"load": machine.load_average()}))
    print(f"{given.workers} workers on one core, {given.routes} routes\n\n{text(pages, counted)}")
    within = percentile(pages[0].taken, 0.5) <= SCRAPE_GOAL and percentile(counted, 0.5) <= REQUEST_GOAL
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main())
