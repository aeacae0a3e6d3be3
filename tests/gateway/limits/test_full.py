"""Keys known to be over their limit: no round trip for them, and nobody refused whom Redis would admit."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.exchange import ALGORITHMS
from gateway.state.limits_full import LONGEST, FullKeys
from gateway.state.limits_local import LocalLimits
from tests.clock import Clock
from tests.gateway.limits.reference import hit_of, told

if TYPE_CHECKING:
    from tests.gateway.limits.conftest import NewStore

steps = st.tuples(
    st.integers(0, 900_000),  # microseconds before the request
    st.integers(0, 50_000),  # microseconds from asking to the judgement
    st.integers(1, 3),  # cost
    st.integers(3, 5),  # capacity
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(ALGORITHMS), st.lists(steps, min_size=1, max_size=60))
def test_who_is_refused_here_redis_would_refuse(algorithm: str, schedule: list[Any]) -> None:
    """Random costs, capacities, pauses and delays: a refusal from memory is always one of the store's too."""
    clock = Clock(1_760_000_000.0)
    store, full = LocalLimits(clock=clock), FullKeys(clock)
    for pause, delay, cost, capacity in schedule:
        clock.now += pause / 1e6
        hit = hit_of("user", "u", capacity, 1.0, algorithm, cost=cost)
        known = full.verdict([hit])
        if known is not None:
            (charge,) = told(store.judge([hit]))  # a refused request changes nothing
            assert not charge.allowed
            assert told(known)[0].retry_after <= charge.retry_after + 1
            continue
        asked = round(clock.now * 1e6)
        clock.now += delay / 1e6
        (charge,) = told(store.judge([hit]))
        if not charge.allowed:
            full.learn(hit, charge, asked)


async def test_an_attacker_costs_no_round_trip(new_store: NewStore, limits_url: str) -> None:
    """Over the limit, a thousand more requests ask Redis nothing; others, and other limits, go on."""
    limits = await new_store(clock=Clock())  # which stands still: what is known stays known
    everyone, attacker = hit_of("global", "", 100, 3600.0), hit_of("user", "a", 1, 3600.0)
    await limits.take([everyone, attacker])
    await limits.take([everyone, attacker])
    with redis.Redis.from_url(limits_url) as client:
        before = client.info("commandstats")["cmdstat_evalsha"]["calls"]
        for _ in range(1000):
            verdict = limits.try_take([everyone, attacker])
            assert verdict is not None
            assert verdict[0] is None  # not asked, so nothing is told of it
            (charge,) = told(verdict)
            assert not charge.allowed
            assert 0 < charge.retry_after <= charge.reset <= 2 * 3600e6
        assert client.info("commandstats")["cmdstat_evalsha"]["calls"] <= before + 1  # the heartbeat
    other = [everyone, hit_of("user", "b", 1, 3600.0)]
    assert limits.try_take(other) is None
    everyones, others = told(await limits.take(other))
    assert others.allowed
    assert everyones.remaining == 98  # the refused were not charged


async def test_memory_ends_when_the_store_is_lost(new_store: NewStore, limits_url: str) -> None:
    """A Redis whose counters were wiped is asked again soon, however long the window is."""
    clock = Clock(0.0)
    limits = await new_store(clock=clock)
    hit = hit_of("user", "u", 1, 86400.0)
    await asyncio.gather(*(limits.take([hit]) for _ in range(2)))
    with redis.Redis.from_url(limits_url) as client:
        client.flushdb()
    assert limits.try_take([hit]) is not None
    clock.now += LONGEST / 1e6
    assert limits.try_take([hit]) is None
    (charge,) = told(await limits.take([hit]))
    assert charge.allowed


def test_an_operator_who_raises_a_limit_is_heard() -> None:
    """A larger capacity or a smaller cost is another question; a shadow limit refuses nobody."""
    full = FullKeys(lambda: 0.0)
    full.learn(hit_of("user", "u", 5, 60.0, cost=2), (False, 1, 5, 60_000_000, 30_000_000, False), 0)
    assert full.verdict([hit_of("user", "u", 5, 60.0, cost=2)]) is not None
    assert full.verdict([hit_of("user", "u", 4, 60.0, cost=3)]) is not None
    assert full.verdict([hit_of("user", "u", 6, 60.0, cost=2)]) is None
    assert full.verdict([hit_of("user", "u", 5, 60.0, cost=1)]) is None
    assert full.verdict([hit_of("user", "u", 5, 60.0, cost=2, shadow=True)]) is None


def test_memory_is_bounded() -> None:
    """A million attackers take no more than so many places; the newest stay."""
    full = FullKeys(lambda: 0.0, max_keys=100)
    for n in range(10_000):
        full.learn(hit_of("user", f"u:{n}", 1, 60.0), (False, 0, 1, 60_000_000, 60_000_000, False), 0)
    assert len(full) == 100
    assert full.verdict([hit_of("user", "u:9999", 1, 60.0)]) is not None
