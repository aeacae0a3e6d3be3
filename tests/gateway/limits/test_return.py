"""The shared store comes back: what was admitted without it counts as if the store had admitted it."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.exchange import ALGORITHMS, Hit
from gateway.state.counters import OwnCounters
from gateway.state.limits_owed import SLICES, Owed
from gateway.state.limits_share import HostShare
from tests.gateway.limits.reference import Reference, hit_of, judge
from tests.gateway.limits.test_algorithms import EPOCH, Time, algorithms, pauses, script
from tests.gateway.limits.test_over_hosts import over

SECOND = 1_000_000  # microseconds
LIMIT = 300  # a second, of all together
AHEAD = (0, 333_333, -10 * SECOND, 10_654_321)  # of the store's clock, by worker

ages = st.one_of(st.integers(0, 3 * SECOND), st.sampled_from([0, SECOND, 2 * SECOND]))
debts_ = st.lists(st.tuples(ages, st.integers(1, 4)), max_size=4)


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    capacity=st.integers(1, 6),
    window=st.integers(1, 3),
    algorithm=algorithms,
    schedule=st.lists(st.tuples(pauses, debts_, st.integers(0, 4)), min_size=1, max_size=10),
)
def test_debts_count_where_they_were_taken(
    limits_url: str,
    capacity: int,
    window: int,
    algorithm: str,
    schedule: list[tuple[int, list[tuple[int, int]], int]],
) -> None:
    """Whatever is owed from when: the script judges as exact arithmetic does that knows all of it."""
    hit = hit_of("limit", "k", capacity, float(window), algorithm)
    reference, now = Reference(hit), EPOCH
    with redis.Redis.from_url(limits_url) as client:
        client.flushdb()
        for pause, owed, requests in schedule:
            now += pause
            told = [part for debt in owed for part in debt]
            answers = script(client, now, [[hit]] * requests, [(*hit, told)] if owed else [])
            for age, tokens in owed:
                reference.owe(now, age, tokens)
            for ((allowed, left, _, wait),) in answers:
                assert [(bool(allowed), left)] == judge(now, [reference])
                assert (wait == 0) == bool(allowed)


@pytest.mark.parametrize("algorithm", ["sliding-window", "fixed-window"])
def test_what_is_told_of_windows(algorithm: str) -> None:
    """Each token once, no older than it is and a slice younger at most; none of the third window back."""
    owed, (terms, key) = Owed(), hit_of("limit", "k", 1000, 1.0, algorithm)
    rng = random.Random(7)
    taken = sorted(rng.randrange(5 * SECOND) for _ in range(500))
    for at in taken:
        owed.add(terms, key, EPOCH + at, 4)
    now = 5 * SECOND + 1234
    ((_, _, told),) = list(owed.pop(EPOCH + now, 10))
    assert not owed
    ages = [age for age, tokens in zip(told[::2], told[1::2], strict=True) for _ in range(int(tokens))]
    truth = [now - at for at in reversed(taken)]
    assert all(age <= true <= age + SECOND // SLICES for age, true in zip(ages, truth, strict=False))
    assert truth[len(ages)] > 2 * SECOND


def test_what_is_told_of_a_bucket() -> None:
    """As much as has not drained at this worker's part of the rate: four share it."""
    owed, (terms, key) = Owed(), hit_of("limit", "k", 100, 1.0, "token-bucket")
    for _ in range(20):
        owed.add(terms, key, EPOCH, 4)
    assert [told for _, _, told in owed.pop(EPOCH + SECOND // 5, 10)] == [[0, 15.0]]
    owed.add(terms, key, EPOCH, 4)
    assert not list(owed.pop(EPOCH + SECOND, 10))


@dataclass
class Worker:
    """One worker of a host, on a clock that says something else than the store's."""

    ahead: int
    settles: int
    time: Time = field(default_factory=Time)
    share: HostShare = field(init=False)

    def __post_init__(self) -> None:
        self.share = HostShare(OwnCounters(), 1, self.time)
        self.share.resize(4)

    def settle(self, client: redis.Redis, now: int) -> None:
        """As SharedLimits does when it has found the store again, and so have the others."""
        self.time.now = now + self.ahead
        if now >= self.settles:
            script(client, now, [], list(self.share.owed.pop(self.time.now, 10_000)))

    def admits(self, client: redis.Redis, now: int, hit: Hit, settled: int) -> bool:
        """Judge as SharedLimits does; all have settled at `settled`."""
        self.time.now = now + self.ahead
        if now < self.settles:
            verdict = self.share.judge([hit])
            return all(charge is not None and charge[0] for charge in verdict)
        if now < settled and self.share.refusal([hit]):
            return False
        return bool(script(client, now, [[hit]])[0][0][0])


def outage(url: str, hit: Hit, asks: Sequence[tuple[int, int]], settles: Sequence[int]) -> list[int]:
    """When tokens were taken, by requests (when, of which worker) from the loss of the store on."""
    workers = [Worker(ahead, at) for ahead, at in zip(AHEAD, settles, strict=True)]
    taken = []
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        for now, who in asks:
            for worker in workers:
                if worker.share.owed:
                    worker.settle(client, now)
            if workers[who].admits(client, now, hit, max(settles)):
                taken.append(now)
    return taken


def even(rng: random.Random, begin: int, end: int, rate: int) -> list[tuple[int, int]]:
    """Requests at a steady pace, by each worker in turn."""
    pause = SECOND // rate
    return [(now + rng.randrange(pause), n % 4) for n, now in enumerate(range(begin, end, pause))]


def fullest(taken: Sequence[int]) -> int:
    """The most within a second."""
    return max(sum(begin <= at < begin + SECOND for at in taken) for begin in taken)


@pytest.mark.parametrize("lost", [True, False], ids=["return", "no outage"])
@pytest.mark.parametrize("pause", [0, 75_000, 150_000])
def test_a_pause_of_the_load_is_made_up_for_after_it(limits_url: str, pause: int, *, lost: bool) -> None:
    """A sliding window admits at once what nobody asked for meanwhile, on a return as ever, and no more."""
    rng = random.Random(pause)
    hit = hit_of("all", "", LIMIT, 1.0, "sliding-window")
    back = EPOCH + 4 * SECOND + 400_000
    settles = [back + rng.randrange(25_000) for _ in range(4)] if lost else [EPOCH] * 4
    asks = sorted(
        (back + pause if back < now < back + pause else now, who)
        for now, who in even(rng, EPOCH, back + 3 * SECOND, LIMIT * 3 // 2)
    )
    taken = outage(limits_url, hit, asks, settles)
    excess = fullest([at for at in taken if at >= back - SECOND]) - LIMIT
    late = LIMIT * pause / SECOND
    told_later = LIMIT / SLICES if lost else 0
    assert late - told_later - 2 <= excess <= late + 3


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_burst_on_return(limits_url: str, algorithm: str, seed: int) -> None:
    """Under a steady load above the limit no second of the return has more than the limit, but for 5 %.

    Of fixed windows: no window.
    """
    rng = random.Random(f"{algorithm}{seed}")
    hit = hit_of("all", "", LIMIT, 1.0, algorithm)
    back = EPOCH + 4 * SECOND + rng.randrange(SECOND)
    settles = [back + rng.randrange(25_000) for _ in range(4)]
    asks = even(rng, EPOCH, back + 4 * SECOND, LIMIT * 3 // 2)
    taken = outage(limits_url, hit, asks, settles)
    since = [at for at in taken if at >= back - SECOND]  # what bucket and shares gave at first is long past
    if algorithm == "fixed-window":
        windows = [at // SECOND for at in since if at // SECOND > back // SECOND]
        assert max(windows.count(window) for window in windows) <= LIMIT
    else:
        assert fullest(since) <= LIMIT * 1.05
    assert len([at for at in taken if at >= back]) >= LIMIT * 3.5  # and it is used


@settings(
    max_examples=30,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(rng=st.randoms(use_true_random=False), algorithm=st.sampled_from(["sliding-window", "token-bucket"]))
def test_no_interval_across_the_return_is_beyond_its_bound(
    limits_url: str, rng: random.Random, algorithm: str
) -> None:
    """Crowds at random, of any worker: see the proof in gateway/state/limits_owed.py."""
    hit = hit_of("all", "", 20, 1.0, algorithm)
    back = EPOCH + rng.randrange(4 * SECOND)
    settles = [back + rng.randrange(60_000) for _ in range(4)]
    asks = []
    for _ in range(rng.randrange(1, 20)):
        crowd, who = rng.randrange(-3 * SECOND, 3 * SECOND), rng.randrange(4)
        width = rng.choice([1, 1000, 300_000])
        asks += [(back + crowd + rng.randrange(width), who) for _ in range(rng.randrange(1, 30))]
    taken = outage(limits_url, hit, sorted(ask for ask in asks if ask[0] >= EPOCH), settles)
    late = max(settles) - min(settles) if algorithm == "token-bucket" else 0
    assert over([(at, 1) for at in taken], hit[0]) <= 20 * late / SECOND
