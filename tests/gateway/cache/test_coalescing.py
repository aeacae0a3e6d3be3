"""One miss, one upstream call: who waits, who asks, and what happens when the one who asks is gone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import BadRequest, GatewayError, UpstreamError, UpstreamUnavailable
from gateway.exchange import Exchange, Reply
from gateway.policies.cache_flight import Flight, Turn
from gateway.policies.cache_key import Key
from tests.gateway.cache.bench import settle
from tests.gateway.walked import Walked
from tests.waiting import until

KEY: Key = (("shop", "http", b"h", b"/x"), (), ())


class Held:
    """An upstream whose answers come when told to."""

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.gates: list[asyncio.Future[None]] = []
        self.then = bench.answer
        bench.answer = self

    async def __call__(self, exchange: Exchange) -> Reply:
        gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.gates.append(gate)
        await gate
        reply: Reply = await self.then(exchange)
        return reply


async def test_a_thousand_misses_ask_once(bench: Callable[..., Any]) -> None:
    """Those who come while one asks get its answer."""
    b = bench()
    held = Held(b)
    tasks = [asyncio.create_task(b.get()) for _ in range(1000)]
    await settle()
    assert len(held.gates) == 1
    held.gates[0].set_result(None)

    replies = await asyncio.gather(*tasks)
    assert len(b.asked) == 1
    assert {reply.body for reply in replies} == {b"1"}
    assert sorted(set(b.counted)) == ["collapsed", "miss"]
    assert not b.store.flights


async def test_a_cancelled_leader_hands_over(bench: Callable[..., Any]) -> None:
    """The first who waits asks in its place; the others go on waiting."""
    b = bench()
    held = Held(b)
    tasks = [asyncio.create_task(b.get()) for _ in range(10)]
    await settle()
    for leader in range(3):
        tasks[leader].cancel()
        await settle()
    assert len(held.gates) == 4
    held.gates[-1].set_result(None)

    replies = await asyncio.gather(*tasks[3:])
    assert {reply.body for reply in replies} == {b"4"}
    assert not b.store.flights


async def test_an_heir_that_is_cancelled_in_the_same_moment_hands_on(bench: Callable[..., Any]) -> None:
    """Chosen and gone before it could run: the next one asks."""
    b = bench()
    held = Held(b)
    tasks = [asyncio.create_task(b.get()) for _ in range(4)]
    await settle()
    tasks[0].cancel()
    await asyncio.sleep(0)  # the leader hands over in this round of the loop; its heir has not run yet
    tasks[1].cancel()
    await settle()
    held.gates[-1].set_result(None)

    replies = await asyncio.gather(*tasks[2:])
    assert len({reply.body for reply in replies}) == 1


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize("forget", ["by a POST", "everything"])
async def test_what_changed_meanwhile_is_not_kept_as_it_was(
    kept: bool, forget: str, bench: Callable[..., Any], request_for: Callable[..., Exchange]
) -> None:
    """An answer asked for before the change is for those who came before it; the others get a new one."""
    b = bench()
    old = b.answer = b.says("cache-control: max-age=10", "etag: old", body=b"old")
    if kept:
        await b.get()
        b.clock.advance(11)
        b.answer = b.says("cache-control: max-age=10", "etag: old", status=304)
    held = Held(b)
    before = asyncio.create_task(b.get())
    await settle()
    b.clock.advance(0.1)
    if forget == "everything":
        b.store.clear()
    else:
        b.answer = old
        await b(request_for("POST"))
        b.answer = held
    b.clock.advance(0.1)
    after = [asyncio.create_task(b.get()) for _ in range(3)]
    await settle()
    assert len(held.gates) == 1
    held.gates.pop().set_result(None)
    await settle()
    held.then = b.says("cache-control: max-age=10", "etag: new", body=b"new")
    assert len(held.gates) == 1  # one asks for all again
    held.gates.pop().set_result(None)

    assert (await before).body == b"old"
    assert {reply.body for reply in await asyncio.gather(*after)} == {b"new"}
    assert (await b.get()).body == b"new"
    assert not b.store.flights


@pytest.mark.parametrize("word", ["no-store", "private, max-age=9", "no-cache"])
async def test_an_answer_not_to_be_kept_releases_all(word: str, bench: Callable[..., Any]) -> None:
    """Nobody gets another's private answer, and those who come next don't wait for one."""
    b = bench()
    b.answer = b.says(f"cache-control: {word}")
    held = Held(b)
    tasks = [asyncio.create_task(b.get()) for _ in range(5)]
    await settle()
    assert len(held.gates) == 1
    held.gates[0].set_result(None)
    await settle()
    assert len(held.gates) == 5
    late = asyncio.create_task(b.get())
    await settle()
    assert len(held.gates) == 6
    for gate in held.gates[1:]:
        gate.set_result(None)

    replies = await asyncio.gather(*tasks, late)
    assert len(b.asked) == 6
    assert len(replies) == 6


async def test_a_cookie_for_one_goes_to_one(bench: Callable[..., Any]) -> None:
    """An answer that sets a cookie is shared with nobody."""
    b = bench()
    b.answer = b.says("cache-control: public, max-age=9", "set-cookie: session=a")
    held = Held(b)
    tasks = [asyncio.create_task(b.get()) for _ in range(3)]
    await settle()
    held.gates[0].set_result(None)
    await settle()
    for gate in held.gates[1:]:
        gate.set_result(None)
    await asyncio.gather(*tasks)

    assert len(b.asked) == 3
    assert len(b.store) == 0


async def test_credentials_wait_with_the_others_but_share_only_what_is_public(
    bench: Callable[..., Any],
) -> None:
    """A shopper with a cookie waits with the others for what is public, and asks alone for what is not."""
    for word, calls in (("public, ", 1), ("", 2)):
        b = bench()
        b.answer = b.says(f"cache-control: {word}max-age=9")
        held = Held(b)
        tasks = [asyncio.create_task(b.get()), asyncio.create_task(b.get(cookie="session=1"))]
        await settle()
        assert len(held.gates) == 1
        held.gates[0].set_result(None)
        await settle()
        for gate in held.gates[1:]:
            gate.set_result(None)
        await asyncio.gather(*tasks)
        assert len(b.asked) == calls


@pytest.mark.parametrize("error", [UpstreamError("refused"), UpstreamUnavailable("open", retry_after=2.0)])
async def test_an_upstreams_failure_is_everybodys(error: GatewayError, bench: Callable[..., Any]) -> None:
    """A sick upstream is not asked again by each who waited; each raises an error of its own."""
    b = bench()

    async def fails(_: Exchange) -> Reply:
        raise error

    b.answer = fails
    held = Held(b)
    tasks = [asyncio.create_task(b.get()) for _ in range(5)]
    await settle()
    held.gates[0].set_result(None)
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert len(b.asked) == 1
    assert {type(result) for result in results} == {type(error)}
    assert len({id(result) for result in results}) == 5
    assert {result.retry_after for result in results} == {error.retry_after}  # type: ignore[union-attr]  # as above
    assert not b.store.flights


async def test_a_leaders_own_fault_is_its_own(bench: Callable[..., Any]) -> None:
    """A request that can't be sent says nothing about the others: the next one asks."""
    b = bench()
    good = b.answer

    async def answer(exchange: Exchange) -> Reply:
        if any(name == b"x-bad" for name, _ in exchange.headers):
            raise BadRequest("no")
        reply: Reply = await good(exchange)
        return reply

    b.answer = answer
    held = Held(b)
    tasks = [asyncio.create_task(b.get(x_bad="1")), *(asyncio.create_task(b.get()) for _ in range(3))]
    await settle()
    held.gates[0].set_result(None)
    await settle()
    held.gates[1].set_result(None)
    results = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(results[0], BadRequest)
    assert [result.body for result in results[1:]] == [b"2"] * 3  # type: ignore[union-attr]  # replies, as asserted


async def test_who_waits_too_long_goes_alone(bench: Callable[..., Any]) -> None:
    """Patience ends; the answer then comes from a call of one's own."""
    b = bench(wait=0.001)
    held = Held(b)
    leader = asyncio.create_task(b.get())
    await settle()
    waiter = asyncio.create_task(b.get())
    await until(lambda: len(held.gates) == 2)
    for gate in held.gates:
        gate.set_result(None)
    await asyncio.gather(leader, waiter)

    assert len(b.asked) == 2


# ---- bodies that stream ----------------------------------------------------------------------


class Body:
    """A stream that remembers whether it was given back."""

    def __init__(self, chunks: list[bytes], error: Exception | None = None) -> None:
        self.chunks, self.error, self.closed = chunks[::-1], error, False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self.chunks:
            return self.chunks.pop()
        if self.error is not None:
            raise self.error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


def streams(bench: Any, body: Body, *lines: str) -> None:
    async def answer(exchange: Exchange) -> Reply:
        reply: Reply = await bench.says("cache-control: max-age=9", *lines)(exchange)
        return Reply(200, reply.headers, stream=body)

    bench.answer = answer


async def drain(reply: Reply) -> bytes:
    assert reply.stream is not None
    return b"".join([chunk async for chunk in reply.stream])


async def test_a_small_stream_is_kept_whole(bench: Callable[..., Any]) -> None:
    """It is read to its end, given back and served from memory."""
    b, body = bench(max_body=10), Body([b"12345", b"67890"])
    streams(b, body)

    assert (await b.get()).body == b"1234567890"
    assert (await b.get()).body == b"1234567890"
    assert body.closed
    assert len(b.asked) == 1


@pytest.mark.parametrize("lines", [(), ("content-length: 11",)])
async def test_a_large_stream_passes_through(lines: tuple[str, ...], bench: Callable[..., Any]) -> None:
    """Beyond the cap not a byte is lost, and nothing is kept."""
    b, body = bench(max_body=10), Body([b"12345", b"67890", b"x"])
    streams(b, body, *lines)
    reply = await b.get()

    assert await drain(reply) == b"1234567890x"
    await reply.aclose()
    assert body.closed
    assert len(b.store) == 0


async def test_a_stream_that_breaks_off_stays_broken(bench: Callable[..., Any]) -> None:
    """The client gets what came, then the error that aborts its connection; nothing is kept."""
    b = bench()
    streams(b, Body([b"12345"], UpstreamError("gone")))
    reply = await b.get()

    with pytest.raises(UpstreamError):
        await drain(reply)
    assert len(b.store) == 0


async def test_a_client_that_leaves_while_the_body_is_read_gives_it_back(bench: Callable[..., Any]) -> None:
    """Cancelled in the middle of reading: the stream is closed, the next one asks."""
    b = bench()
    reading = asyncio.Event()

    class Endless(Body):
        async def __anext__(self) -> bytes:
            reading.set()
            await asyncio.get_running_loop().create_future()
            return b""

    body = Endless([])
    streams(b, body)
    task = asyncio.create_task(b.get())
    await reading.wait()
    b.answer = b.says("cache-control: max-age=9", body=b"second")
    waiter = asyncio.create_task(b.get())
    await settle()
    task.cancel()

    assert (await waiter).body == b"second"
    assert body.closed


# ---- flights by themselves -------------------------------------------------------------------


async def test_an_answer_that_comes_as_one_begins_to_wait_is_not_missed() -> None:
    """A request that finds somebody asking goes into a task to wait; the answer may be there by then."""
    flight = Flight({}, KEY)
    turns: list[Turn] = []

    async def one() -> None:
        turns.append(await flight.wait(30))

    waiter = Walked(one())
    flight.land()
    await asyncio.wait_for(waiter.end, 60)
    assert turns == [Turn.LOOK]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30), st.integers(2, 30))
def test_every_waiter_gets_its_turn(seed: int, size: int) -> None:
    """Cancelled in whatever order: at most one leads at a time, and nobody who stays is forgotten."""

    async def run() -> None:
        rng = random.Random(seed)
        flights: dict[Key, Flight] = {}
        flight = Flight(flights, KEY)
        leading = 0
        ends: list[Turn] = []

        async def one() -> None:
            nonlocal leading
            turn = await flight.wait(30)
            if turn is Turn.LEAD:
                leading += 1
                assert leading == 1
                try:
                    for _ in range(rng.randrange(3)):
                        await asyncio.sleep(0)
                    if rng.random() < 0.5:
                        flight.land()
                    else:
                        flight.hand_over()
                finally:
                    leading -= 1
            ends.append(turn)

        tasks = [asyncio.create_task(one()) for _ in range(rng.randrange(size))]
        await asyncio.sleep(0)
        walks = [Walked(one()) for _ in range(size - len(tasks))]
        flight.hand_over()
        for waiter in rng.sample([*walks, *tasks], rng.randrange(size)):
            for _ in range(rng.randrange(2)):
                await asyncio.sleep(0)
            if leading == 0:  # a leader's own cancellation is the policy's to handle
                waiter.cancel()
        waits = asyncio.gather(*(walk.end for walk in walks), *tasks, return_exceptions=True)
        results = await asyncio.wait_for(waits, 60)
        gone = sum(isinstance(result, asyncio.CancelledError) for result in results)
        assert len(ends) + gone == size
        assert KEY not in flights

    asyncio.run(run())
