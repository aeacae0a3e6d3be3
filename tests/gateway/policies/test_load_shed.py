"""What the policy does with slots and answers: it takes and returns the one, and learns from the other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.config import Concurrency
from gateway.errors import Overloaded, UpstreamError, UpstreamTimeout
from gateway.exchange import ClientGone, Exchange, Handler, Reply, compose
from gateway.policies.load_shed import LoadShed
from gateway.policies.slots import Slots
from gateway.request_body import AHEAD, pieces

Make = Callable[..., Exchange]


def fixed(limit: int, **settings: Any) -> Slots:
    return Slots(Concurrency(min=limit, max=limit, **settings))


async def _ok(_: Exchange) -> Reply:
    return Reply(200, [])


async def test_a_refusal_takes_no_slot(exchange: Make) -> None:
    """503 with a time to come back; the slot in use stays in use."""
    slots = fixed(1, queue={"size": 0})
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


async def test_one_who_waits_is_served_when_a_slot_comes_back(exchange: Make) -> None:
    """The queue is part of the policy: nobody above has to know of it."""
    slots = fixed(1, queue={"interval": 10})
    chain = compose(LoadShed(slots, "normal"), then=_ok)
    first, second = exchange(), exchange()
    await chain(first)
    waiting = asyncio.ensure_future(chain(second))
    await asyncio.sleep(0)
    assert slots.waiting == 1
    first.finish()
    assert (await waiting).status == 200
    second.finish()
    assert (slots.in_flight, slots.waiting) == (0, 0)


@pytest.mark.parametrize("error", [None, ValueError(), ClientGone(), TimeoutError(), Overloaded("inner")])
async def test_a_slot_comes_back_exactly_once(exchange: Make, error: Exception | None) -> None:
    """At the end of the exchange, not of the call: the body may still be flowing."""
    slots = fixed(10)

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
    """A thousand requests cancelled at any step, half of them while they wait, leave an empty gate."""
    slots = fixed(500, queue={"size": 1000, "interval": 10, "target": 10})

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
    for task in tasks[::4]:
        task.cancel()
    await asyncio.sleep(0)  # those that were not cancelled are inside, or wait, by now
    assert (slots.in_flight, slots.waiting) == (500, 250)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (slots.in_flight, slots.waiting) == (0, 0)


class Ear:
    """A limiter that only listens."""

    def __init__(self) -> None:
        self.generation = 7
        self.heard: list[Any] = []

    def answered(self, generation: int, route: str, seconds: float, in_flight: int) -> None:
        self.heard.append((generation, route, seconds, in_flight))

    def failed(self, generation: int, in_flight: int) -> None:
        self.heard.append((generation, "failed", in_flight))


class Gate:
    """Open slots, with an ear."""

    def __init__(self) -> None:
        self.slots = fixed(10)
        self.lanes = self.slots.lanes
        self.limiter = Ear()

    @property
    def in_flight(self) -> int:
        return self.slots.in_flight

    def try_upload(self) -> bool:
        return self.slots.try_upload()

    def uploaded(self) -> None:
        self.slots.uploaded()


async def _listen(asked: Exchange, answer: Reply | BaseException, seconds: float | None) -> list[Any]:
    gate = Gate()

    async def upstream(_: Exchange) -> Reply:
        gate.limiter.generation = 8  # the limit changed meanwhile; what counts is when it was admitted
        asked.upstream_seconds = seconds
        if isinstance(answer, BaseException):
            raise answer
        return answer

    try:
        await compose(LoadShed(gate, "normal"), then=upstream)(asked)
    except type(answer):
        pass
    finally:
        asked.finish()
    assert gate.in_flight == 0
    return gate.limiter.heard


async def test_an_answer_tells_its_latency(exchange: Make) -> None:
    """With its route and the limit under which it was admitted."""
    asked = exchange()
    asked.route = "/x"
    assert await _listen(asked, Reply(404, []), 0.02) == [(7, "/x", 0.02, 1)]


@pytest.mark.parametrize(
    "answer", [Reply(500, []), Reply(503, []), UpstreamTimeout("too slow"), UpstreamError("broke off")]
)
async def test_failures_are_drops(exchange: Make, answer: Any) -> None:
    """Their latency says nothing: errors come fast, and timeouts when the clock says so."""
    assert await _listen(exchange(), answer, 0.001) == [(7, "failed", 1)]


@pytest.mark.parametrize(
    "answer",
    [Reply(200, []), Overloaded("inner"), ClientGone(), ValueError("ours"), asyncio.CancelledError()],
    ids=["cached", "shed", "client gone", "our defect", "cancelled"],
)
async def test_what_is_not_the_upstreams_is_left_out(exchange: Make, answer: Any) -> None:
    """Answers that it was not asked for, and ends that are not its own."""
    assert await _listen(exchange(), answer, None) == []


@pytest.mark.parametrize(("length", "told"), [(None, 0), (1 << 20, 0), (100, 1), (0, 1)])
async def test_an_upload_goes_at_the_clients_speed(exchange: Make, length: int | None, told: int) -> None:
    """While a long body streams, the time to the answer is the client's; short ones are read first."""
    asked = exchange("POST")
    asked.has_body, asked.content_length = True, length

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"x" * (1 << 20 if length is None else length)}

    asked.receive = receive
    assert len(await _listen(asked, Reply(200, []), 0.5)) == told


@pytest.mark.parametrize("length", [5, None])
async def test_a_slow_sender_holds_no_slot(exchange: Make, length: int | None) -> None:
    """A few clients that send a byte and no more must not shut out all others."""
    slots = fixed(1, queue={"size": 0})
    sent = asyncio.Event()
    bodies: list[bytes] = []

    async def receive() -> dict[str, Any]:
        await sent.wait()
        return {"type": "http.request", "body": b"hello"}

    async def upstream(asked: Exchange) -> Reply:
        if asked.has_body:
            bodies.append(b"".join([piece async for piece in pieces(asked)]))
        return Reply(200, [])

    slow, other = exchange("POST"), exchange()
    slow.has_body, slow.content_length, slow.receive = True, length, receive
    chain = compose(LoadShed(slots, "critical"), then=upstream)
    waiting = asyncio.ensure_future(chain(slow))
    await asyncio.sleep(0)
    assert (await chain(other)).status == 200
    other.finish()
    sent.set()
    assert (await waiting).status == 200
    assert (slots.in_flight, bodies, slow.content_length) == (1, [b"hello"], 5)
    slow.finish()
    assert slots.in_flight == 0


async def test_large_bodies_under_way_hold_half_of_the_slots_at_most(exchange: Make) -> None:
    """Their clients may be as slow as they like; each counts until its body has come, or the client left."""
    slots = fixed(4, queue={"size": 0})

    def large() -> Exchange:
        left = [b"x" * AHEAD, b"x", b"x"]

        async def receive() -> dict[str, Any]:
            piece = left.pop(0)
            return {"type": "http.request", "body": piece, "more_body": bool(left)}

        asked = exchange("POST")
        asked.has_body, asked.receive = True, receive
        return asked

    chain = compose(LoadShed(slots, "critical"), then=_ok)
    first, second, third, fourth = large(), large(), large(), large()
    await chain(first)
    await chain(second)
    with pytest.raises(Overloaded, match="large bodies"):
        await chain(third)
    third.finish()
    plain = exchange()
    await chain(plain)
    assert (slots.in_flight, slots.uploads) == (3, 2)
    assert len(b"".join([piece async for piece in pieces(first)])) == AHEAD + 2  # it has come
    await chain(fourth)
    assert (slots.in_flight, slots.uploads) == (4, 2)
    for asked in (first, second, fourth, plain):
        asked.finish()
        asked.finish()
    assert (slots.in_flight, slots.uploads) == (0, 0)
