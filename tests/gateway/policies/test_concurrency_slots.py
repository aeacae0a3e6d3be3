"""Who gets a slot, who waits for one, and who goes without."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Concurrency, Priority
from gateway.errors import Overloaded
from gateway.policies.slots import Slots
from tests.gateway import virtual_time

PRIORITIES: tuple[Priority, ...] = ("critical", "normal", "optional")


def fixed(limit: int, **more: Any) -> Slots:
    return Slots(Concurrency(min=limit, max=limit, **more))


def fill(slots: Slots, priority: Priority = "critical") -> int:
    count = 0
    while slots.lanes[priority].try_enter():
        count += 1
    return count


async def _turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


# ---- at once ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("priority", "room"), [("optional", 60), ("normal", 85), ("critical", 100)])
def test_each_priority_has_its_share(priority: Any, room: int) -> None:
    """Of a hundred slots; those above always find the rest free."""
    slots = fixed(100)
    assert fill(slots, priority) == room
    assert slots.in_flight == room


def test_shares_are_the_operators() -> None:
    """They stand in the configuration."""
    slots = fixed(100, shares={"normal": 0.5, "optional": 0.1})
    assert (fill(slots, "optional"), fill(slots, "normal"), fill(slots)) == (10, 40, 50)


def test_a_floor_is_kept_above_the_share() -> None:
    """While those above fill the upstream to the share, the optional still get what is theirs."""
    slots = fixed(100, floors={"normal": 0.1, "optional": 0.05})
    assert fill(slots, "normal") == 85
    assert fill(slots, "optional") == 5


EVENTS = st.lists(st.tuples(st.sampled_from(PRIORITIES), st.booleans()), max_size=200)


@given(st.integers(1, 50), st.floats(0, 0.4), EVENTS)
def test_it_never_holds_more_than_its_limit(limit: int, floor: float, events: list[Any]) -> None:
    """In any order of coming and going; an empty gate admits every priority; a floor is always had."""
    slots = fixed(limit, floors={"normal": floor, "optional": floor})
    inside: dict[Priority, int] = dict.fromkeys(PRIORITIES, 0)
    for priority, leaves in events:
        lane = slots.lanes[priority]
        if leaves and inside[priority]:
            lane.leave()
            inside[priority] -= 1
        elif not leaves:
            entered = lane.try_enter()
            assert entered or sum(inside.values()) > 0
            inside[priority] += entered
        assert slots.in_flight == sum(inside.values()) <= limit
        assert {name: lane.in_flight for name, lane in slots.lanes.items()} == inside


def test_settings_in_the_wrong_order_are_mistakes() -> None:
    """A target beyond the interval, and a first limit out of bounds."""
    with pytest.raises(ValueError, match="target is longer than interval"):
        Concurrency(queue={"target": 1, "interval": 0.1})
    with pytest.raises(ValueError, match=r"initial \(500\) is not between"):
        Concurrency(initial=500)


# ---- a moment later --------------------------------------------------------------------------


async def test_those_who_wait_are_served_by_priority_then_age() -> None:
    """Critical first; within a priority the first who came, while the queue is short-lived."""
    slots = fixed(4, queue={"interval": 10})
    fill(slots)
    served: list[str] = []

    async def wait(priority: Priority, name: str) -> None:
        await slots.lanes[priority].wait("u")
        served.append(name)

    names: list[tuple[Priority, str]] = [
        ("normal", "n1"),
        ("critical", "c1"),
        ("normal", "n2"),
        ("critical", "c2"),
    ]
    tasks = [asyncio.create_task(wait(*each)) for each in names]
    await _turns()
    for _ in range(2):
        slots.lanes["critical"].leave()
        await _turns()
    assert served == ["c1", "c2"]
    for _ in range(3):  # one more stays free for the critical: three of four are the normal's share
        slots.lanes["critical"].leave()
        await _turns()
    assert served == ["c1", "c2", "n1", "n2"]
    await asyncio.gather(*tasks)


async def test_the_newest_is_served_first_once_the_queue_stands(clock: Any) -> None:
    """Its client is the likeliest to wait still; the oldest would be too late anyhow."""
    slots = Slots(Concurrency(min=3, max=3, queue={"interval": 10, "target": 10}), clock)
    fill(slots)
    served: list[int] = []

    async def wait(number: int) -> None:
        await slots.lanes["critical"].wait("u")
        served.append(number)

    tasks = [asyncio.create_task(wait(number)) for number in range(3)]
    await _turns()
    clock.advance(101)  # of the critical it must stand ten intervals
    for _ in range(3):
        slots.lanes["critical"].leave()
        await _turns()
    assert served == [2, 1, 0]
    await asyncio.gather(*tasks)


async def test_those_below_their_floor_come_first() -> None:
    """Else a flood of the critical would starve them for good."""
    slots = fixed(20, floors={"normal": 0.1}, queue={"interval": 10})
    fill(slots)
    normal = asyncio.create_task(slots.lanes["normal"].wait("u"))
    critical = asyncio.create_task(slots.lanes["critical"].wait("u"))
    await _turns()
    slots.lanes["critical"].leave()
    await _turns()
    assert (normal.done(), critical.done()) == (True, False)
    slots.lanes["critical"].leave()
    await critical


async def test_patience_ends() -> None:
    """Refused after an interval; what it waited counts as pressure."""
    slots = fixed(1, queue={"interval": 0.02, "target": 0.005})
    fill(slots)
    with pytest.raises(Overloaded, match="critical"):
        await slots.lanes["critical"].wait("u")
    assert (slots.waiting, slots.in_flight, slots.refused) == (0, 1, 1)
    assert slots.pressure() == 1.0


@pytest.mark.parametrize(("seconds", "patience"), [(0.0, 0.1), (0.09, 0.1), (0.1, 0.005), (5.0, 0.005)])
def test_a_standing_queue_has_little_patience(seconds: float, patience: float) -> None:
    """CoDel's interval and target."""
    assert fixed(10).patience(standing=seconds) == patience


async def test_the_queue_is_bounded() -> None:
    """Those beyond are refused at once, without a turn of the loop."""
    slots = fixed(3, queue={"size": 2, "interval": 10})
    fill(slots)
    waiting = [asyncio.create_task(slots.lanes["critical"].wait("u")) for _ in range(2)]
    await _turns()
    with pytest.raises(Overloaded):
        slots.lanes["critical"].wait("u").send(None)
    for task in waiting:
        task.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)
    assert slots.waiting == 0


async def test_a_full_queue_gives_the_place_of_who_holds_most() -> None:
    """To one who has none; that one is refused at once."""
    slots = fixed(3, queue={"size": 2, "interval": 10})
    fill(slots)
    lane = slots.lanes["normal"]
    greedy = [asyncio.create_task(lane.wait("greedy")) for _ in range(2)]
    await _turns()
    other = asyncio.create_task(lane.wait("other"))
    await _turns()
    assert (greedy[0].done(), greedy[1].done(), other.done()) == (False, True, False)
    assert isinstance(greedy[1].exception(), Overloaded)
    assert (slots.waiting, slots.refused) == (2, 1)
    greedy[0].cancel()
    other.cancel()
    await asyncio.gather(greedy[0], other, return_exceptions=True)
    assert slots.waiting == 0


def test_the_critical_wait_while_others_hold_slots() -> None:
    """Longer than an interval and more than a queue of them: each slot that comes back is theirs."""

    async def wait() -> None:
        settings = Concurrency(min=3, max=3, queue={"size": 2, "interval": 0.01, "target": 0.001})
        slots = Slots(settings, asyncio.get_running_loop().time)
        assert slots.lanes["normal"].try_enter()
        fill(slots)
        waiting = [asyncio.create_task(slots.lanes["critical"].wait(str(n))) for n in range(5)]
        await asyncio.sleep(0.025)  # of virtual time: more than two intervals
        assert not any(task.done() for task in waiting)
        slots.lanes["normal"].leave()
        done, left = await asyncio.wait(waiting)  # now it is full of their like
        assert not left
        assert sum(task.exception() is None for task in done) == 1
        assert slots.waiting == 0

    virtual_time.run(wait())


async def test_one_cancelled_with_a_slot_in_hand_passes_it_on() -> None:
    """Between getting it and waking up."""
    slots = fixed(2, queue={"interval": 10})
    fill(slots)
    first = asyncio.create_task(slots.lanes["critical"].wait("u"))
    second = asyncio.create_task(slots.lanes["critical"].wait("u"))
    await _turns()
    slots.lanes["critical"].leave()
    first.cancel()
    await second
    assert first.cancelled()
    assert (slots.in_flight, slots.waiting) == (2, 0)


@given(st.lists(st.tuples(st.sampled_from(["come", "go", "cancel", "turn"]), st.integers(0, 9)), max_size=80))
def test_slots_and_places_are_never_lost(events: list[tuple[str, int]]) -> None:
    """Whoever comes, waits, is cancelled or leaves, in any order: at the end the gate is empty."""

    async def story() -> None:
        slots = fixed(3, queue={"interval": 10, "size": 5}, floors={"optional": 0.34})
        tasks: list[asyncio.Task[None]] = []
        held: list[Any] = []

        async def come(priority: Priority) -> None:
            lane = slots.lanes[priority]
            if not lane.try_enter():
                await lane.wait("u")
            held.append(lane)

        for kind, number in events:
            if kind == "come":
                tasks.append(asyncio.create_task(come(PRIORITIES[number % 3])))
            elif kind == "go" and held:
                held.pop(number % len(held)).leave()
            elif kind == "cancel" and tasks:
                tasks[number % len(tasks)].cancel()
            else:
                await asyncio.sleep(0)
            assert 0 <= slots.in_flight <= 3
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for lane in held:
            lane.leave()
        assert (slots.in_flight, slots.waiting) == (0, 0)
        assert all(lane.in_flight == lane.waiting == 0 for lane in slots.lanes.values())

    asyncio.run(story())


# ---- the limit moves -------------------------------------------------------------------------


async def test_a_higher_limit_lets_in_those_who_wait(clock: Any) -> None:
    """At once, not when somebody leaves."""
    slots = Slots(Concurrency(min=1, max=100, initial=10, queue={"interval": 10}), clock)
    assert slots.limiter is not None
    fill(slots)
    waiting = asyncio.create_task(slots.lanes["critical"].wait("u"))
    await _turns()
    while slots.limit == 10:
        clock.advance(0.01)
        slots.limiter.answered(slots.limiter.generation, "/x", 0.01, 10)
    await waiting
    assert slots.in_flight == 11


def test_pressure_is_how_full_it_is() -> None:
    """With nobody waiting; and the waiting of the optional is no pressure."""
    slots = fixed(10)
    assert slots.pressure() == 0.0
    fill(slots, "optional")
    slots.waited("optional", 5.0)
    for _ in range(20):
        pressure = slots.pressure()
    assert pressure == pytest.approx(0.6, rel=0.01)


def test_a_full_moment_is_no_pressure_and_an_empty_one_is_none() -> None:
    """Chance fills an upstream of few slots by half for a moment; a rush that is over is over at once."""
    slots = fixed(10)
    fill(slots)
    assert slots.pressure() < 0.5
    for _ in range(20):
        slots.pressure()
    assert slots.pressure() > 0.9
    for _ in range(10):
        slots.lanes["critical"].leave()
    assert slots.pressure() == 0.0


async def test_a_short_wait_among_many_is_no_pressure() -> None:
    """One burst in a quiet quarter of a second must not move the ladder."""
    slots = fixed(100)
    for _ in range(50):
        slots.lanes["normal"].try_enter()
        slots.lanes["normal"].leave()
    slots.waited("normal", 0.02)
    assert slots.pressure() < 0.1


# ---- after a calm ----------------------------------------------------------------------------


def calm(clock: Any, size: int = 64) -> Slots:
    """A limit of 100, twenty of which are open: so far at most ten were in flight, each for 10 ms."""
    slots = Slots(Concurrency(queue={"interval": 0.01, "target": 0.001, "size": size}), clock)
    assert slots.limiter is not None
    while slots.limiter.open != 20:
        clock.advance(0.01)
        slots.limiter.answered(slots.limiter.generation, "/x", 0.01, 10)
    assert slots.limit == 100
    return slots


def test_what_is_not_open_is_for_the_critical_only(clock: Any) -> None:
    """The others find their share of what is."""
    slots = calm(clock)
    assert (fill(slots, "optional"), fill(slots, "normal"), fill(slots)) == (12, 5, 83)


async def test_a_slow_start_refuses_nobody(clock: Any) -> None:
    """Who has waited long enough is let in, by the limit; nobody knows that it is too high."""
    slots = calm(clock)
    fill(slots, "normal")
    waiting = [asyncio.create_task(slots.lanes["normal"].wait(str(n))) for n in range(100)]
    await asyncio.wait(waiting)
    assert sum(task.exception() is None for task in waiting) == 85 - 17
    assert slots.in_flight == 85


async def test_answers_without_a_queue_open_more(clock: Any) -> None:
    """To who waits for it, at once."""
    slots = calm(clock)
    assert slots.limiter is not None
    fill(slots, "normal")
    waiting = asyncio.create_task(slots.lanes["normal"].wait("u"))
    await _turns()
    for _ in range(20):  # so many of which have half as many again let in
        clock.advance(0.001)
        slots.limiter.answered(slots.limiter.generation, "/x", 0.01, 17)
    await waiting
    assert slots.in_flight == 18
    assert slots.limiter.open == 30


def test_where_nobody_may_wait_all_is_open(clock: Any) -> None:
    """A slow start makes one wait; it must not refuse."""
    assert fill(calm(clock, size=0), "normal") == 85
