"""The script and the local store against an exact reference, under random schedules."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.exchange import ALGORITHMS, Hit
from gateway.state.limits_batch import TAKE, Batch, Debt
from gateway.state.limits_local import LocalLimits
from tests.gateway.limits.reference import Reference, Told, hit_of, judge, told

EPOCH = 1_760_000_000_000_000  # microseconds; the size of today's clock matters to doubles
ON_TEST_TIME = TAKE.replace("redis.call('TIME')", "cjson.decode(ARGV[3])").replace(
    "max(1, ceil(lifetime[2] / 1000))", "3600000"
)

algorithms = st.sampled_from(ALGORITHMS)
limits_ = st.fixed_dictionaries(
    {
        "capacity": st.integers(1, 6),
        "window": st.integers(1, 5).map(float),
        "algorithm": algorithms,
        "shadow": st.booleans(),
        "cost": st.integers(1, 6),
    }
).map(lambda drawn: drawn | {"cost": min(drawn["cost"], drawn["capacity"])})
hits = limits_.map(lambda drawn: hit_of("limit", "k", **drawn))
three = st.tuples(limits_, limits_, limits_).map(
    lambda drawn: [hit_of(f"limit{i}", "k", **terms) for i, terms in enumerate(drawn)]
)
request_ = st.lists(st.integers(0, 2), min_size=1, max_size=3, unique=True)
pauses = st.one_of(
    st.just(0), st.integers(1, 400_000), st.sampled_from([500_000, 1_000_000, 2_500_000, 12_000_000])
)
schedules = st.lists(st.tuples(pauses, st.lists(request_, min_size=1, max_size=4)), min_size=1, max_size=12)


class Time:
    """A clock that stands still until it is moved; whole microseconds."""

    def __init__(self, now: int = EPOCH) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now / 1e6


def script(
    client: redis.Redis, now: int, requests: list[list[Hit]], debts: Sequence[Debt] = ()
) -> list[list[list[int]]]:
    """Call take.lua at a moment of the test's choosing; [allowed, remaining, reset, wait] for each hit."""
    waiting: Any = [(request, None) for request in requests]  # nobody waits
    batch = Batch(7, "test", waiting, debts)
    clock = json.dumps([now // 1_000_000, now % 1_000_000])
    reply: Any = client.eval(ON_TEST_TIME, len(batch.keys), *batch.keys, batch.number, batch.call(), clock)
    assert reply[:2] == [b"7", now]
    values = iter(reply[2:])
    return [[[next(values) for _ in range(4)] for _ in request] for request in requests]


def test_the_test_moves_the_scripts_clock() -> None:
    """The replacements above still find their place in the script."""
    assert "TIME" not in ON_TEST_TIME
    assert "3600000" in ON_TEST_TIME


@settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(limits=three, schedule=schedules)
def test_script_local_store_and_reference_agree(
    limits_url: str, limits: list[Hit], schedule: list[tuple[int, list[list[int]]]]
) -> None:
    """Batch after batch, script, local store and exact arithmetic give the same verdicts and times."""
    time = Time()
    local = LocalLimits(clock=time)
    references = [Reference(hit) for hit in limits]
    with redis.Redis.from_url(limits_url) as client:
        client.flushdb()
        for pause, batch in schedule:
            time.now += pause
            answers = script(client, time.now, [[limits[i] for i in request] for request in batch])
            for request, answer in zip(batch, answers, strict=True):
                expected = judge(time.now, [references[i] for i in request])
                charges = told(local.judge([limits[i] for i in request]))
                assert [(bool(a[0]), a[1]) for a in answer] == expected
                assert [(c.allowed, c.remaining) for c in charges] == expected
                assert [[c.reset, c.retry_after] for c in charges] == [a[2:] for a in answer]


@settings(max_examples=200, deadline=None)
@given(hit=hits, waits=st.lists(st.integers(0, 1_500_000), min_size=1, max_size=30))
def test_retry_after_is_true_and_the_earliest(hit: Hit, waits: list[int]) -> None:
    """After the time told the next one passes, a microsecond sooner it does not."""
    time = Time()
    local = LocalLimits(clock=time)

    def one() -> Told:
        (charge,) = told(local.judge([hit]))
        return charge

    charge = one()
    for wait in waits:
        time.now += wait
        charge = one()
        assert charge.remaining >= 0
        assert 0 <= charge.reset <= hit[0].microseconds * 2
        if not charge.allowed:
            assert 0 < charge.retry_after <= hit[0].microseconds
            time.now += charge.retry_after - 1
            assert not one().allowed
            time.now += 1
            assert one().allowed


@settings(max_examples=200, deadline=None)
@given(hit=hits, waits=st.lists(st.integers(0, 1_500_000), min_size=1, max_size=30))
def test_after_reset_the_quota_is_whole(hit: Hit, waits: list[int]) -> None:
    """When `reset` has passed, all of the capacity is there again, so a key may expire then."""
    time = Time()
    local = LocalLimits(clock=time)
    for wait in waits:
        time.now += wait
        (charge,) = told(local.judge([hit]))
    time.now += charge.reset
    requests = hit[0].capacity // hit[0].cost
    assert [local.judge([hit])[0][0] for _ in range(requests)] == [True] * requests


@settings(max_examples=100, deadline=None)
@given(
    capacity=st.integers(1, 10**9),
    window=st.integers(1, 31 * 86400).map(float),
    algorithm=algorithms,
    pause=st.integers(0, 10**12),
)
def test_extreme_rates_stay_sane(capacity: int, window: float, algorithm: str, pause: int) -> None:
    """The largest and the slowest rates that the config takes give finite, sensible figures."""
    time = Time()
    local = LocalLimits(clock=time)
    hit = hit_of("limit", "k", capacity, window, algorithm)
    local.judge([hit])
    time.now += pause
    (charge,) = told(local.judge([hit]))
    assert 0 <= charge.remaining <= capacity
    assert 0 <= charge.reset <= window * 2e6
    assert 0 <= charge.retry_after <= window * 1e6


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_the_largest_rate_survives_the_script(limits_url: str, algorithm: str) -> None:
    """Figures beyond 2^53 come back from Redis as they went, to the token in a thousand million."""
    hit = hit_of("limit", "k", 10**9, 31 * 86400.0, algorithm)
    with redis.Redis.from_url(limits_url) as client:
        for n in range(1, 4):
            ((answer,),) = script(client, EPOCH, [[hit]])
            assert answer[0] == 1
            assert 10**9 - n - 1 <= answer[1] <= 10**9 - n


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_clock_that_steps_back_gives_nothing_away(limits_url: str, algorithm: str) -> None:
    """When Redis's own clock is set back, a full limit stays full; and a window later it is over."""
    hit = hit_of("limit", "k", 2, 1.0, algorithm)
    with redis.Redis.from_url(limits_url) as client:
        script(client, EPOCH, [[hit], [hit]])
        ((answer,),) = script(client, EPOCH - 3_600_000_000, [[hit]])
        assert answer[0] == 0
        ((answer,),) = script(client, EPOCH - 3_600_000_000 + 2_000_000, [[hit]])
        assert answer[0] == 1


def test_a_burst_over_a_boundary_gains_nothing() -> None:
    """Sliding window: half of the capacity before a boundary leaves half of it after."""
    time = Time(EPOCH - 1000)
    local = LocalLimits(clock=time)
    hit = hit_of("limit", "k", 10, 1.0)
    assert sum(local.judge([hit])[0][0] for _ in range(5)) == 5
    time.now += 2000
    assert sum(local.judge([hit])[0][0] for _ in range(10)) == 5


def test_one_a_minute_is_one_a_minute() -> None:
    """Sliding window: a steady client at exactly its rate is never refused."""
    time = Time(EPOCH + 17)
    local = LocalLimits(clock=time)
    hit = hit_of("limit", "k", 1, 60.0)
    for _ in range(10):
        assert local.judge([hit])[0][0]
        time.now += 60_000_000


# ---- what docs/configure.md says of them -----------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(
    capacity=st.integers(1, 8),
    algorithm=algorithms,
    begin=st.integers(0, 1_000_000),
    pauses=st.lists(st.sampled_from([0, 0, 0, 1, 1000, 30_000, 125_000, 500_000, 999_999]), max_size=60),
)
def test_what_passes_is_bounded(capacity: int, algorithm: str, begin: int, pauses: list[int]) -> None:
    """C in each window of the clock or C (1 + T/W) in any T: which of the two, by the algorithm."""
    window = 1_000_000
    time = Time(EPOCH + begin)
    local = LocalLimits(clock=time)
    hit = hit_of("limit", "k", capacity, 1.0, algorithm)
    admitted = []
    for pause in pauses:
        time.now += pause
        if local.judge([hit])[0][0]:
            admitted.append(time.now)

    if algorithm != "token-bucket":
        assert max(Counter(at // window for at in admitted).values(), default=0) <= capacity
    for first, start in enumerate(admitted):
        for last, end in enumerate(admitted[first:]):
            if algorithm == "token-bucket" or (algorithm == "sliding-window" and end - start <= window):
                assert (last + 1) * window <= capacity * (window + end - start)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_any_of_them_may_let_nearly_twice_the_rate_through(algorithm: str) -> None:
    """A burst, and whoever asks without pause behind it: none admits C at most in every stretch of W."""
    capacity = 20
    burst = {"sliding-window": 990_000, "fixed-window": 990_000, "token-bucket": 0}[algorithm]
    time = Time(EPOCH + burst)
    local = LocalLimits(clock=time)
    hit = hit_of("limit", "k", capacity, 1.0, algorithm)
    passed = 0
    for _ in range(1000):  # within one second, W
        passed += sum(local.judge([hit])[0][0] for _ in range(capacity))
        time.now += 999
    assert 1.9 * capacity <= passed <= 2 * capacity
