"""A request for which the upstream is asked twice: each time enters, leaves and counts by itself."""

from __future__ import annotations

from typing import Any

import pytest

from gateway import config
from gateway.exchange import Exchange, Reply, compose
from gateway.policies.breaker import Breaker
from gateway.policies.circuit import Circuit
from gateway.policies.load_shed import LoadShed
from gateway.policies.slots import Slots
from tests.gateway.cache.bench import Bench, request


class Confused:
    """A route with one slot, whose upstream answers 304 about another tag than it was asked about.

    Attributes:
        held: slots taken at each call of the upstream.
        learned: times that the limit learned from.
        tripped: another worker finds the upstream sick as it says 304.
    """

    def __init__(self) -> None:
        self.bench = Bench()
        self.slots = Slots(config.Concurrency.model_validate({"min": 1, "max": 1, "queue": {"size": 0}}))
        self.lanes = self.slots.lanes
        self.limiter = self
        self.generation = 1
        self.circuit = Circuit("shop", config.Breaker(min_requests=4))
        self.held: list[int] = []
        self.learned: list[float] = []
        self.tripped = False
        self._chain = compose(
            self.bench.cache,
            LoadShed(self, "normal"),
            Breaker(self.circuit, lambda _: Reply(200, [], b"instead")),
            then=self._upstream,
        )

    async def _upstream(self, exchange: Exchange) -> Reply:
        self.held.append(self.in_flight)
        exchange.upstream_seconds = 0.001 * len(self.held)
        conditional = any(name == b"if-none-match" for name, _ in exchange.headers)
        if conditional and self.tripped:
            self.circuit.trip(5.0)
        tag = 'etag: "b"' if conditional else 'etag: "a"'
        status, body = (304, b"") if conditional else (200, b"%d" % len(self.held))
        return await self.bench.says("cache-control: max-age=10", tag, status=status, body=body)(exchange)

    async def stale(self) -> Reply:
        """What the cache keeps is old, and asked for."""
        self.bench.clock.advance(12)
        return await self.get()

    async def get(self) -> Reply:
        """The answer; all that was held for it has been given back."""
        asked = request()
        try:
            return await self._chain(asked)
        finally:
            asked.finish()
            assert self.in_flight == 0

    # ---- the gate, with an ear -----------------------------------------------------------------

    @property
    def in_flight(self) -> int:
        return self.slots.in_flight

    def answered(self, generation: int, route: str, seconds: float, in_flight: int) -> None:
        assert (generation, route, in_flight) == (1, "/x", 1)
        self.learned.append(seconds)

    def failed(self, *_: Any) -> None:
        pytest.fail("the upstream has always answered")


async def test_the_second_call_takes_the_slot_of_the_first() -> None:
    """Of one slot both are served: the first call's is given back before the second waits for one."""
    route = Confused()
    await route.get()

    assert (await route.stale()).body == b"3"

    assert route.held == [1, 1, 1]
    assert route.learned == [0.001, 0.002, 0.003]


async def test_a_second_call_that_is_not_made_teaches_nothing() -> None:
    """The breaker refuses it, and what is kept stands in: the first call's time is not learned from again."""
    route = Confused()
    await route.get()
    route.tripped = True

    assert (await route.stale()).body == b"1"

    assert route.learned == [0.001, 0.002]


async def test_the_breaker_counts_each_call_once() -> None:
    """Three answers for two requests; as many failures are the half at which it opens."""
    route = Confused()
    await route.get()
    await route.stale()
    states = []
    for number in range(3):
        route.circuit.record(route.circuit.enter(), failed=True)
        states.append((number, route.circuit.state))

    assert states == [(0, "closed"), (1, "closed"), (2, "open")]
