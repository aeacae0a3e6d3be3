"""RateLimit and RateLimit-Policy as a client's parser of structured fields reads them (RFC 9651)."""

from __future__ import annotations

import asyncio
from typing import Any

import http_sf
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.exchange import ALGORITHMS, Exchange, Reply
from gateway.state.limits import LocalLimits
from tests.clock import Clock
from tests.gateway.limits.test_policy import limit, policy, request, upstream, waits

limits_ = st.dictionaries(
    st.from_regex(r"[a-z][a-z0-9_-]{0,20}", fullmatch=True),
    st.tuples(st.integers(1, 8), st.integers(1, 90), st.sampled_from(ALGORITHMS)),
    min_size=1,
    max_size=4,
)
pauses = st.lists(st.floats(0, 100), max_size=8)


def fields(exchange: Exchange) -> dict[str, dict[str, dict[str, Any]]]:
    """Both fields, each by the limits' names."""
    return {
        name.decode(): {item: dict(params) for item, params in http_sf.parse(value, tltype="list")}
        for name, value in exchange.reply_headers
    }


@settings(deadline=None)
@given(limits=limits_, pauses=pauses)
def test_what_the_fields_say_is_true(limits: dict[str, tuple[int, int, str]], pauses: list[float]) -> None:
    """Whatever the limits: both fields parse, and exactly as many more pass at once as the least `r` says."""
    clock = Clock(1000.25)
    limiter = policy(
        {name: limit(f"{q}/{w} seconds", algorithm=kind) for name, (q, w, kind) in limits.items()},
        store=LocalLimits(clock=clock),
    )

    def ask() -> tuple[bool, dict[str, dict[str, dict[str, Any]]]]:
        exchange = request()
        reply = asyncio.run(_answer(limiter, exchange))
        assert reply.status == 200 or waits(reply) >= 1
        return reply.status == 200, fields(exchange)

    for pause in [0.0, *pauses]:
        clock.now += pause
        admitted, told = ask()
        assert told["ratelimit-policy"] == {name: {"q": q, "w": w} for name, (q, w, _) in limits.items()}
        assert told["ratelimit"].keys() <= limits.keys()
        for name, params in told["ratelimit"].items():
            assert 0 <= params["r"] <= limits[name][0]
            assert 0 <= params["t"] <= 2 * limits[name][1]
        if admitted:
            assert told["ratelimit"].keys() == limits.keys()
            left = min(params["r"] for params in told["ratelimit"].values())
            assert [ask()[0] for _ in range(left + 1)] == [True] * left + [False]


async def _answer(limiter: Any, exchange: Exchange) -> Reply:
    reply: Reply = await limiter(exchange, upstream)
    return reply
