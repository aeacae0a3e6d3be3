"""The limit finds what an upstream can take: by rule, and before a simulated one over minutes of its time."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from gateway.config import Concurrency
from gateway.policies.bases import MOST_ROUTES
from gateway.policies.concurrency import AdaptiveLimit
from gateway.policies.concurrency_window import START_ROW, WINDOW
from gateway.policies.lane import Lane
from gateway.policies.slots import Slots
from gateway.policies.trial import EXPLORE_EVERY

_LOG = math.log(5)  # variance of the logarithms of draws that deviate by twice their mean

DRAWS: dict[str, Callable[[random.Random, float], float]] = {
    "constant": lambda _, mean: mean,
    "uniform": lambda rng, mean: rng.uniform(0.5, 1.5) * mean,
    "exponential": lambda rng, mean: rng.expovariate(1 / mean),
    "lognormal": lambda rng, mean: rng.lognormvariate(math.log(mean) - _LOG / 2, math.sqrt(_LOG)),
    "one in ten": lambda rng, mean: mean * (0.5 if rng.random() < 0.9 else 5.5),
}


class Upstream:
    """Workers' gates before one upstream, which serves in the order of coming; in simulated time.

    Args:
        limits: of each gate.
        servers: requests that it works on at once.
        service: seconds for each, on average.
        gates: how many workers there are.
        draw: how service times vary.
    """

    def __init__(
        self, limits: Concurrency, servers: int, service: float, *, gates: int = 1, draw: str = "constant"
    ) -> None:
        self.now = 0.0
        self.servers, self.service = servers, service
        self.gates = [Slots(limits, lambda: self.now) for _ in range(gates)]
        self.most_in_flight = 0
        self._draw = DRAWS[draw]
        self._rng = random.Random(7)
        self._events: list[Any] = []
        self._order = itertools.count()
        self._busy = 0
        self._queue: deque[tuple[Slots, Lane, float, int]] = deque()
        self._latencies: list[float] = []
        self._arriving: object = None

    @property
    def capacity(self) -> float:
        """Requests a second."""
        return self.servers / self.service

    @property
    def limit(self) -> int:
        """All gates' limits together."""
        return sum(gate.limit for gate in self.gates)

    def offer(self, rate: float, seconds: float) -> tuple[float, float]:
        """Offer so many requests a second, open loop, for so long.

        Returns:
            Answers per second in capacities, and their mean latency in service times.
        """
        end = self.now + seconds
        self._latencies = []
        self._arriving = arriving = object()
        self._later(self._rng.expovariate(rate), self._arrive, rate, arriving)
        while self._events and self._events[0][0] <= end:
            self.now, _, act, args = heapq.heappop(self._events)
            act(*args)
        self.now = end
        answers = len(self._latencies)
        return answers / seconds / self.capacity, sum(self._latencies) / max(1, answers) / self.service

    def _later(self, seconds: float, act: Any, *args: Any) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._order), act, args))

    def _arrive(self, rate: float, arriving: object) -> None:
        if arriving is not self._arriving:
            return
        self._later(self._rng.expovariate(rate), self._arrive, rate, arriving)
        gate = self._rng.choice(self.gates)
        lane = gate.lanes["critical"]
        if not lane.try_enter():
            gate.found_full()
            return
        assert gate.limiter is not None
        self._queue.append((gate, lane, self.now, gate.limiter.generation))
        self._serve()

    def _serve(self) -> None:
        self.most_in_flight = max(self.most_in_flight, self._busy + len(self._queue))
        while self._queue and self._busy < self.servers:
            self._busy += 1
            self._later(self._draw(self._rng, self.service), self._answer, *self._queue.popleft())

    def _answer(self, gate: Slots, lane: Lane, asked: float, generation: int) -> None:
        self._busy -= 1
        self._latencies.append(self.now - asked)
        assert gate.limiter is not None
        gate.limiter.answered(generation, "/x", self.now - asked, gate.in_flight)
        lane.leave()
        self._serve()


# ---- before a simulated upstream -------------------------------------------------------------


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    servers=st.integers(8, 60),
    service=st.floats(0.01, 0.2),
    gates=st.integers(1, 3),
    draw=st.sampled_from(sorted(DRAWS)),
    factor=st.floats(2, 10),
)
@example(servers=37, service=0.14453125, gates=1, draw="exponential", factor=3.0)
@example(servers=60, service=0.06203678616177475, gates=1, draw="exponential", factor=9.6)
@example(servers=25, service=0.17211931496570146, gates=1, draw="exponential", factor=2.0)
@example(servers=13, service=0.08286342778649981, gates=1, draw="one in ten", factor=3.1194154068650572)
@example(servers=26, service=0.1310287343518809, gates=1, draw="lognormal", factor=5.161422281503669)
@example(servers=8, service=0.09578204522566834, gates=1, draw="one in ten", factor=9.70935508010401)
def test_loads_step_up_and_down(servers: int, service: float, gates: int, draw: str, factor: float) -> None:
    """From calm to many times its capacity and back: no collapse, no runaway, and calm again at once."""
    upstream = Upstream(Concurrency(min=2, max=400, initial=20), servers, service, gates=gates, draw=draw)
    settle = 60 * max(WINDOW, 2 * service)
    upstream.offer(0.3 * upstream.capacity, settle)
    upstream.offer(factor * upstream.capacity, settle)
    done, latency = upstream.offer(factor * upstream.capacity, settle)
    assert done > 0.7
    assert latency < 6
    assert upstream.limit < 6 * servers + 10 * gates
    assert upstream.most_in_flight <= 400 * gates
    upstream.offer(0.3 * upstream.capacity, settle / 4)
    _, latency = upstream.offer(0.3 * upstream.capacity, settle)
    assert latency < 1.6


@pytest.mark.parametrize("draw", sorted(DRAWS))
def test_a_worker_born_in_the_rush_finds_the_limit(draw: str) -> None:
    """It never saw the upstream at rest: the first latency it knows is that of a long queue."""
    upstream = Upstream(Concurrency(min=4, max=400, initial=200), 20, 0.02, draw=draw)
    done, _ = upstream.offer(10_000, 10)
    assert done > 0.9
    done, latency = upstream.offer(10_000, 10)
    assert done > 0.9
    assert latency < 2.5
    assert upstream.limit < 60


@pytest.mark.parametrize("gates", [1, 3])
def test_an_upstream_that_becomes_slower_by_itself_is_believed(gates: int) -> None:
    """Five times the latency whatever the load: cuts don't help, so they are taken back."""
    upstream = Upstream(Concurrency(min=4, max=400), 60, 0.02, gates=gates, draw="uniform")
    upstream.offer(0.5 * upstream.capacity, 5)
    upstream.service *= 5
    upstream.offer(1.5 * upstream.capacity, 15)
    done, _ = upstream.offer(1.5 * upstream.capacity, 10)
    assert done > 0.85


@pytest.mark.parametrize("gates", [1, 3])
def test_an_upstream_that_loses_most_of_itself_is_spared(gates: int) -> None:
    """A quarter of the servers is left: the queue before them is found and cut, and grows back with them."""
    upstream = Upstream(Concurrency(min=2, max=400), 80, 0.02, gates=gates, draw="uniform")
    upstream.offer(2 * upstream.capacity, 10)
    upstream.servers = 20
    upstream.offer(4 * upstream.capacity, 20)
    done, latency = upstream.offer(4 * upstream.capacity, 10)
    assert done > 0.9
    assert latency < 5
    upstream.servers = 80
    upstream.offer(2 * upstream.capacity, 5)
    done, _ = upstream.offer(2 * upstream.capacity, 5)
    assert done > 0.9


def test_a_lasting_overload_does_not_carry_the_limit_away() -> None:
    """After ten minutes the queue is no longer than after one: what is measured in it is not its base."""
    upstream = Upstream(Concurrency(min=4, max=400), 10, 0.1, draw="uniform")
    upstream.offer(0.5 * upstream.capacity, 10)
    upstream.offer(2 * upstream.capacity, 60)
    for _ in range(10):
        done, latency = upstream.offer(2 * upstream.capacity, 60)
        assert done > 0.9
        assert latency < 2


def test_a_small_load_is_left_alone() -> None:
    """The limit stays where it was, neither fitted to the load nor grown for nothing."""
    upstream = Upstream(Concurrency(), 20, 0.02, draw="exponential")
    upstream.offer(0.3 * upstream.capacity, 60)
    assert upstream.limit == 100
    assert upstream.gates[0].pressure() < 0.5


# ---- by rule ---------------------------------------------------------------------------------


class Bench:
    """A limit, and windows of answers for it."""

    def __init__(self, clock: Any, **limits: Any) -> None:
        self.clock = clock
        self.limit = AdaptiveLimit(Concurrency(**limits), clock)

    def window(self, seconds: float, *, in_flight: int = 1000, route: str = "/x", n: int = 200) -> int:
        """One window of answers, and the limit after it."""
        for _ in range(n):
            self.clock.advance(max(WINDOW, 2 * seconds) / (n - 1))
            self.limit.answered(self.limit.generation, route, seconds, in_flight)
        return self.limit.limit


@pytest.fixture
def bench(clock: Any) -> Bench:
    """A limit of 100 whose base is 10 ms."""
    bench = Bench(clock)
    for _ in range(4):
        assert bench.window(0.01, in_flight=49) == 100
    while bench.limit.open < 100:
        clock.advance(0.001)
        bench.limit.answered(bench.limit.generation, "/x", 0.01, 50)
    return bench


def test_it_grows_only_where_it_holds_back(bench: Bench) -> None:
    """While fewer than half the slots are used, a higher limit would change nothing."""
    assert bench.window(0.01, in_flight=49) == 100
    assert bench.window(0.01, in_flight=50) == 100  # this opens what was closed by the calm before
    assert bench.window(0.01, in_flight=50) > 100


def test_somebody_turned_away_means_that_it_holds_back(bench: Bench) -> None:
    """The optional find the gate full long before all slots are taken."""
    bench.limit.hold_back()
    grown = bench.window(0.01, in_flight=1)
    assert grown > 100
    assert bench.window(0.01, in_flight=1) == grown  # nobody was, since


def test_a_queue_is_cut_in_proportion(bench: Bench) -> None:
    """Down to where it ends, but never by more than three tenths at once."""
    before = 0
    while (limit := bench.window(0.02)) >= before:
        before = limit
    assert limit == pytest.approx(0.7 * before, rel=0.05)


def test_a_long_queue_is_cut_to_where_it_ends(bench: Bench) -> None:
    """In one step, and as soon as a row of answers shows it: waiting would only make it longer."""
    for _ in range(3):
        bench.window(0.01)
    before = 0
    while bench.limit.limit >= before:  # the first may end a window of quick ones
        before = bench.limit.limit
        bench.clock.advance(WINDOW / 25)
        bench.limit.answered(bench.limit.generation, "/x", 0.05, 1000)
    assert bench.limit.limit == pytest.approx(before * 1.1 / 4.8, rel=0.1)


def test_a_stall_of_the_gateway_is_no_queue(bench: Bench) -> None:
    """Everything is late by one long turn of the loop: neither cut nor grown by that."""
    for _ in range(3):
        bench.window(0.01)
    bench.limit.stall = 0.05
    bench.window(0.06)  # with some from before it
    before = bench.limit.limit
    assert [bench.window(0.06) for _ in range(3)] == [before] * 3
    bench.limit.stall = 0.0
    for _ in range(200):
        bench.clock.advance(0.001)
        bench.limit.answered(bench.limit.generation, "/x", 0.06, 1000)
        if bench.limit.limit < before:
            break
    assert bench.limit.limit < before


def test_after_a_calm_it_opens_by_what_is_proven(clock: Any) -> None:
    """Twice what was in flight, half as many again after each window without a queue; a queue ends that."""
    bench = Bench(clock)
    for _ in range(4):
        bench.window(0.01, in_flight=20)
    limit = bench.limit
    assert (limit.limit, limit.open) == (100, 40)
    for opened in (60, 90):
        limit.hold_back()
        for _ in range(opened // 3):
            clock.advance(0.001)
            limit.answered(limit.generation, "/x", 0.01, opened // 2)
        assert (limit.limit, limit.open) == (100, opened)
    limit.hold_back()
    clock.advance(WINDOW)
    for _ in range(START_ROW):
        assert limit.limit == 100
        limit.answered(limit.generation, "/x", 0.04, 80)
    assert limit.limit == limit.open == pytest.approx(90 * 1.1 / 3.5, abs=2)


def test_nobody_held_back_opens_nothing(clock: Any) -> None:
    """Answers of a small load prove nothing of a great one, and the optional find only their share full."""
    bench = Bench(clock)
    for _ in range(4):
        bench.window(0.01, in_flight=2)
    assert bench.limit.open == 8
    bench.limit.hold_back()
    bench.window(0.01, in_flight=3)
    assert bench.limit.open == 8


def test_the_first_answers_of_all_find_little_open(clock: Any) -> None:
    """A worker that is born in a rush does not know what the upstream bears: it tries."""
    assert Bench(clock).limit.open == 32


def test_a_short_queue_is_let_down_a_little(bench: Bench) -> None:
    """Slots beyond those that are needed go; not many, since it may be none: a cut would find that out."""
    for _ in range(3):
        before = bench.window(0.01)
    found = [bench.window(0.0142) for _ in range(4)]  # with the slack, 1.22 bases
    assert min(found) < 0.95 * before
    assert min(found) > 0.7 * before


def test_answers_from_before_the_last_change_are_left_out(bench: Bench) -> None:
    """They tell of a limit that is gone."""
    old = bench.limit.generation
    bench.window(0.01)
    assert bench.limit.generation == old + 1
    before = bench.limit.limit
    for _ in range(1000):
        bench.clock.advance(0.1)
        bench.limit.answered(old, "/x", 5.0, 1000)
        bench.limit.failed(old, 1000)
    assert bench.limit.limit == before


def test_failures_halve_it_at_most(bench: Bench) -> None:
    """Timeouts have no latency to learn from; they are drops."""
    for _ in range(100):
        bench.clock.advance(0.01)
        bench.limit.failed(bench.limit.generation, 100)
        if bench.limit.limit != 100:
            break
    assert bench.limit.limit == 50


@pytest.mark.parametrize(("failures", "in_flight"), [(5, 100), (200, 10)], ids=["a few", "at a small load"])
def test_failures_that_are_no_overload_cost_nothing(bench: Bench, failures: int, in_flight: int) -> None:
    """One page's bug must not throttle the rest, nor errors at rest make the gate narrow."""
    for _ in range(failures):
        bench.limit.failed(bench.limit.generation, in_flight)
    assert bench.window(0.01, in_flight=in_flight) >= 100


def test_a_change_in_the_mix_is_no_queue(bench: Bench) -> None:
    """The slow routes' share grows from none to all, as it does when the fast are shed."""
    for _ in range(3):
        bench.window(0.2, in_flight=49, route="/slow")
    before = bench.limit.limit
    assert [bench.window(0.2, route="/slow") for _ in range(2)][1] > before  # the first opens it all


def test_the_gateways_own_delay_is_not_the_upstreams(bench: Bench) -> None:
    """A busy loop makes everything late, and cutting would not help."""
    bench.limit.own_delay = 0.02
    bench.window(0.045, in_flight=49)
    assert [bench.window(0.045) for _ in range(2)][1] > 100  # the first opens it all


def test_bounds_hold(clock: Any) -> None:
    """Whatever is measured."""
    bench = Bench(clock, min=10, max=120)
    assert all(bench.window(0.01) <= 120 for _ in range(50))
    for n in range(50):
        bench.clock.advance(EXPLORE_EVERY)
        assert bench.window(0.01 * (n + 1)) >= 10


@given(
    st.lists(
        st.tuples(st.sampled_from(["answer", "fail", "held", "wait"]), st.floats(0, 60), st.integers(0, 500)),
        max_size=300,
    )
)
def test_nothing_breaks_it(events: list[tuple[str, float, int]]) -> None:
    """Any sequence of answers, failures and pauses leaves a limit within bounds; zero latencies too."""
    now = 0.0
    limit = AdaptiveLimit(Concurrency(min=3, max=50), lambda: now)
    for kind, seconds, in_flight in events:
        if kind == "wait":
            now += seconds
        elif kind == "answer":
            limit.answered(limit.generation, str(in_flight % 5), seconds, in_flight)
        elif kind == "fail":
            limit.failed(limit.generation, in_flight)
        else:
            limit.hold_back()
        assert 3 <= limit.limit <= 50


def test_many_routes_take_bounded_memory(bench: Bench) -> None:
    """The oldest knowledge goes when there are too many, and the limit works on."""
    for n in range(2 * MOST_ROUTES + 10):
        bench.limit.answered(bench.limit.generation, f"/{n}", 0.01, 1)
    assert len(bench.limit._known) <= MOST_ROUTES  # nothing else shows memory
    assert bench.window(0.01) > 0
