"""What is kept, as the breaker's fallback: by the client's own words, for as long as the breaker is open."""

from __future__ import annotations

import pytest

from gateway import config
from gateway.exchange import Exchange, Reply, compose
from gateway.policies.breaker import Breaker
from gateway.policies.circuit import Circuit
from tests.gateway.cache.bench import Bench, field, request


@pytest.mark.parametrize("lines", [['etag: "a"'], []], ids=["validator", "none"])
async def test_it_serves_while_the_breaker_is_open(lines: list[str]) -> None:
    """Each client has the whole answer, although we would ask the upstream whether it has changed."""
    bench = Bench()
    bench.answer = bench.says("cache-control: max-age=10", *lines, body=b"kept")
    circuit = Circuit("shop", config.Breaker())

    def fallback(exchange: Exchange) -> Reply:
        found = bench.cache.last(exchange, 3600.0)
        return found if found is not None else Reply(503, [], b"nothing")

    chain = compose(bench.cache, Breaker(circuit, fallback), then=bench._proceed)
    await chain(request())
    bench.clock.advance(20)
    circuit.trip(60.0)
    for _ in range(3):
        reply = await chain(request())
        assert (reply.status, reply.body) == (200, b"kept")
        assert [name for name, _ in reply.headers].count(b"cache-status") == 1
        assert field(reply, "age") == "20"
    assert len(bench.asked) == 1
