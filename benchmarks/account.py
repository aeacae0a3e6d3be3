"""Where each microsecond of a proxied request goes: `python -m benchmarks.account`."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import sys
import tempfile
import timeit
from collections.abc import Callable
from pathlib import Path

import uvloop

from benchmarks import load, machine
from benchmarks.bench import Run, opened
from benchmarks.harness import WARM_UP
from benchmarks.inside import ANSWER, REQUESTS, USERS, Inside
from benchmarks.load import CASES
from benchmarks.peers import choose
from benchmarks.peers.peer import HERE
from benchmarks.peers.tidegate import new_build
from benchmarks.report import table
from benchmarks.site import render
from gateway.access_log import record
from gateway.config import Listen
from gateway.exchange import Exchange, Terms
from gateway.head import HeadReader
from gateway.state.counters import SharedCounters, shared_memory
from gateway.state.limits import LocalLimits
from gateway.upstream.forward import request_head
from gateway.upstream.response import ResponseReader
from gateway.worker import calm_collector

ROUNDS = 100  # of one request from each client, in one reading
READINGS = 15
WIDE, TIGHT = "1000000/1 seconds", "1/3600 seconds"
REFUSED = "refused"  # by a user's limit: nothing is left out, and yet most of the walk is


# ---- over sockets: what is the kernel's ------------------------------------------------------


def over_sockets(peers: str, seconds: float, rounds: int) -> tuple[Run, list[tuple[str, float, float]]]:
    """User and system microseconds per request of each peer; medians of rounds."""
    run = Run(machine=machine.describe(), settings={"seconds": seconds, "rounds": rounds, "connections": 64})
    case = CASES[0]
    readings: dict[str, list[tuple[float, float]]] = {}
    with opened(run, lambda line: print(line, file=sys.stderr)) as bench:
        instances = {peer.name: bench.start(peer) for peer in bench.present(choose(peers))}
        for number in range(rounds + 1):
            for name, instance in instances.items():
                if instance is None:
                    continue
                before = instance.process.user_and_system()
                outcome = load.offer(case, instance.site.port, seconds=seconds if number else WARM_UP)
                after = instance.process.user_and_system()
                user, system = ((b - a) / outcome.answered * 1e6 for a, b in zip(before, after, strict=True))
                if number:
                    readings.setdefault(name, []).append((user, system))
    rows = [
        (name, statistics.median(one[0] for one in all_), statistics.median(one[1] for one in all_))
        for name, all_ in readings.items()
    ]
    return run, rows


# ---- inside a worker: what each protection adds ----------------------------------------------


def configuration(*, user: str) -> str:
    """What is measured, with this limit of each user."""
    text = render(
        HERE / "tidegate.yaml",
        folder=Path(tempfile.mkdtemp(prefix="tidegate-account-")),
        first=18081,
        second=18082,
        redis="",
        more_routes="",
        overall=WIDE,
        user=user,
    )
    # Without sockets no latency tells how much the upstream can take, and connections are not opened anew.
    return text.replace("{min: 4,", "{min: 1000,").replace("    timeout:", "    keep_alive: 1h\n    timeout:")


def variants() -> dict[str, str]:
    """The configuration that is measured, the same without one protection or without all, and refusing."""
    whole = configuration(user=WIDE)

    def without(*patterns: str) -> str:
        left = whole
        for pattern in patterns:
            left, count = re.subn(pattern, "", left, flags=re.MULTILINE)
            if not count:
                raise ValueError(f"the configuration of the benchmark has no {pattern}")
        return left

    limits, log = r"limits: \[.*?\], ", r"^access_log: .*$"
    breaker, concurrency = r"^    breaker: .*$", r"^    concurrency: .*$"
    return {
        "nothing": whole,
        "limits (all, each user)": without(limits),
        "access log": without(log),
        "breaker": without(breaker),
        "adaptive concurrency": without(concurrency),
        "all four": without(limits, log, breaker, concurrency),
        REFUSED: configuration(user=TIGHT),
    }


async def _inside() -> dict[str, float]:
    stands = {name: Inside(text) for name, text in variants().items()}
    for stand in stands.values():
        await stand.open()
    calm_collector()  # as every worker does once it serves
    readings: dict[str, list[float]] = {name: [] for name in stands}
    for _ in range(READINGS):  # in turn, so that a noisy second troubles all
        for name, stand in stands.items():
            readings[name].append(stand.measure(ROUNDS))
            await asyncio.sleep(0)
    # What disturbs only ever adds.
    return {name: min(all_) for name, all_ in readings.items()}


# ---- single steps ----------------------------------------------------------------------------


def steps() -> dict[str, float]:
    """Microseconds of the larger steps, each repeated by itself: with warm caches, so a lower bound."""
    reader, answers = HeadReader(Listen()), ResponseReader()
    limits = LocalLimits(SharedCounters(shared_memory()))
    terms = [Terms(name, 1_000_000, 1.0) for name in ("global", "user")]
    request = reader.read(REQUESTS[0]) and reader.read(REQUESTS[0])  # what comes twice is remembered
    assert request is not None  # noqa: S101 - it is one of the plainest
    exchange = Exchange(
        method=request.method,
        target=request.target,
        path=request.path,
        headers=request.headers,
        host=request.host,
        address="127.0.0.1",
        receive=None,
        started=0.0,
        request_id=b"0123456789abcdef" * 2,
    )
    exchange.route, exchange.upstream_seconds = "/**", 0.001

    def read_answer() -> None:
        answers.begin(head_only=False)
        answers.feed(ANSWER)
        answers.take()

    def one_after_the_other() -> Callable[[], object]:
        turns = iter(range(1 << 40))
        return lambda: reader.read(REQUESTS[next(turns) % USERS])

    def judge() -> Callable[[], object]:
        turns = iter(range(1 << 40))
        keys = [f"h:user-{user}" for user in range(USERS)]
        return lambda: limits.try_take([(terms[0], ""), (terms[1], keys[next(turns) % USERS])])

    def unlike() -> Callable[[], object]:
        turns = iter(range(1 << 40))
        return lambda: reader.read(b"GET /api/small HTTP/1.1\r\nHost: a\r\nX-User: %d\r\n\r\n" % next(turns))

    done: dict[str, Callable[[], object]] = {
        "request read and vetted": one_after_the_other(),
        "the same, with a header never seen before": unlike(),
        "two limits judged, under the hosts' lock": judge(),
        "request's header written for the upstream": lambda: request_head(exchange, 5.0),
        "answer read": read_answer,
        "line for the access log": lambda: record(exchange, 200, 292, 0.001, 1e9),
    }
    return {name: min(timeit.repeat(one, number=5000, repeat=15)) / 5000 * 1e6 for name, one in done.items()}


def main() -> int:
    """Measure all three, print them, write them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.account", description=__doc__)
    parser.add_argument("--peers", default="tidegate,envoy,nginx,uvicorn-bare", help="(%(default)s)")
    parser.add_argument("--seconds", type=float, default=3.0, help="of load per reading (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--json", type=Path, help="where to write")
    given = parser.parse_args()
    if new_build(lambda line: print(line, file=sys.stderr)):  # this process has imported the sources
        os.execv(sys.executable, [sys.executable, "-m", "benchmarks.account", *sys.argv[1:]])  # noqa: S606 - ours
    run, sockets = over_sockets(given.peers, given.seconds, given.rounds)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        inside = runner.run(_inside())
    alone = steps()
    print("\n**over sockets**: GET answered with 292 bytes, microseconds per request\n")
    rows: list[tuple[str, ...]] = [
        (name, f"{user:.1f}", f"{system:.1f}", f"{user + system:.1f}") for name, user, system in sockets
    ]
    print(table(("peer", "user", "kernel", "both"), rows))
    print("\n**inside a worker**: the same without sockets and without the event loop\n")
    whole, refused = inside["nothing"], inside.pop(REFUSED)
    rows = [(name, f"{cost:.1f}", f"{whole - cost:.1f}") for name, cost in inside.items()]
    print(table(("without", "µs", "saved"), rows))
    print(f"\nA request over its user's limit, answered 429: {refused:.1f} µs.")
    print("\n**steps**: each repeated by itself\n")
    print(table(("step", "µs"), [(name, f"{cost:.2f}") for name, cost in alone.items()]))
    if given.json:
        found: dict[str, object] = {"machine": run.machine, "sockets": sockets, "inside": inside}
        found |= {"refused": refused, "steps": alone}
        given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
