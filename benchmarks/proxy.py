"""`python -m benchmarks.proxy`: what a proxied request costs, beside peers doing the same work."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType

from benchmarks import report
from benchmarks.bench import Run
from benchmarks.harness import compare
from benchmarks.load import CASES, Case, LoadError
from benchmarks.machine import MachineError
from benchmarks.peers import PEERS, choose
from benchmarks.peers.peer import cache_folder
from benchmarks.processes import StartError
from benchmarks.scale import AXES, grow


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the tables, write the JSON; returns the exit code."""
    given = _parser().parse_args(arguments)
    with stopped_by_signals():
        return _measure(given)


@contextmanager
def stopped_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGINT unwind, so that every peer is stopped; a shell's `&` leaves SIGINT ignored."""

    def leave(number: int, _: FrameType | None) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _measure(given: argparse.Namespace) -> int:
    if given.quick:
        given.rounds, given.seconds, given.idle = 1, 1.0, 200
    try:
        return _scale(given) if given.scale else _compare(given)
    except (ValueError, MachineError, StartError, LoadError, OSError) as error:
        print(error, file=sys.stderr)
        return 1


def _compare(given: argparse.Namespace) -> int:
    cases = choose_cases(given.cases)
    results = compare(
        choose(given.peers),
        cases,
        rounds=given.rounds,
        seconds=given.seconds,
        connections=given.connections,
        idle=given.idle,
        say=_say,
    )
    print(report.comparison(results, cases, given.against))
    _keep(results, given.json, "proxy")
    return 0 if results.summaries else 1


def _scale(given: argparse.Namespace) -> int:
    results = grow(
        choose(given.peers or "tidegate"),
        rounds=given.rounds,
        seconds=given.seconds,
        say=_say,
        axes=given.axes or tuple(AXES),
    )
    print(report.growth(results, flat=0.1))
    _keep(results, given.json, "scale")
    return 0 if results.points else 1


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _keep(results: Run, path: Path | None, name: str) -> None:
    path = path or cache_folder() / "results" / f"{name}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    report.write_json(results, path)
    _say(f"written: {path}")


def choose_cases(names: str) -> tuple[Case, ...]:
    """The cases named; all for the empty string.

    Raises:
        ValueError: a name is none of theirs.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = {case.name: case for case in CASES}
    for name in wanted:
        if name not in known:
            raise ValueError(f"no case is called {name!r}; there are {', '.join(known)}")
    return tuple(case for case in CASES if not wanted or case.name in wanted)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.proxy", description=__doc__)
    parser.add_argument("--peers", default="", help=f"of {','.join(peer.name for peer in PEERS)}; all")
    parser.add_argument("--cases", default="", help=f"of {','.join(case.name for case in CASES)}; all")
    parser.add_argument("--against", default="envoy", help="the peer that ratios refer to (%(default)s)")
    parser.add_argument("--rounds", type=_whole, default=3, help="after a warm-up (%(default)s)")
    parser.add_argument("--seconds", type=_seconds, default=5.0, help="of load per reading (%(default)s)")
    parser.add_argument("--connections", type=_whole, default=64, help="(%(default)s)")
    parser.add_argument("--idle", type=int, default=2000, help="idle connections to weigh (%(default)s)")
    parser.add_argument("--scale", action="store_true", help="grow connections, routes and users instead")
    parser.add_argument("--axes", nargs="+", choices=tuple(AXES), help="of --scale; all")
    parser.add_argument("--quick", action="store_true", help="one short round: does it work at all?")
    parser.add_argument("--json", type=Path, help="where to write; default below the cache folder")
    return parser


def _whole(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 100_000:
        raise argparse.ArgumentTypeError("between 1 and 100000")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 1 <= number <= 600:
        raise argparse.ArgumentTypeError("between 1 and 600 seconds")
    return number


if __name__ == "__main__":
    sys.exit(main())
