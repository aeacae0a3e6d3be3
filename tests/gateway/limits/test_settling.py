"""Debts are charged once, whatever becomes of the call that charges them or of its answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
import redis

from gateway.exchange import ALGORITHMS, Hit
from gateway.state.limits import SharedLimits
from gateway.state.limits_batch import Debt
from gateway.state.limits_owed import Bill, Owed
from tests.gateway.limits.reference import hit_of, told
from tests.waiting import until

SECOND = 1_000_000  # microseconds
DEBTS = b'"debts":[['


class Door:
    """A door to Redis; the first call that charges debts, or its answer, is lost in it.

    Attributes:
        on_debts: called whenever debts pass.
        debts: how often they did.
        lost: how many were lost.
    """

    def __init__(self, url: str, *, arrives: bool, losing: bool = True) -> None:
        self._path = url.removeprefix("unix://").partition("?")[0]
        self._arrives = arrives
        self._loses = losing
        self.on_debts: Callable[[], object] = lambda: None
        self.debts = self.lost = 0

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass calls and answers on, one after the other: callers wait for each answer."""
        there_reader, there_writer = await asyncio.open_unix_connection(self._path)
        while data := await reader.read(1 << 20):
            if DEBTS in data:
                self.debts += 1
                self.on_debts()
            losing = self._loses and DEBTS in data and not self.lost
            self.lost += losing
            if not losing or self._arrives:
                there_writer.write(data)
                answer = await there_reader.read(1 << 20)
            if losing:
                break
            writer.write(answer)
        there_writer.close()
        writer.close()


async def admitted(limits: SharedLimits, hit: Hit, requests: int) -> int:
    """How many of so many requests pass."""
    passed = 0
    for _ in range(requests):
        verdict = limits.try_take([hit])
        if verdict is None or None in verdict:
            verdict = await limits.take([hit])
        passed += told(verdict)[0].allowed
    return passed


@contextlib.asynccontextmanager
async def through(door: Door) -> AsyncIterator[SharedLimits]:
    """Limits that reach Redis by a door; not started yet."""
    server = await asyncio.start_server(door.accept, "127.0.0.1", 0)
    async with server:
        address = server.sockets[0].getsockname()
        yield SharedLimits(f"redis://127.0.0.1:{address[1]}", timeout=5.0, prefix="test", workers=1)


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("arrives", [False, True], ids=["call lost", "answer lost"])
async def test_a_charge_that_fails_is_made_again_once(
    limits_url: str, algorithm: str, *, arrives: bool
) -> None:
    """What was admitted without Redis counts on its return: neither not at all, nor twice."""
    hit = hit_of("limit", "k", 100, 36_000.0, algorithm)
    door = Door(limits_url, arrives=arrives)
    async with through(door) as limits:
        before = await admitted(limits, hit, 40)
        try:
            await limits.start()
            await until(lambda: limits.up)
            after = await admitted(limits, hit, 150)
        finally:
            await limits.aclose()
    assert door.lost == 1
    assert (before, after) == (40, 60)


@pytest.mark.parametrize("loses", ["script_flush", "flushall"])
@pytest.mark.parametrize("arrives", [None, True], ids=["nothing lost", "answer lost"])
async def test_a_redis_that_forgets_is_charged(limits_url: str, loses: str, *, arrives: bool | None) -> None:
    """Its scripts, or all it had (an empty replica took over): what is owed counts once in what is left."""
    hit = hit_of("limit", "k", 100, 36_000.0)
    door = Door(limits_url, arrives=bool(arrives), losing=arrives is not None)
    async with through(door) as limits:
        before = await admitted(limits, hit, 40)
        try:
            with redis.Redis.from_url(limits_url) as client:
                door.on_debts = getattr(client, loses)
                await limits.start()
                await until(lambda: limits.up)
            after = await admitted(limits, hit, 150)
        finally:
            await limits.aclose()
    assert door.debts >= 1 + door.lost
    assert (before, after) == (40, 60)


@pytest.mark.parametrize("arrives", [None, False, True], ids=["nothing lost", "call lost", "answer lost"])
async def test_a_busy_worker_settles_too(limits_url: str, *, arrives: bool | None) -> None:
    """Where somebody asks whenever debts are charged, the charging ends; each is judged, and counts once."""
    hit = hit_of("limit", "k", 100, 36_000.0)
    door = Door(limits_url, arrives=bool(arrives), losing=arrives is not None)
    asked: list[asyncio.Task[int]] = []
    server = await asyncio.start_server(door.accept, "127.0.0.1", 0)
    async with server:
        address = server.sockets[0].getsockname()
        limits = SharedLimits(f"redis://127.0.0.1:{address[1]}", timeout=5.0, prefix="test", workers=1)
        before = await admitted(limits, hit, 40)
        door.on_debts = lambda: asked.append(asyncio.create_task(admitted(limits, hit, 1)))
        try:
            await limits.start()
            await until(lambda: limits.up)
            meanwhile = sum(await asyncio.gather(*asked))
            after = await admitted(limits, hit, 150)
        finally:
            await limits.aclose()
    assert door.debts <= 4
    assert meanwhile == len(asked)
    assert before + meanwhile + after == 100


def test_a_bill_grows_older_until_it_is_paid() -> None:
    """Debts of windows tell how long ago they were made; a bucket's count for one window."""
    window, bucket = hit_of("w", "k", 10, 1.0, "sliding-window"), hit_of("b", "k", 10, 1.0, "token-bucket")
    owed = Owed()
    for terms, key in (window, bucket):
        owed.add(terms, key, 5 * SECOND, 1)
    first = owed.bill(5 * SECOND, 100)
    again = owed.bill(5 * SECOND + SECOND // 2, 100)

    def debts(bill: Bill) -> dict[str, Debt]:
        return {terms.counter: (terms, key, taken) for terms, key, taken in bill.debts}

    assert first.number == again.number
    assert debts(again)[window[0].counter][2][0] == debts(first)[window[0].counter][2][0] + SECOND // 2
    assert debts(again)[bucket[0].counter][2] == [0, 1.0]
    assert [terms.counter for terms, _, _ in owed.bill(7 * SECOND, 100).debts] == [window[0].counter]
    owed.paid()
    assert not owed
