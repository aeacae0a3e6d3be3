"""The shared store is lost: what it had just admitted counts against the shares too, where it was full."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
import redis
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.exchange import ALGORITHMS, Hit
from gateway.state.counters import OwnCounters
from gateway.state.limits_full import FullKeys
from gateway.state.limits_local import LocalLimits
from gateway.state.limits_share import HostShare
from tests.gateway.limits.reference import hit_of, told
from tests.gateway.limits.test_algorithms import EPOCH, Time, algorithms, pauses, script
from tests.gateway.limits.test_return import LIMIT, SECOND, even, fullest
from tests.waiting import until

if TYPE_CHECKING:
    from tests.gateway.limits.conftest import NewStore
    from tests.gateway.own_redis import OwnRedis

AHEAD = (0, 333_333, -10 * SECOND, 10_654_321)  # of the store's clock, by worker


class Worker:
    """One of four, each a host of its own, on a clock that says something else than the store's."""

    def __init__(self, ahead: int) -> None:
        self.time, self._ahead = Time(), ahead
        self.full = FullKeys(self.time)
        self.share = HostShare(OwnCounters(), 1, self.time)
        self.share.resize(4)

    def admits(self, client: redis.Redis, now: int, hit: Hit, *, lost: bool) -> bool:
        """Judge as SharedLimits does."""
        self.time.now = now + self._ahead
        if lost:
            if len(self.full):
                self.share.full = self.full.clear()
            return told(self.share.judge([hit]))[0].allowed
        if self.full.verdict([hit]):
            return False
        ((allowed, left, reset, wait),) = script(client, now, [[hit]])[0]
        if not allowed:
            self.full.learn(hit, (False, left, LIMIT, reset, wait, False), self.time.now)
        return bool(allowed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("algorithm", ["sliding-window", "token-bucket"])
def test_no_burst_on_loss(limits_url: str, algorithm: str, seed: int) -> None:
    """Under a steady load above the limit no second across the loss has more than it, but for 5 %."""
    rng = random.Random(f"{algorithm}{seed}")
    hit = hit_of("all", "", LIMIT, 1.0, algorithm)
    lost = EPOCH + 3 * SECOND + rng.randrange(SECOND)
    workers = [Worker(ahead) for ahead in AHEAD]
    taken = []
    with redis.Redis.from_url(limits_url) as client:
        client.flushdb()
        for now, who in even(rng, EPOCH, lost + 3 * SECOND, LIMIT * 3 // 2):
            if workers[who].admits(client, now, hit, lost=now >= lost):
                taken.append(now)
    since = [at for at in taken if at >= lost - SECOND]  # what the bucket gave at first is long past
    assert fullest(since) <= LIMIT * 1.05
    assert len([at for at in taken if at >= lost]) >= LIMIT * 3 * 0.9  # and the shares are used


@settings(max_examples=300, deadline=None)
@given(
    algorithm=algorithms,
    capacity=st.integers(1, 9),
    before=st.lists(pauses, max_size=12),
    pause=pauses,
    ago=pauses,
    later=pauses,
)
def test_filling_leaves_what_has_drained_since(
    algorithm: str, capacity: int, before: list[int], pause: int, ago: int, later: int
) -> None:
    """A share that was full until a moment has at most what an even drain gave since; none if it is ahead."""
    time = Time()
    limits, other = LocalLimits(clock=time), LocalLimits(clock=time)
    hit = hit_of("limit", "k", capacity, 1.0, algorithm)
    for gap in before:
        time.now += gap
        for each in (limits, other):
            each.try_take([hit])
    time.now += pause

    def left(of: LocalLimits) -> int:
        probe = hit_of("limit", "k", capacity, 1.0, algorithm, cost=capacity)
        return told(of.judge([probe], refused=True))[0].remaining

    untouched = left(limits)
    limits.fill(hit, (time.now - ago, capacity))
    drained = capacity - capacity * (SECOND - ago) // SECOND if ago < SECOND else capacity
    assert min(untouched, drained) >= left(limits) >= min(untouched, drained) - 1
    time.now += later
    assert left(limits) <= left(other)
    if later >= 2 * SECOND:
        assert left(limits) == capacity


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_was_left_is_left(algorithm: str) -> None:
    """A request of many tokens was refused where there were some: of the share as many are left."""
    time = Time()
    limits, full = LocalLimits(clock=time), FullKeys(time)
    hit = hit_of("limit", "k", 10, 1.0, algorithm, cost=5)
    full.learn(hit, (False, 3, 10, SECOND, SECOND // 2, False), time.now)
    for spent in full.clear().values():
        limits.fill(hit, spent)
    assert told(limits.judge([hit]))[0].remaining in {2, 3}
    assert not len(full)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_what_an_operator_added_is_there(algorithm: str) -> None:
    """Full by the old rate, when the store was lost: what the new one has more can be had."""
    time = Time()
    limits, full = LocalLimits(clock=time), FullKeys(time)
    full.learn(
        hit_of("limit", "k", 30, 3600.0, algorithm), (False, 0, 30, 60 * SECOND, SECOND, False), time.now
    )
    raised = hit_of("limit", "k", 40, 3600.0, algorithm)
    for spent in full.clear().values():
        limits.fill(raised, spent)
    assert sum(told(limits.try_take([raised]))[0].allowed for _ in range(40)) in {9, 10}


async def test_who_was_refused_by_redis_is_refused_without_it(
    own_redis: OwnRedis, new_store: NewStore
) -> None:
    """A share is not one more quota for who has used up all of it; others have theirs."""
    limits = await new_store(own_redis.url)
    await until(lambda: limits.up)
    for algorithm in ALGORITHMS:
        greedy, other = (hit_of("user", who, 10, 36_000.0, algorithm) for who in "go")
        for _ in range(12):
            _ = limits.try_take([greedy]) or await limits.take([greedy])
        await limits.take([other])
    own_redis.stop()
    await until(lambda: not limits.up)
    for algorithm in ALGORITHMS:
        greedy, other = (hit_of("user", who, 10, 36_000.0, algorithm) for who in "go")
        passed = [sum(told(limits.try_take([hit]))[0].allowed for _ in range(12)) for hit in (greedy, other)]
        assert passed == [0, 5]
