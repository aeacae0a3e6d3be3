"""`python -m benchmarks.limits`: what limits cost, shared, refusing, and with a million users."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from benchmarks import report
from benchmarks.bench import Run, Say, opened
from benchmarks.harness import Results, compare
from benchmarks.instance import CheckError, Instance
from benchmarks.load import CASES, Case, LoadError
from benchmarks.machine import MachineError
from benchmarks.peers import choose
from benchmarks.peers.peer import Peer, cache_folder
from benchmarks.processes import StartError
from benchmarks.proxy import stopped_by_signals

PEERS = "tidegate,tidegate+redis,nginx+lua+redis,uvicorn-bare"
OURS = "tidegate,tidegate+redis"
ADMITTED, REFUSED = CASES[0], next(case for case in CASES if case.refused)
USERS = 1_000_000
_MIB = 2**20


@dataclass(frozen=True, slots=True)
class Crowd:
    """What many distinct users left behind in memory.

    Attributes:
        peer: whose memory.
        users: distinct ones that were counted, at most.
        before: bytes of its tree once a hundred users had been.
        after: bytes when all had been.
    """

    peer: str
    users: int
    before: int
    after: int

    @property
    def growth(self) -> int:
        """Bytes."""
        return self.after - self.before


@dataclass(slots=True)
class Findings(Results):
    """The comparison, and what a crowd leaves in memory.

    Attributes:
        crowds: one for each of ours.
    """

    crowds: list[Crowd] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure beside what it ought to be at most; None when it wasn't measured."""

    says: str
    figure: float | None
    most: float

    @property
    def verdict(self) -> str:
        """For the table."""
        return "not measured" if self.figure is None else "yes" if self.figure <= self.most else "no"


def goals(found: Findings) -> list[Goal]:
    """The goals for limits, with what was found."""
    refused = found.find("tidegate", REFUSED.name)
    refused_shared = found.find("tidegate+redis", REFUSED.name)
    bare = found.find("uvicorn-bare", ADMITTED.name)
    shared = found.find("tidegate+redis", ADMITTED.name)
    return [
        Goal(
            "shared limits, CPU, × nginx+lua+redis",
            found.ratio("tidegate+redis", ADMITTED.name, "nginx+lua+redis"),
            1.5,
        ),
        Goal("shared limits, Redis round trips a request", shared.redis_calls if shared else None, 0.25),
        *(
            Goal(
                f"refusal, {who}, CPU, × a bare uvicorn answer",
                one.cpu / bare.cpu if one and bare else None,
                1.25,
            )
            for who, one in (("local", refused), ("shared", refused_shared))
        ),
        Goal(
            "refusal, shared, Redis round trips a request",
            refused_shared.redis_calls if refused_shared else None,
            0.01,
        ),
        *(
            Goal(f"{crowd.peer}, {crowd.users:,} users, growth in MiB", crowd.growth / _MIB, 50.0)
            for crowd in found.crowds
        ),
    ]


def text(found: Findings, cases: Sequence[Case]) -> str:
    """The whole report."""
    rows = [
        (goal.says, "–" if goal.figure is None else f"{goal.figure:.3g}", f"{goal.most:g}", goal.verdict)
        for goal in goals(found)
    ]
    table = report.table(("goal", "found", "at most", "met"), rows)
    return f"{report.comparison(found, cases, 'nginx+lua+redis')}\n\n**goals**\n\n{table}"


def weigh(found: Run, peers: Sequence[Peer], *, seconds: float, say: Say) -> list[Crowd]:
    """Send so many users past each peer, and see what they leave in its memory.

    Raises:
        StartError: the upstream can't be started.
    """
    crowds = []
    with opened(found, say) as bench:
        for peer in bench.present(peers):
            instance = bench.start(peer)
            if instance is None:
                continue
            try:
                crowds.append(_crowd(instance, seconds))
            except (CheckError, LoadError) as error:
                bench.drop(peer, error)
                continue
            say(f"{peer.name}: {crowds[-1].users:,} users, {crowds[-1].growth / _MIB:.1f} MiB")
    return crowds


def _crowd(instance: Instance, seconds: float) -> Crowd:
    instance.measure(ADMITTED, seconds=2.0)  # buffers and pools have grown by now
    before = instance.process.memory_bytes()
    answered = instance.measure(ADMITTED, seconds=seconds, users=USERS).outcome.answered
    return Crowd(instance.peer.name, min(answered, USERS), before, instance.process.memory_bytes())


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the tables, write the JSON; returns the exit code."""
    given = _parser().parse_args(arguments)
    if given.quick:
        given.rounds, given.seconds, given.crowd = 1, 1.0, 2.0
    with stopped_by_signals():
        try:
            found = _measure(given)
        except (ValueError, MachineError, StartError, LoadError, OSError) as error:
            print(error, file=sys.stderr)
            return 1
    print(text(found, (ADMITTED, REFUSED)))
    path = given.json or cache_folder() / "results" / f"limits-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    report.write_json(found, path)
    _say(f"written: {path}")
    return 0 if found.summaries else 1


def _measure(given: argparse.Namespace) -> Findings:
    peers = choose(given.peers)
    compared = compare(
        peers,
        (ADMITTED, REFUSED),
        rounds=given.rounds,
        seconds=given.seconds,
        connections=given.connections,
        idle=0,
        say=_say,
    )
    found = Findings(**{one.name: getattr(compared, one.name) for one in dataclasses.fields(compared)})
    ours = [peer for peer in choose(OURS) if peer in peers and peer.name not in found.missing]
    found.crowds = weigh(found, ours, seconds=given.crowd, say=_say)
    return found


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.limits", description=__doc__)
    parser.add_argument("--peers", default=PEERS, help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="after a warm-up (%(default)s)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of load per reading (%(default)s)")
    parser.add_argument("--crowd", type=float, default=60.0, help="seconds of a million users (%(default)s)")
    parser.add_argument("--connections", type=int, default=64, help="(%(default)s)")
    parser.add_argument("--quick", action="store_true", help="one short round: does it work at all?")
    parser.add_argument("--json", type=Path, help="where to write; default below the cache folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
