"""What Redis costs when it freezes under load: `python -m benchmarks.store_lost`.

Two gateways of two workers share a limit through a Redis that is stopped (SIGSTOP) and let go again, round
after round, under a steady load above the limit. What the limit admits is answered by a feature's fallback,
so that no upstream blurs the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import machine, report
from benchmarks.gateway import Gateway
from benchmarks.line import Line
from benchmarks.outage import Round, Sample
from benchmarks.proxy import stopped_by_signals
from benchmarks.redis_server import RedisServer
from benchmarks.report import percentile

HOSTS, WORKERS = 2, 2
LIMIT = 400  # a second, of all together
OFFERED = 300  # a second, to each host
TIMEOUT = 20.0  # milliseconds
STEADY, AWAY, BACK = 3.0, 5.0, 3.0  # seconds of a round: before the stop, stopped, after all are back
AFTER = 1.0  # milliseconds; what may be added from the second second on
BEFORE = 1.0  # seconds; that the shares were used then shows in the count on return
NO_BOUND = float("inf")
SLACK = 1.05  # of a count by our clock beside one by Redis's
PAUSE = 1000 * (SLACK - 1)  # ms; what a longer pause of the load leaves out, the limit admits after it
SETTINGS: dict[str, Any] = {
    "upstreams": {"shop": {"servers": ["http://127.0.0.1:9"]}},
    "features": {"off": {"fallback": {"json": {}}, "state": "off"}},
    "limits": {"all": {"rate": f"{LIMIT}/second", "per": "global"}},
    "routes": [{"match": "/limit", "upstream": "shop", "feature": "off", "limits": ["all"]}],
}


class Load:
    """Offers requests at a steady pace, whether those before were answered or not."""

    def __init__(self, ports: Sequence[int]) -> None:
        self.samples: list[Sample] = []
        self.failures = Counter[str]()  # by what it was
        self._ports = ports
        self._idle: list[list[Line]] = [[] for _ in ports]
        self._tasks: set[asyncio.Task[None]] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Until it is stopped."""
        begin, turn = time.monotonic(), 0
        while not stop.is_set():
            due = begin + turn / (OFFERED * len(self._ports))
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            task = asyncio.create_task(self._one(turn % len(self._ports)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            turn += 1
        await asyncio.gather(*self._tasks)
        for line in [line for idle in self._idle for line in idle]:
            line.close()

    async def _one(self, host: int) -> None:
        idle = self._idle[host]
        while True:
            kept = bool(idle)
            try:
                line = idle.pop() if kept else await Line.open(self._ports[host])
                sent = time.monotonic()
                answer = await line.get("/limit")
                break
            except (OSError, asyncio.IncompleteReadError) as error:
                if not kept:  # else it had been idle for too long: the gateway hung up as we wrote
                    self.failures[type(error).__name__] += 1
                    return
        self.samples.append(Sample(host, sent, time.monotonic(), answer.status == 200))
        if answer.status not in {200, 429}:
            self.failures[f"{answer.status}"] += 1
        self._idle[host].append(line)


async def one_round(server: RedisServer, gateways: Sequence[Gateway], load: Load) -> Round:
    """Steady, stopped, back."""
    found = Round()
    load.samples = found.samples
    losses = _losses(gateways)
    await asyncio.sleep(STEADY)
    found.lost = _losses(gateways) - losses
    server.freeze()
    found.stopped = time.monotonic()
    await asyncio.sleep(AWAY)
    losses = _losses(gateways)
    server.thaw()
    found.resumed = time.monotonic()
    async with asyncio.timeout(30):
        while not all([await _up(one) for one in gateways]):  # noqa: ASYNC110 - other processes
            await asyncio.sleep(0.05)
    found.back = time.monotonic()
    await asyncio.sleep(BACK)
    found.ended = time.monotonic()
    found.lost += _losses(gateways) - losses
    return found


def _losses(gateways: Sequence[Gateway]) -> int:
    """How often a worker lost Redis so far."""
    return sum(one.log.read_bytes().count(b"limits are judged locally") for one in gateways)


async def _up(gateway: Gateway) -> bool:
    """Whether every worker of a gateway shares its limits."""
    line = await Line.open(gateway.admin_port)  # httpx's client takes 0.1 s to make, and the load would pause
    try:
        return b"\ntidegate_limit_store_up 1" in (await line.get("/metrics")).body
    finally:
        line.close()


async def measure(folder: Path, rounds: int) -> tuple[list[Round], Counter[str]]:
    """Round after round; also which requests were answered neither 200 nor 429, or not at all."""
    with ExitStack() as running:
        server = running.enter_context(RedisServer(folder))
        shared = {"url": server.url, "timeout": f"{TIMEOUT:g}ms"}
        gateways = [
            running.enter_context(Gateway(folder / f"host-{n}", WORKERS, redis=shared, **SETTINGS))
            for n in range(HOSTS)
        ]
        load, stop = Load([one.port for one in gateways]), asyncio.Event()
        offering = asyncio.create_task(load.run(stop))
        await asyncio.sleep(2.0)  # everybody knows of everybody
        found = [await one_round(server, gateways, load) for _ in range(rounds)]
        stop.set()
        await offering
    return found, load.failures


@dataclass(frozen=True, slots=True)
class Finding:
    """A figure, and the most that it ought to be."""

    says: str
    figure: float
    most: float


def findings(rounds: Sequence[Round], failures: int) -> list[Finding]:
    """The claims, with what was found."""

    def latency(share: float, since: str, begin: float, end: float) -> float:
        return percentile(
            [
                one
                for each in rounds
                for one in each.latencies(getattr(each, since) + begin, getattr(each, since) + end)
            ],
            share,
        )

    found = []
    for name, share in (("p50", 0.5), ("p99", 0.99)):
        steady = latency(share, "stopped", 0.5 - STEADY, 0.0)
        found += [
            Finding(f"{name} in ms while Redis is there", steady, NO_BOUND),
            *(
                Finding(f"added to {name} {when}, ms", latency(share, *interval) - steady, most)
                for when, interval, most in (
                    ("in the first second", ("stopped", 0.0, 1.0), TIMEOUT),
                    ("from the second on", ("stopped", 1.0, AWAY), AFTER),
                    ("on return", ("resumed", 0.0, BACK), TIMEOUT),
                )
            ),
        ]
    share = LIMIT / HOSTS
    alone = [one.rate(one.stopped + 1, one.resumed, host) for one in rounds for host in range(HOSTS)]
    steadily = max(one.fullest_second(one.stopped - STEADY + 0.5, one.stopped) for one in rounds)
    return [
        *found,
        Finding(f"admitted a second by one host alone (share {share:g})", max(alone), share * SLACK),
        Finding(f"fullest second while Redis is there (limit {LIMIT})", steadily, NO_BOUND),
        Finding(
            f"fullest second from 1 s before it was stopped (limit {LIMIT})",
            max(one.fullest_second(one.stopped - 1, one.resumed) for one in rounds),
            LIMIT * SLACK,
        ),
        Finding(
            f"fullest second since it was let go (limit {LIMIT})",
            max(one.fullest_second(one.resumed, one.ended) for one in rounds),
            LIMIT * SLACK,
        ),
        Finding(
            "the load's longest pause from 1 s before it was let go, ms",
            max(one.longest_pause(one.resumed - BEFORE, one.ended) for one in rounds),
            PAUSE,
        ),
        Finding(
            "workers that lost Redis while the others had it (each has its share then)",
            sum(one.lost for one in rounds),
            NO_BOUND,
        ),
        Finding(
            f"admitted a second, on average, from {BEFORE:g} s before it was let go to the end",
            max(one.rate(one.resumed - BEFORE, one.ended) for one in rounds),
            LIMIT * SLACK,
        ),
        Finding("seconds until all shared again", max(one.back - one.resumed for one in rounds), NO_BOUND),
        Finding("answers neither 200 nor 429", failures, 0),
    ]


def text(found: Sequence[Finding]) -> str:
    """The table."""
    rows = [
        (
            one.says,
            f"{one.figure:.4g}",
            "–" if one.most == NO_BOUND else f"{one.most:g}",
            "–" if one.most == NO_BOUND else "yes" if one.figure <= one.most else "no",
        )
        for one in found
    ]
    return report.table(("", "found", "at most", "met"), rows)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.store_lost", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10, help="stops of Redis (%(default)s)")
    given = parser.parse_args(arguments)
    machine.require_two_cores()
    with stopped_by_signals(), tempfile.TemporaryDirectory() as place:
        rounds, failures = asyncio.run(measure(Path(place), given.rounds))
    found = findings(rounds, failures.total())
    print(json.dumps(machine.describe() | {"load": machine.load_average()}))
    print(
        f"{given.rounds} stops of {AWAY:g} s, {HOSTS} gateways with {WORKERS} workers each, all on one core; "
        f"{OFFERED} requests a second offered to each\n\n{text(found)}\n{dict(failures) or ''}"
    )
    return 0 if all(one.figure <= one.most for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
