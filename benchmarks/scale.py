"""How the cost of a request grows with connections, routes and users."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from benchmarks import machine
from benchmarks.bench import Run, Say, opened
from benchmarks.instance import CheckError, Instance, Steady
from benchmarks.load import CASES, LoadError
from benchmarks.overload.crowd import OPENED
from benchmarks.peers.peer import Peer

AXES: dict[str, tuple[int, ...]] = {
    "connections": (64, 1_000, 5_000),
    "routes": (3, 1_000),
    "users": (10, 10_000, 1_000_000),
}
_USUAL = {"connections": 64, "routes": 3, "users": 100}
_CASE = CASES[0]
_HEAD = 2.0  # seconds before anything is read, and those in which the connections are opened
# Requests a second over all connections, where their number grows: 5,000 that ask as fast as they are
# answered would be 5,000 requests in flight, which a gate with adaptive concurrency is there to refuse.
_RATE = 6_000


@dataclass(frozen=True, slots=True)
class Point:
    """One amount on one axis, all else as usual.

    Attributes:
        peer: whose.
        axis: what grows.
        amount: how many of it.
        cpu: microseconds per request, the median of the rounds.
        cpu_low: of the cheapest round.
        cpu_high: of the dearest round.
        rate: requests per second.
        own: of `cpu`, what the peer spends itself; the rest is the kernel's, on its behalf.
    """

    peer: str
    axis: str
    amount: int
    cpu: float
    cpu_low: float
    cpu_high: float
    rate: float
    own: float


@dataclass(slots=True)
class Growth(Run):
    """What growing found.

    Attributes:
        points: axis by axis.
    """

    points: list[Point] = field(default_factory=list)

    def ratio(self, point: Point) -> float | None:
        """A point's cost over that of its axis's first, which has the least to do."""
        first = self._first(point)
        return point.cpu / first.cpu if first and first.cpu else None

    def own_ratio(self, point: Point) -> float | None:
        """The same of what is the peer's own."""
        first = self._first(point)
        return point.own / first.own if first and first.own else None

    def _first(self, point: Point) -> Point | None:
        return next((one for one in self.points if (one.peer, one.axis) == (point.peer, point.axis)), None)


def grow(
    peers: Sequence[Peer], *, rounds: int, seconds: float, say: Say, axes: Collection[str] = tuple(AXES)
) -> Growth:
    """Measure each peer at every amount of every axis, the amounts in turn within every round.

    Args:
        peers: whom; those whose routes can't be multiplied are left out of that axis.
        rounds: how often.
        seconds: of load in each.
        say: told of progress.
        axes: of AXES.

    Raises:
        MachineError: fewer than two cores.
        StartError: the upstream can't be started.
    """
    results = Growth(machine=machine.describe(), settings={"rounds": rounds, "seconds": seconds})
    amounts = [(axis, amount) for axis, several in AXES.items() if axis in axes for amount in several]
    with opened(results, say) as bench:
        for peer in bench.present(peers):
            usual = bench.start(peer)
            many = "routes" in axes and peer.many_routes
            wide = bench.start(peer, routes=max(AXES["routes"])) if usual and many else None
            if usual is None or peer.name in results.missing:
                continue
            seen: dict[tuple[str, int], list[Steady]] = {}
            for _ in range(rounds):
                for axis, amount in amounts:
                    on = wide if axis == "routes" and amount > usual.site.routes else usual
                    if on is None or (axis == "routes" and wide is None):
                        continue
                    try:
                        seen.setdefault((axis, amount), []).append(_cost(on, axis, amount, seconds))
                    except (CheckError, LoadError, OSError) as error:
                        # One point that fails says something; it doesn't spoil the others.
                        results.missing[f"{peer.name}, {axis} {amount:,}, a round"] = str(error)
                        say(str(error))
            for (axis, amount), found in seen.items():
                if not found:
                    continue
                results.points.append(_point(peer.name, axis, amount, found))
                say(f"{axis} {amount:,}: {results.points[-1].cpu:.1f} µs")
    return results


def _cost(instance: Instance, axis: str, amount: int, seconds: float) -> Steady:
    at = _USUAL | {axis: amount}
    return instance.steady(
        _CASE,
        after=_HEAD + at["connections"] / OPENED,
        seconds=seconds,
        connections=at["connections"],
        users=at["users"],
        rate=_RATE if axis == "connections" else None,
    )


def _point(peer: str, axis: str, amount: int, found: Sequence[Steady]) -> Point:
    cpu = [one.cpu for one in found]
    rate, own = statistics.median(one.rate for one in found), statistics.median(one.own for one in found)
    return Point(peer, axis, amount, statistics.median(cpu), min(cpu), max(cpu), rate, own)
