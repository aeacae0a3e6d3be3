"""Slots run out for the least important first, and each comes back exactly once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Overloaded
from gateway.exchange import ClientGone, Exchange, Handler, Reply, compose
from gateway.policies.load_shed import LoadShed, Slots

Make = Callable[..., Exchange]


async def _ok(_: Exchange) -> Reply:
    return Reply(200, [])


@pytest.mark.parametrize(("priority", "room"), [("optional", 60), ("normal", 85), ("critical", 100)])
def test_each_priority_has_its_share(priority: Any, room: int) -> None:
    """Of a hundred slots; those above always find the rest free."""
    slots = Slots(100)
    assert sum(slots.try_enter(priority) for _ in range(200)) == room
    assert slots.in_flight == room


@given(st.integers(1, 50), st.lists(st.sampled_from(["optional", "normal", "critical", "leave"])))
def test_it_never_holds_more_than_its_limit(limit: int, events: list[Any]) -> None:
    """In any order of coming and going; an empty gate admits every priority."""
    slots, inside = Slots(limit), 0
    for event in events:
        if event == "leave":
            if inside:
                slots.leave()
                inside -= 1
        else:
            entered = slots.try_enter(event)
            assert entered or inside > 0
            inside += entered
        assert slots.in_flight == inside <= limit


def test_a_gate_without_slots_is_a_mistake() -> None:
    """It would refuse everything."""
    with pytest.raises(ValueError, match="at least 1"):
        Slots(0)


async def test_a_refusal_takes_no_slot(exchange: Make) -> None:
    """503 at once, with a time to come back; the slot in use stays in use."""
    slots = Slots(1)
    chain = compose(LoadShed(slots, "normal"), then=_ok)
    busy = exchange()
    await chain(busy)
    late = exchange()
    with pytest.raises(Overloaded, match="normal") as refused:
        await chain(late)
    late.finish()
    assert (slots.in_flight, refused.value.retry_after, refused.value.outcome) == (1, 1.0, "shed")
    busy.finish()
    assert slots.in_flight == 0


@pytest.mark.parametrize("error", [None, ValueError(), ClientGone(), TimeoutError(), Overloaded("inner")])
async def test_a_slot_comes_back_exactly_once(exchange: Make, error: Exception | None) -> None:
    """At the end of the exchange, not of the call: the body may still be flowing."""
    slots = Slots(10)

    async def upstream(_: Exchange) -> Reply:
        if error is not None:
            raise error
        return Reply(200, [])

    asked = exchange()
    try:
        await compose(LoadShed(slots, "critical"), then=upstream)(asked)
    except type(error or Exception()):  # whatever it is, it passes through
        assert error is not None
    assert slots.in_flight == 1
    asked.finish()
    asked.finish()
    assert slots.in_flight == 0


async def test_cancelled_requests_give_their_slots_back(exchange: Make) -> None:
    """A thousand requests cancelled at any step leave an empty gate."""
    slots = Slots(1000)

    async def upstream(_: Exchange) -> Reply:
        await asyncio.get_running_loop().create_future()
        raise AssertionError

    chain: Handler = compose(LoadShed(slots, "critical"), then=upstream)

    async def serve() -> None:
        asked = exchange()
        try:
            await chain(asked)
        finally:
            asked.finish()

    tasks = [asyncio.create_task(serve()) for _ in range(1000)]
    for task in tasks[::2]:
        task.cancel()
    await asyncio.sleep(0)  # the other half is inside by now
    assert slots.in_flight == 500
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert slots.in_flight == 0
