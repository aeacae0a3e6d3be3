"""Rounds of measurements: peers in turn, medians at the end."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks import machine
from benchmarks.bench import Bench, Run, Say, opened
from benchmarks.instance import CheckError, Instance, Reading
from benchmarks.load import Case, LoadError
from benchmarks.peers.peer import Peer

WARM_UP = 2.0  # seconds


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
        errors: answers of 400 and above that no limit asked for, and broken lines, over all rounds.
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
    errors: int = 0
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
        errors=sum(reading.errors for reading in readings),
        redis_calls=statistics.median(calls) if calls else None,
        redis_cpu=statistics.median(redis_cpu) if redis_cpu else None,
    )


@dataclass(slots=True)
class Results(Run):
    """What a comparison found.

    Attributes:
        summaries: figures by peer and case.
        idle_bytes: memory per idle connection by peer.
        memory_bytes: memory of the whole tree after the load, by peer.
    """

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
    """
    results = Results(
        machine=machine.describe(),
        settings={"rounds": rounds, "seconds": seconds, "connections": connections, "idle": idle},
    )
    with opened(results, say) as bench:
        here = bench.present(peers)
        instances = _start(bench, here, cases)
        readings: dict[tuple[str, str], list[Reading]] = {}
        for number in range(rounds + 1):
            for case in cases:
                for peer in here:
                    instance = instances.get((peer.name, case.refused))
                    if instance is None or peer.name in results.missing:
                        continue
                    length = seconds if number else min(WARM_UP, seconds)
                    try:
                        reading = instance.measure(case, seconds=length, connections=connections)
                    except (CheckError, LoadError) as error:
                        bench.drop(peer, error)
                        continue
                    if number:
                        readings.setdefault((peer.name, case.name), []).append(reading)
                        say(_line(number, case, peer, reading))
        results.summaries = [
            summarise(peer.name, case.name, readings[peer.name, case.name])
            for case in cases
            for peer in here
            if peer.name not in results.missing and (peer.name, case.name) in readings
        ]
        _weigh(results, instances, idle)
    return results


def _start(bench: Bench, peers: Sequence[Peer], cases: Sequence[Case]) -> dict[tuple[str, bool], Instance]:
    """An instance with wide limits and one with tight limits of each peer, as the cases need them."""
    instances = {}
    for peer in peers:
        for tight in sorted({case.refused for case in cases}):
            if (peer.limits or not tight) and (instance := bench.start(peer, tight=tight)):
                instances[peer.name, tight] = instance
    return instances


def _weigh(results: Results, instances: dict[tuple[str, bool], Instance], idle: int) -> None:
    for (name, tight), instance in instances.items():
        if not tight and name not in results.missing:
            results.memory_bytes[name] = instance.process.memory_bytes()
            if idle:
                results.idle_bytes[name] = instance.idle_bytes(idle)


def _line(number: int, case: Case, peer: Peer, reading: Reading) -> str:
    rate = reading.outcome.answered / reading.outcome.seconds
    return f"round {number}  {case.name:<8}  {peer.name:<16}  {reading.cpu:8.1f} µs  {rate:8.0f}/s"
