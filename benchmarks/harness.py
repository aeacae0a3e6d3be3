"""Rounds of measurements: peers in turn, medians at the end."""

from __future__ import annotations

import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.instance import CheckError, Instance, Reading
from benchmarks.load import Case, LoadError
from benchmarks.peers.peer import Peer
from benchmarks.processes import StartError
from benchmarks.upstream import Upstream

_WARM_UP = 2.0  # seconds
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Summary:
    """The medians over rounds of one peer in one case.

    Attributes:
        peer: its name.
        case: its name.
        cpu: microseconds per request.
        cpu_low: of the cheapest round.
        cpu_high: of the dearest round.
        rate: requests per second.
        p50: milliseconds.
        p99: milliseconds.
        rounds: how many went in.
        redis_calls: round trips per request.
        redis_cpu: Redis's own microseconds per request.
    """

    peer: str
    case: str
    cpu: float
    cpu_low: float
    cpu_high: float
    rate: float
    p50: float
    p99: float
    rounds: int
    redis_calls: float | None = None
    redis_cpu: float | None = None


def summarise(peer: str, case: str, readings: Sequence[Reading]) -> Summary:
    """The medians of one or more rounds.

    Raises:
        ValueError: there is no round.
    """
    if not readings:
        raise ValueError(f"{peer}, {case}: no round to summarise")
    cpu = [reading.cpu for reading in readings]
    calls = [reading.redis_calls for reading in readings if reading.redis_calls is not None]
    redis_cpu = [reading.redis_cpu for reading in readings if reading.redis_cpu is not None]
    return Summary(
        peer=peer,
        case=case,
        cpu=statistics.median(cpu),
        cpu_low=min(cpu),
        cpu_high=max(cpu),
        rate=statistics.median(reading.outcome.answered / reading.outcome.seconds for reading in readings),
        p50=statistics.median(reading.outcome.p50 for reading in readings),
        p99=statistics.median(reading.outcome.p99 for reading in readings),
        rounds=len(readings),
        redis_calls=statistics.median(calls) if calls else None,
        redis_cpu=statistics.median(redis_cpu) if redis_cpu else None,
    )


@dataclass(slots=True)
class Results:
    """All that a measurement found.

    Attributes:
        machine: where it ran.
        versions: of the peers measured.
        lacks: the part of the common work a peer can't do.
        missing: peers not measured, and why.
        summaries: figures by peer and case.
        idle_bytes: memory per idle connection by peer.
        memory_bytes: memory of the whole tree after the load, by peer.
        settings: how it was measured.
    """

    machine: dict[str, Any]
    settings: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)
    lacks: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    summaries: list[Summary] = field(default_factory=list)
    idle_bytes: dict[str, float] = field(default_factory=dict)
    memory_bytes: dict[str, int] = field(default_factory=dict)

    def find(self, peer: str, case: str) -> Summary | None:
        """One peer's figures in one case, when it was measured."""
        return next((one for one in self.summaries if (one.peer, one.case) == (peer, case)), None)

    def ratio(self, peer: str, case: str, against: str) -> float | None:
        """A peer's processor time over another's, in the same case."""
        one, other = self.find(peer, case), self.find(against, case)
        return one.cpu / other.cpu if one and other and other.cpu else None

    def as_json(self) -> dict[str, Any]:
        """For files."""
        return asdict(self)


def compare(
    peers: Sequence[Peer],
    cases: Sequence[Case],
    *,
    rounds: int,
    seconds: float,
    connections: int,
    idle: int,
    say: Say,
) -> Results:
    """Measure peers side by side, in turn within every round.

    A peer that is missing, doesn't start or doesn't do the work is named in the results' `missing`.

    Args:
        peers: whom.
        cases: what.
        rounds: how often; one more goes first, as warm-up, and isn't counted.
        seconds: of load in each.
        connections: held open by the load.
        idle: connections to weigh at rest; 0 leaves that out.
        say: told of progress.

    Raises:
        MachineError: fewer than two cores.
        StartError: the upstream can't be started.
        LoadError: wrk is missing.
    """
    machine.require_two_cores()
    results = Results(
        machine=machine.describe() | {"load_before": machine.load_average()},
        settings={"rounds": rounds, "seconds": seconds, "connections": connections, "idle": idle},
    )
    folder = Path(tempfile.mkdtemp(prefix="tidegate-bench-"))
    folder.chmod(0o755)
    try:
        with ExitStack() as running:
            upstream = running.enter_context(Upstream(folder / "upstream"))
            for peer in peers:
                if problem := peer.missing():
                    results.missing[peer.name] = problem
                    say(f"missing: {problem}")
            here = [peer for peer in peers if peer.name not in results.missing]
            _rounds(_Bench(running, folder, upstream, results, say), here, cases)
            results.machine["load_after"] = machine.load_average()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return results


@dataclass(frozen=True, slots=True)
class _Bench:
    running: ExitStack
    folder: Path
    upstream: Upstream
    results: Results
    say: Say

    def start(self, peer: Peer, *, tight: bool) -> Instance | None:
        """A checked instance; None, and the peer named as missing, when it fails."""
        name = f"{peer.name}{'-tight' if tight else ''}"
        try:
            instance = Instance(peer, self.folder / name, self.upstream, tight=tight)
            self.running.enter_context(instance)
            instance.check()
        except (StartError, CheckError, OSError) as error:
            self.drop(peer, error)
            return None
        self.results.versions[peer.name] = peer.version()
        self.results.lacks[peer.name] = peer.lacks
        return instance

    def drop(self, peer: Peer, why: Exception) -> None:
        """Take a peer out, saying why."""
        self.results.missing[peer.name] = f"{type(why).__name__}: {why}"
        self.say(f"dropped {peer.name}: {why}")


def _rounds(bench: _Bench, peers: Sequence[Peer], cases: Sequence[Case]) -> None:
    settings = bench.results.settings
    instances: dict[tuple[str, bool], Instance] = {}
    for peer in peers:
        for tight in sorted({case.refused for case in cases}):
            if tight and not peer.limits:
                continue
            if instance := bench.start(peer, tight=tight):
                instances[peer.name, tight] = instance
    readings: dict[tuple[str, str], list[Reading]] = {}
    for number in range(settings["rounds"] + 1):
        for case in cases:
            for peer in peers:
                instance = instances.get((peer.name, case.refused))
                if instance is None or peer.name in bench.results.missing:
                    continue
                try:
                    reading = instance.measure(
                        case,
                        seconds=settings["seconds"] if number else min(_WARM_UP, settings["seconds"]),
                        connections=settings["connections"],
                    )
                except (CheckError, LoadError) as error:
                    bench.drop(peer, error)
                    continue
                if number:
                    readings.setdefault((peer.name, case.name), []).append(reading)
                    bench.say(
                        f"round {number}  {case.name:<8}  {peer.name:<16}  {reading.cpu:8.1f} µs  "
                        f"{reading.outcome.answered / reading.outcome.seconds:8.0f}/s"
                    )
    bench.results.summaries = [
        summarise(peer.name, case.name, found)
        for case in cases
        for peer in peers
        if peer.name not in bench.results.missing and (found := readings.get((peer.name, case.name)))
    ]
    for (name, tight), instance in instances.items():
        if tight or name in bench.results.missing:
            continue
        bench.results.memory_bytes[name] = instance.process.memory_bytes()
        if settings["idle"]:
            bench.results.idle_bytes[name] = instance.idle_bytes(settings["idle"])
