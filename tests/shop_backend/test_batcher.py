"""Many callers, few calls: everyone gets the own answer, whoever leaves or fails."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from shop_backend.batcher import Batcher
from tests.clock import Clock
from tests.waiting import until


class Server:
    """Doubles numbers, when its gate is open; remembers what it was asked."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.broken_off: list[list[int]] = []
        self.gate = asyncio.Event()

    async def called(self, times: int) -> None:
        while len(self.calls) < times:  # noqa: ASYNC110 - it takes some turns of the loop, no time
            await asyncio.sleep(0)

    async def answer(self, questions: Sequence[int]) -> list[int | BaseException]:
        self.calls.append(list(questions))
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.broken_off.append(list(questions))
            raise
        if 1313 in questions:
            raise OSError("away")
        return [ValueError(str(q)) if q < 0 else q * 2 for q in questions]


async def test_what_comes_meanwhile_goes_together() -> None:
    """Those of one turn share a call, and those that come while it is under way share the next."""
    server = Server()
    batcher = Batcher(server.answer)
    first = [asyncio.create_task(batcher.ask(n)) for n in range(3)]
    await server.called(1)
    more = [asyncio.create_task(batcher.ask(n)) for n in range(3, 50)]
    await asyncio.sleep(0)
    server.gate.set()
    assert await asyncio.gather(*first, *more) == [n * 2 for n in range(50)]
    assert server.calls == [[0, 1, 2], list(range(3, 50))]


async def test_one_question_after_the_other() -> None:
    """Whoever asks in the very turn in which a call has ended is answered too."""
    server = Server()
    server.gate.set()
    batcher = Batcher(server.answer)
    for n in range(20):
        assert await batcher.ask(n) == n * 2


async def test_no_call_has_more_than_it_may() -> None:
    """A crowd is answered in parts."""
    server = Server()
    server.gate.set()
    batcher = Batcher(server.answer, at_most=20)
    assert await asyncio.gather(*(batcher.ask(n) for n in range(100, 150))) == [
        n * 2 for n in range(100, 150)
    ]
    assert [len(call) for call in server.calls] == [20, 20, 10]


async def test_a_failure_is_its_callers_only() -> None:
    """An answer that is an exception goes to who asked; a call that fails, to all that were in it."""
    server = Server()
    server.gate.set()
    batcher = Batcher(server.answer)
    good, bad = asyncio.create_task(batcher.ask(1)), asyncio.create_task(batcher.ask(-1))
    assert await good == 2
    with pytest.raises(ValueError, match="-1"):
        await bad
    for outcome in await asyncio.gather(*(batcher.ask(n) for n in (1313, 14)), return_exceptions=True):
        assert isinstance(outcome, OSError)
    assert await batcher.ask(15) == 30


async def test_whoever_leaves_takes_nobody_along() -> None:
    """A cancelled caller's question is not asked any more, or its answer is dropped; others get theirs."""
    server = Server()
    batcher = Batcher(server.answer)
    first = [asyncio.create_task(batcher.ask(n)) for n in range(2)]
    await server.called(1)
    later = [asyncio.create_task(batcher.ask(n)) for n in range(2, 5)]
    await asyncio.sleep(0)
    first[0].cancel()
    later[1].cancel()
    await asyncio.sleep(0)
    server.gate.set()
    assert await first[1] == 2
    assert [await later[0], await later[2]] == [4, 8]
    assert server.calls == [[0, 1], [2, 4]]


class SleepingClock(Clock):
    """Time that stands still until somebody sleeps it away, when `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []
        self.go = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await self.go.wait()
        self.advance(seconds)


async def test_calls_keep_their_distance() -> None:
    """The first is asked at once; those that come too soon after it wait, and go together."""
    server, clock = Server(), SleepingClock()
    server.gate.set()
    batcher = Batcher(server.answer, every=5.0, clock=clock, sleep=clock.sleep)
    assert await batcher.ask(1) == 2
    clock.advance(2)
    early = [asyncio.create_task(batcher.ask(2))]
    await until(lambda: clock.slept)
    early += [asyncio.create_task(batcher.ask(n)) for n in (3, 4, 5)]
    await asyncio.sleep(0)
    early[1].cancel()
    await asyncio.sleep(0)
    assert server.calls == [[1]]
    clock.go.set()
    assert await asyncio.gather(early[0], *early[2:]) == [4, 8, 10]
    assert server.calls == [[1], [2, 4, 5]]
    assert clock.slept == [3.0]


async def test_whoever_comes_seldom_waits_for_no_distance() -> None:
    """Nor does a batch that is full."""
    server, clock = Server(), SleepingClock()
    server.gate.set()
    batcher = Batcher(server.answer, at_most=3, every=5.0, clock=clock, sleep=clock.sleep)
    for n in range(3):
        assert await batcher.ask(n) == n * 2
        clock.advance(5)
    assert await asyncio.gather(*(batcher.ask(n) for n in range(6))) == [n * 2 for n in range(6)]
    assert clock.slept == []


async def test_what_only_reads_ends_with_the_last_who_waits() -> None:
    """And not before; what may change something is never broken off."""
    server = Server()
    reading, writing = Batcher(server.answer, reads=True), Batcher(server.answer)
    one, other, change = (
        asyncio.create_task(batcher.ask(number))
        for batcher, number in ((reading, 1), (reading, 2), (writing, 3))
    )
    await server.called(2)
    one.cancel()
    change.cancel()
    await asyncio.wait([one, change])
    await asyncio.sleep(0)
    assert server.broken_off == []
    other.cancel()
    await asyncio.wait([other])
    while not server.broken_off:  # noqa: ASYNC110 - it takes some turns of the loop, no time
        await asyncio.sleep(0)
    server.gate.set()
    assert await reading.ask(4) == 8, "the next is asked as ever"
    assert server.broken_off == [[1, 2]]
