"""The circuit opens by ratio, probes by permit, and believes nothing that is out of date."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gateway import config
from gateway.policies.circuit import (
    GROWTH,
    HEAD_START,
    JITTER,
    LEASE_SECONDS,
    MAX_GROWTH,
    RAMP_SECONDS,
    REFUSED,
    Circuit,
)
from gateway.policies.circuit_state import Change
from gateway.policies.ramp import START
from gateway.policies.ratio_window import BUCKETS, RatioWindow

SETTINGS = config.Breaker(
    window=10, min_requests=20, failure_ratio=0.5, slow_ratio=0.8, slow_after=2, open_for=5, probes=3
)
LONGEST = SETTINGS.open_for * MAX_GROWTH * (1 + JITTER)


def circuit_at(clock: Callable[[], float], **words: Any) -> Circuit:
    return Circuit("shop", SETTINGS, clock=clock, rng=random.Random(7), **words)


def feed(circuit: Circuit, good: int = 0, bad: int = 0, slow: int = 0) -> None:
    for failed, late, times in ((False, False, good), (False, True, slow), (True, False, bad)):
        for _ in range(times):
            circuit.record(circuit.enter(), failed=failed, slow=late)


def open_up(circuit: Circuit) -> None:
    feed(circuit, bad=SETTINGS.min_requests)
    assert circuit.state == "open"


# ---- closed --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("good", "bad", "slow", "state"),
    [
        (0, 19, 0, "closed"),  # too few to judge
        (11, 9, 0, "closed"),
        (10, 10, 0, "open"),
        (5, 0, 15, "closed"),
        (4, 0, 16, "open"),
        (1000, 999, 0, "closed"),
    ],
)
def test_it_opens_at_its_ratios(clock: Any, good: int, bad: int, slow: int, state: str) -> None:
    """Enough requests, and enough of them failed or slow."""
    circuit = circuit_at(clock)
    feed(circuit, good, bad, slow)
    assert circuit.state == state


def test_a_success_opens_nothing(clock: Any) -> None:
    """Neither by completing the sample nor by outliving others: the upstream may just have come back."""
    circuit = circuit_at(clock)
    feed(circuit, bad=10)
    feed(circuit, good=10)  # the twentieth of which half failed
    assert circuit.state == "closed"
    feed(circuit, bad=1)
    assert circuit.state == "open"


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=60), st.integers(1, 20))
def test_it_opens_by_what_there_is_one_too_many_of(results: list[tuple[bool, bool]], least: int) -> None:
    """By a failure at the ratio of failures, by a slow answer at that of slow ones, by nothing else."""
    judged = SETTINGS.model_copy(update={"min_requests": least, "slow_ratio": 0.4})
    circuit = Circuit("shop", judged, clock=lambda: 100.0, rng=random.Random(7))
    heard: list[Change] = []
    circuit.on_change(heard.append)
    total = bad = late = 0
    for failed, slow in results:
        circuit.record(circuit.enter(), failed=failed, slow=slow)
        total, bad, late = total + 1, bad + failed, late + slow
        enough = total >= least
        if failed and enough and bad >= 0.5 * total:
            assert [change.cause for change in heard] == ["failures"]
            return
        if slow and enough and late >= 0.4 * total:
            assert [change.cause for change in heard] == ["slowness"]
            return
        assert not heard


def test_the_window_forgets(clock: Any) -> None:
    """Failures older than the window count no more."""
    circuit = circuit_at(clock)
    feed(circuit, bad=19)
    clock.advance(SETTINGS.window)
    feed(circuit, bad=19)
    assert circuit.state == "closed"


@given(
    st.lists(st.tuples(st.integers(0, 30), st.booleans(), st.booleans()), max_size=80),
    st.integers(1, 20),
    st.integers(0, 10**9),
)
def test_the_window_counts_its_buckets(
    results: list[tuple[int, bool, bool]], seconds: int, start: int
) -> None:
    """Totals are those of the last ten buckets, whatever the gaps (a reference keeps every result)."""
    window, halves, kept = RatioWindow(seconds), 2 * start, []
    for gap, failed, slow in results:
        halves += gap  # half buckets since the clock's zero
        # A quarter past: which side of a bucket's edge a result falls is a matter of rounding.
        window.add((halves / 2 + 0.25) * seconds / BUCKETS, failed=failed, slow=slow)
        epoch = halves // 2
        kept.append((epoch, failed, slow))
        live = [result for result in kept if result[0] > epoch - BUCKETS]
        assert (window.total, window.failed, window.slow) == (
            len(live),
            sum(result[1] for result in live),
            sum(result[2] for result in live),
        )


# ---- open ----------------------------------------------------------------------------------


def test_open_refuses_and_says_for_how_long(clock: Any) -> None:
    """Nobody enters; the time to wait is until probing begins, and never below a second."""
    circuit = circuit_at(clock)
    open_up(circuit)
    wait = circuit.retry_after()
    assert 5 * (1 - JITTER) <= wait <= 5 * (1 + JITTER)
    assert circuit.enter() == REFUSED
    clock.advance(wait - 0.001)
    assert circuit.enter() == REFUSED
    assert circuit.retry_after() == 1.0
    clock.advance(0.002)
    assert circuit.state == "half-open"
    assert circuit.enter() != REFUSED


def test_results_from_before_are_ignored(clock: Any) -> None:
    """Requests that were under way when it opened say nothing about the probes, good or bad."""
    circuit = circuit_at(clock)
    late = [circuit.enter() for _ in range(100)]
    open_up(circuit)
    clock.advance(LONGEST)
    probes = [circuit.enter() for _ in range(3)]
    for index, ticket in enumerate(late):
        circuit.record(ticket, failed=index % 2 == 0)
    assert circuit.state == "half-open"
    for ticket in probes:
        circuit.record(ticket, failed=False)
    assert circuit.state == "closed"
    for ticket in late + probes:
        circuit.record(ticket, failed=True)
    assert circuit.state == "closed"


def test_each_reopening_lasts_longer_and_is_jittered(clock: Any) -> None:
    """Growth by half each time, up to six times; no two workers in step; well again, it begins anew."""
    lasted: list[float] = []
    circuit = circuit_at(clock)
    circuit.on_change(lambda change: lasted.append(change.seconds) if change.after == "open" else None)
    open_up(circuit)
    for _ in range(20):
        clock.advance(circuit.retry_after() + 0.001)
        for ticket in [circuit.enter() for _ in range(3)]:
            circuit.record(ticket, failed=True)
    for index, seconds in enumerate(lasted):
        nominal = 5 * min(GROWTH**index, MAX_GROWTH)
        assert nominal * (1 - JITTER) <= seconds <= nominal * (1 + JITTER)
    assert len({round(seconds, 6) for seconds in lasted}) == len(lasted) == 21

    clock.advance(LONGEST)
    for ticket in [circuit.enter() for _ in range(3)]:
        circuit.record(ticket, failed=False)
    clock.advance(SETTINGS.window + RAMP_SECONDS)
    open_up(circuit)
    assert lasted[-1] <= 5 * (1 + JITTER)


# ---- half-open -----------------------------------------------------------------------------


@pytest.fixture
def half_open(clock: Any) -> Circuit:
    """A circuit about to probe."""
    circuit = circuit_at(clock, lease=15.0)
    open_up(circuit)
    clock.advance(LONGEST)
    return circuit


def test_exactly_the_probes_enter(half_open: Circuit) -> None:
    """Of a crowd at the moment of half-open three pass; verdicts so far count against the three."""
    tickets = [half_open.enter() for _ in range(1000)]
    assert sum(ticket != REFUSED for ticket in tickets) == 3
    half_open.record(tickets[0], failed=False)
    assert half_open.enter() == REFUSED


@pytest.mark.parametrize(
    ("results", "state"),
    [
        ([(False, False)] * 3, "closed"),
        ([(True, False), (False, False), (False, False)], "closed"),  # a third is below the ratio
        ([(True, False), (True, False)], "open"),  # decided, whatever the third does
        ([(False, True)] * 3, "open"),
        ([(False, True)] * 2, "half-open"),
    ],
)
def test_the_probes_are_judged_by_the_same_ratios(
    half_open: Circuit, results: list[tuple[bool, bool]], state: str
) -> None:
    """Whatever is well enough to stay closed is well enough to close again."""
    tickets = [half_open.enter() for _ in range(3)]
    for ticket, (failed, slow) in zip(tickets, results, strict=False):
        half_open.record(ticket, failed=failed, slow=slow)
    assert half_open.state == state


def test_a_permit_comes_back(half_open: Circuit) -> None:
    """Released twice it comes back once, and the ticket is void."""
    tickets = [half_open.enter() for _ in range(3)]
    half_open.release(tickets[0])
    half_open.release(tickets[0])
    half_open.record(tickets[0], failed=True)
    assert half_open.enter() != REFUSED
    assert half_open.enter() == REFUSED


def test_permits_do_not_outlive_their_spell(clock: Any) -> None:
    """A probe still under way when the circuit reopens takes no place of the next probes."""
    circuit = circuit_at(clock, lease=1000.0)
    open_up(circuit)
    clock.advance(LONGEST)
    for ticket in [circuit.enter() for _ in range(3)][:2]:
        circuit.record(ticket, failed=True)
    assert circuit.state == "open"
    clock.advance(LONGEST)
    assert sum(circuit.enter() != REFUSED for _ in range(10)) == 3


def test_a_hanging_probe_loses_its_permit(half_open: Circuit, clock: Any) -> None:
    """After the lease another may probe; what the first one says then is too late."""
    hanging = [half_open.enter() for _ in range(3)]
    clock.advance(14.9)
    assert half_open.enter() == REFUSED
    clock.advance(0.2)
    fresh = [half_open.enter() for _ in range(4)]
    assert fresh[3] == REFUSED
    for ticket in hanging:
        half_open.record(ticket, failed=True)
    assert half_open.state == "half-open"
    for ticket in fresh[:3]:
        half_open.record(ticket, failed=False)
    assert half_open.state == "closed"


def test_streams_that_flow_for_a_whole_lease_are_well(half_open: Circuit, clock: Any) -> None:
    """An upstream of endless event streams can close its circuit too."""
    for ticket in [half_open.enter() for _ in range(3)]:
        half_open.answered(ticket, slow=False)
    clock.advance(15)
    half_open.enter()
    assert half_open.state == "closed"


# ---- closed again --------------------------------------------------------------------------


def close_again(circuit: Circuit) -> None:
    for ticket in [circuit.enter() for _ in range(3)]:
        circuit.record(ticket, failed=False)
    assert circuit.state == "closed"


def test_a_crowd_is_let_in_by_and_by(half_open: Circuit, clock: Any) -> None:
    """A page's worth at once; of the others a share that grows in a straight line, until all may."""
    close_again(half_open)
    waiting, steps = 600, 6
    inside = []
    for _ in range(steps):
        inside.append(sum(half_open.enter() != REFUSED for _ in range(waiting)))
        clock.advance(RAMP_SECONDS / steps)
    assert inside[0] == START
    assert inside[1:] == pytest.approx([waiting * n / steps for n in range(1, steps)], abs=1)
    assert all(half_open.enter() != REFUSED for _ in range(waiting))


@pytest.mark.parametrize("end", ["record", "release"])
def test_one_after_the_other_passes_the_ramp_whole(half_open: Circuit, clock: Any, end: str) -> None:
    """Who waits for an answer before asking again is no crowd, however quick; however it ended."""
    close_again(half_open)
    for _ in range(200):
        tickets = [half_open.enter() for _ in range(START)]
        assert REFUSED not in tickets
        for ticket in tickets:
            if end == "record":
                half_open.record(ticket, failed=False)
            else:
                half_open.release(ticket)
        clock.advance(0.001)


# ---- orders from outside -------------------------------------------------------------------


def test_forced_open_stays_open(clock: Any) -> None:
    """However long; set free it is closed, for it was not sickness that opened it."""
    circuit = circuit_at(clock)
    circuit.force("open")
    clock.advance(10_000)
    assert (circuit.state, circuit.enter(), circuit.forced) == ("open", REFUSED, True)
    assert circuit.retry_after() == SETTINGS.open_for
    circuit.force("auto")
    assert (circuit.state, circuit.forced) == ("closed", False)
    assert all(circuit.enter() != REFUSED for _ in range(START))


def test_forced_closed_stays_closed(clock: Any) -> None:
    """However many fail; set free it judges by what comes then, not by what was."""
    circuit = circuit_at(clock)
    open_up(circuit)
    circuit.force("closed")
    feed(circuit, bad=100)
    circuit.trip(5)
    assert circuit.state == "closed"
    circuit.force("auto")
    feed(circuit, bad=19)
    assert circuit.state == "closed"
    feed(circuit, bad=1)
    assert circuit.state == "open"


def test_auto_without_force_changes_nothing(clock: Any) -> None:
    """An open circuit does not begin to probe because somebody confirmed that it is automatic."""
    circuit = circuit_at(clock)
    open_up(circuit)
    circuit.force("auto")
    assert circuit.state == "open"
    with pytest.raises(ValueError, match="use open, closed or auto"):
        circuit.force("ajar")  # type: ignore[arg-type]  # as a careless caller would
    assert circuit.state == "open"


def test_a_hint_opens_it(clock: Any) -> None:
    """Another worker's finding is believed for as long as it says, within bounds; nonsense is not."""
    circuit = circuit_at(clock)
    for nonsense in (0.0, -1.0, float("nan")):
        circuit.trip(nonsense)
    assert circuit.state == "closed"
    circuit.trip(4)
    assert circuit.state == "open"
    assert circuit.retry_after() == 4
    circuit.trip(2)  # shorter than what is left
    assert circuit.retry_after() == 4
    circuit.trip(float("inf"))
    assert circuit.retry_after() == pytest.approx(LONGEST)


def test_who_was_told_lets_the_others_probe(clock: Any) -> None:
    """It begins a moment later; and a moment after another has begun, which gets no requests or hangs."""
    circuit = circuit_at(clock)
    circuit.trip(4)
    clock.advance(4 + HEAD_START - 0.01)
    assert circuit.enter() == REFUSED
    circuit.follow()
    clock.advance(HEAD_START - 0.01)
    assert circuit.enter() == REFUSED
    clock.advance(HEAD_START + 0.01)
    assert circuit.enter() != REFUSED


def test_who_was_told_probes_with_one_at_a_time(clock: Any) -> None:
    """Beside those of another worker; as many as any must end well before it closes, or fail to open it."""
    circuit = circuit_at(clock)
    for failed, state in ((False, "closed"), (True, "open")):
        circuit.trip(4)
        clock.advance(100)
        for _ in range(SETTINGS.probes):
            (ticket,) = [ticket for ticket in (circuit.enter() for _ in range(500)) if ticket != REFUSED]
            circuit.record(ticket, failed=failed)
            if circuit.state == state:
                break
        assert circuit.state == state


def test_few_requests_are_probes_wherever_they_come(clock: Any) -> None:
    """Two workers get one in turn, long after the time is over: none is refused."""
    found, told = circuit_at(clock), circuit_at(clock)
    found.on_change(lambda change: told.follow() if change.after == "half-open" else None)
    told.on_change(lambda change: found.follow() if change.after == "half-open" else None)
    open_up(found)
    told.trip(found.retry_after())
    clock.advance(LONGEST)
    for circuit in (told, found) * SETTINGS.probes:
        clock.advance(2 * HEAD_START)
        ticket = circuit.enter()
        assert ticket != REFUSED
        circuit.record(ticket, failed=False)
    assert (found.state, told.state) == ("closed", "closed")


def test_its_own_finding_needs_no_waiting(clock: Any) -> None:
    """Whoever opened it by its own requests probes as soon as the time is over, and tells the others."""
    circuit = circuit_at(clock)
    circuit.trip(4)
    clock.advance(100)
    for _ in range(SETTINGS.probes):
        circuit.record(circuit.enter(), failed=True)
    assert circuit.state == "open"
    clock.advance(LONGEST)
    assert circuit.enter() != REFUSED


@pytest.mark.parametrize("state", ["open", "half-open"])
def test_anothers_probes_close_it(clock: Any, state: str) -> None:
    """Found well by another worker it closes, with the ramp of any recovery; held by an operator it stays."""
    circuit = circuit_at(clock)
    open_up(circuit)
    if state == "half-open":
        clock.advance(LONGEST)
        circuit.enter()
    assert circuit.state == state
    circuit.recover()
    assert circuit.state == "closed"
    assert sum(circuit.enter() != REFUSED for _ in range(500)) == START
    circuit.force("open")
    circuit.recover()
    assert circuit.state == "open"


def test_an_upstream_that_nobody_asks_is_not_sick_for_ever(clock: Any) -> None:
    """Without requests no probe finds it well; what it was long ago must not count against it."""
    circuit = circuit_at(clock)
    open_up(circuit)
    clock.advance(circuit.retry_after())
    assert (circuit.state, circuit.sick) == ("half-open", True)
    clock.advance(max(SETTINGS.window, LEASE_SECONDS) - 0.1)
    assert circuit.sick
    clock.advance(0.1)
    assert (circuit.state, circuit.sick) == ("half-open", False)
    circuit.record(circuit.enter(), failed=True)  # but the first who asks may tell
    assert circuit.state == "half-open"
    circuit.record(circuit.enter(), failed=True)
    assert (circuit.state, circuit.sick) == ("open", True)


def test_listeners_hear_each_transition(clock: Any) -> None:
    """Once each, with the cause; one that fails disturbs neither the request nor the others."""
    circuit = circuit_at(clock)
    heard: list[Change] = []

    def broken(_: Change) -> None:
        raise RuntimeError("a listener's defect")

    circuit.on_change(broken)
    circuit.on_change(heard.append)
    open_up(circuit)
    clock.advance(LONGEST)
    close_again(circuit)
    circuit.trip(1)
    circuit.force("open")
    circuit.force("closed")
    assert [(change.before, change.after, change.cause) for change in heard] == [
        ("closed", "open", "failures"),
        ("open", "half-open", "probes"),
        ("half-open", "closed", "probes"),
        ("closed", "open", "hint"),
        ("open", "closed", "forced"),
    ]
    assert [change.seconds > 0 for change in heard] == [True, False, False, True, False]


# ---- anything, in any order ----------------------------------------------------------------


class Crowd(RuleBasedStateMachine):
    """Callers that enter, end, vanish and hang in any order, and operators who meddle."""

    @initialize()
    def begin(self) -> None:
        self.now = 100.0
        tight = SETTINGS.model_copy(update={"min_requests": 3, "open_for": 2.0})
        self.circuit = Circuit("shop", tight, clock=lambda: self.now, rng=random.Random(1), lease=4.0)
        self.changes: list[Change] = []
        self.circuit.on_change(self.changes.append)
        self.tickets: list[int] = []  # with callers still under way
        self.probing: dict[int, float] = {}  # probes under way in this half-open spell, and since when
        self.given: set[int] = set()
        self.judged = 0
        self.told = False  # opened by another's word, so others probe first
        self.until = 0.0  # when it may begin to probe
        self.waits = 0.0  # since when the other is waited for

    def _spell_over(self, before: int) -> None:
        if len(self.changes) != before:
            self.probing.clear()
            self.judged = 0
            if self.changes[-1].after == "open" and self.changes[-1].cause != "hint":
                self.told = False
                self.until = self.now + self.changes[-1].seconds

    def _may_probe(self) -> bool | None:
        """Whether it need not wait for another worker's probes; None when that is the jitter's to say."""
        if not self.told or self.changes[-1].after != "open":
            return True
        waited = self.now - self.waits
        return False if waited < HEAD_START else True if waited >= 2 * HEAD_START else None

    @rule()
    def enter(self) -> None:
        stood, before = self.circuit.state, len(self.changes)
        may = self._may_probe() if stood == "half-open" else None
        ticket = self.circuit.enter()
        self._spell_over(before)
        for late in [t for t, since in self.probing.items() if self.now - since >= 4.0]:
            del self.probing[late]
        if stood == "open":
            assert ticket == REFUSED
        elif stood == "half-open":
            room = len(self.probing) + self.judged < 3 and not (self.told and self.probing)
            if may is not None:
                assert (ticket != REFUSED) == (room and may)
        if ticket != REFUSED:
            self.tickets.append(ticket)
        if ticket < 0:
            assert ticket not in self.given
            self.given.add(ticket)
            self.probing[ticket] = self.now

    @precondition(lambda self: self.tickets)
    @rule(data=st.data(), failed=st.booleans(), slow=st.booleans(), twice=st.booleans())
    def end(self, data: st.DataObject, failed: bool, slow: bool, twice: bool) -> None:
        ticket = self.tickets.pop(data.draw(st.integers(0, len(self.tickets) - 1)))
        for _ in range(1 + twice):
            before = len(self.changes)
            if self.probing.pop(ticket, None) is not None:
                self.judged += 1
            self.circuit.record(ticket, failed=failed, slow=slow)
            self._spell_over(before)

    @precondition(lambda self: self.tickets)
    @rule(data=st.data())
    def vanish(self, data: st.DataObject) -> None:
        ticket = self.tickets.pop(data.draw(st.integers(0, len(self.tickets) - 1)))
        self.probing.pop(ticket, None)
        self.circuit.release(ticket)

    @rule(tenths=st.integers(1, 60))
    def wait(self, tenths: int) -> None:
        self.now += tenths / 10

    @rule(state=st.sampled_from(["open", "closed", "auto"]))
    def force(self, state: Any) -> None:
        forced = self.circuit.forced
        self.circuit.force(state)
        if state != "auto" or forced:
            self.probing.clear()
            self.judged = 0

    @rule(seconds=st.floats(0.1, 5))
    def hint(self, seconds: float) -> None:
        before = len(self.changes)
        self.circuit.trip(seconds)
        self._spell_over(before)
        if not self.circuit.forced:
            self.probing.clear()
            self.judged = 0
            self.until = max(self.until, self.now + seconds)
            self.told, self.waits = True, self.until

    @rule()
    def follow(self) -> None:
        if self.changes and self.changes[-1].after == "open" and not self.circuit.forced:
            self.told, self.waits = True, self.now
        self.circuit.follow()

    @rule()
    def recover(self) -> None:
        before = len(self.changes)
        self.circuit.recover()
        self._spell_over(before)

    @invariant()
    def transitions_are_allowed(self) -> None:
        allowed = {"closed": {"open"}, "open": {"half-open", "closed"}, "half-open": {"open", "closed"}}
        state = "closed"
        for change in self.changes:
            assert change.before == state
            assert change.after in allowed[state]
            assert state != "open" or change.after != "closed" or change.cause in {"forced", "hint"}
            state = change.after

    @invariant()
    def the_wait_is_sane(self) -> None:
        assert 1.0 <= self.circuit.retry_after() <= 2.0 * MAX_GROWTH * (1 + JITTER)

    def teardown(self) -> None:
        """Whatever happened, once all callers are gone and the upstream is well it closes."""
        if not hasattr(self, "circuit"):
            return
        self.circuit.force("auto")
        for _ in range(20):
            self.now += 20
            ticket = self.circuit.enter()
            if ticket != REFUSED:
                self.circuit.record(ticket, failed=False)
        assert self.circuit.state == "closed"


TestCrowd = Crowd.TestCase
TestCrowd.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


@pytest.mark.parametrize("workers", [1, 2, 3, 4, 8])
def test_all_workers_together_let_as_many_through_as_are_configured(clock: Any, workers: int) -> None:
    """However many wait, and whoever is told of what another has found."""
    found, *told = [circuit_at(clock, lease=30.0, others=workers - 1) for _ in range(workers)]
    open_up(found)
    for other in told:
        other.trip(found.retry_after())
    clock.advance(found.retry_after())
    under_way = sum(found.enter() != REFUSED for _ in range(500))
    for other in told:
        other.follow()
    assert under_way >= 1
    for _ in range(20):
        clock.advance(HEAD_START)
        under_way += sum(circuit.enter() != REFUSED for circuit in (found, *told) for _ in range(500))
    assert under_way == SETTINGS.probes
