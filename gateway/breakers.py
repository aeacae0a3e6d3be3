"""The circuits of one worker: one for each upstream or, where that asks for it, for each route to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gateway import config
from gateway.metrics import BREAKER_STATES, WorkerMetrics
from gateway.policies.circuit import Circuit
from gateway.policies.circuit_state import Change


@dataclass(frozen=True, slots=True)
class _Kept:
    """A circuit, and the settings that it was made from."""

    circuit: Circuit
    breaker: config.Breaker
    timeout: config.Timeout


class Breakers:
    """Makes the circuits, and keeps those whose settings a reload leaves as they were.

    Args:
        on_change: told of every transition of every circuit.
        workers: of this host, each with circuits of its own.
    """

    def __init__(self, on_change: Callable[[Change], None], *, workers: int = 1) -> None:
        self._on_change = on_change
        self._others = workers - 1
        self._kept: dict[tuple[str, str], _Kept] = {}  # by upstream and route; "" is every route

    def adopt(self, new: config.Config) -> None:
        """Have the circuits that a configuration asks for."""
        wanted = {
            (route.upstream, _route(new.upstreams[route.upstream], route))
            for route in new.routes
            if new.upstreams[route.upstream].breaker is not None
        }
        for gone in self._kept.keys() - wanted:
            del self._kept[gone]
        for name, route in wanted:
            settings = new.upstreams[name]
            kept = self._kept.get((name, route))
            if settings.breaker is not None and (
                kept is None or (kept.breaker, kept.timeout) != (settings.breaker, settings.timeout)
            ):
                # A probe that hangs gives its permit back after the time in which it must have failed.
                lease = settings.timeout.total + 1.0
                circuit = Circuit(name, settings.breaker, route=route, lease=lease, others=self._others)
                circuit.on_change(self._on_change)
                self._kept[name, route] = _Kept(circuit, settings.breaker, settings.timeout)

    def of(self, route: config.Route) -> Circuit | None:
        """The circuit that a route's requests pass, if any."""
        kept = self._kept.get((route.upstream, "")) or self._kept.get((route.upstream, route.match))
        return kept.circuit if kept is not None else None

    @property
    def sick(self) -> bool:
        """Whether some circuit has lately found its upstream unwell; see `Circuit.sick`."""
        return any(kept.circuit.sick for kept in self._kept.values())

    def force(self, forced: Mapping[str, str]) -> None:
        """Hold all circuits of these upstreams "open" or "closed", and let the others decide."""
        for (name, _), kept in self._kept.items():
            word = forced.get(name)
            kept.circuit.force("open" if word == "open" else "closed" if word == "closed" else "auto")

    def trip(self, upstream: str, route: str, seconds: float, *, doubt: bool) -> None:
        """Another worker has opened the circuit of its name; see `Circuit.trip`."""
        kept = self._kept.get((upstream, route))
        if kept is not None:  # else its configuration is not ours
            kept.circuit.trip(seconds, doubt=doubt)

    def follow(self, upstream: str, route: str) -> None:
        """Another worker has begun to probe; see `Circuit.follow`."""
        kept = self._kept.get((upstream, route))
        if kept is not None:
            kept.circuit.follow()

    def recover(self, upstream: str, route: str) -> None:
        """Another worker's probes have closed the circuit of its name; see `Circuit.recover`."""
        kept = self._kept.get((upstream, route))
        if kept is not None:
            kept.circuit.recover()

    def gauges(self, metrics: WorkerMetrics) -> None:
        """Tell each route's state, and for each upstream the sickest of its circuits."""
        sickest: dict[str, str] = {}
        for (name, route), kept in self._kept.items():
            state: str = kept.circuit.state
            sickest[name] = max(sickest.get(name, state), state, key=BREAKER_STATES.index)
            if route:
                metrics.route_breaker(name, route, state)
        for name, state in sickest.items():
            metrics.breaker(name, state)


def _route(upstream: config.Upstream, route: config.Route) -> str:
    return route.match if upstream.breaker is not None and upstream.breaker.per == "route" else ""
