"""Coroutines driven without a task, and what becomes of them when they need one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from gateway.walk import Waiter, Walk, in_task

Ending = tuple[Any, BaseException | None]


class Bench:
    """Walks of a test and how they ended."""

    def __init__(self) -> None:
        self.endings: list[Ending] = []
        self.done = asyncio.Event()

    def begin(self, coroutine: Coroutine[Any, Any, Any]) -> Walk[Any]:
        walk = Walk(coroutine, asyncio.get_running_loop(), self.ended)
        walk.resume()
        return walk

    def ended(self, result: Any, error: BaseException | None) -> None:
        self.endings.append((result, error))
        self.done.set()

    async def the_end(self) -> Ending:
        await asyncio.wait_for(self.done.wait(), 60)
        assert len(self.endings) == 1
        return self.endings[0]


async def test_what_waits_for_nothing_ends_at_once() -> None:
    """Its result is there when `resume` returns."""
    bench = Bench()

    async def quick() -> int:
        return 7

    bench.begin(quick())
    assert bench.endings == [(7, None)]


async def test_it_goes_on_where_it_is_woken_without_a_task() -> None:
    """As often as it waits, and the error that ends it is told."""
    bench, waiter, tasks = Bench(), Waiter(), []

    async def patient() -> None:
        for _ in range(3):
            tasks.append(asyncio.current_task())
            await waiter
        raise ValueError("over")

    here = asyncio.current_task()
    bench.begin(patient())
    for _ in range(3):
        assert not bench.endings
        waiter.wake()
    assert tasks == [here] * 3  # it ran in ours
    assert isinstance(bench.endings[0][1], ValueError)
    waiter.wake()  # nobody waits: nothing happens
    assert len(bench.endings) == 1


async def test_a_future_takes_it_into_a_task() -> None:
    """From there on waiters, futures and time-outs all work."""
    bench, waiter = Bench(), Waiter()
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    waiting = asyncio.Event()

    async def mixed() -> int:
        number = await future
        async with asyncio.timeout(60):
            waiting.set()
            await waiter
        return number

    bench.begin(mixed())
    future.set_result(3)
    await waiting.wait()
    waiter.wake()
    assert await bench.the_end() == (3, None)


async def test_code_that_needs_a_task_gets_one() -> None:
    """`asyncio.timeout` works after `in_task`, which in a task does nothing."""
    bench = Bench()

    async def timed() -> str:
        await in_task()
        await in_task()
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
        return "never"

    bench.begin(timed())
    assert isinstance((await bench.the_end())[1], TimeoutError)


@pytest.mark.parametrize("in_a_task", [False, True])
@pytest.mark.parametrize("turns", [0, 1, 3])
async def test_cancelled_it_cleans_up_once(in_a_task: bool, turns: int) -> None:
    """Whether it waits by itself, or in a task that has or has not taken its first step."""
    bench, waiter, cleaned = Bench(), Waiter(), []

    async def holding() -> None:
        try:
            if in_a_task:
                await asyncio.get_running_loop().create_future()
            await waiter
        finally:
            cleaned.append(1)

    walk = bench.begin(holding())
    for _ in range(turns):
        await asyncio.sleep(0)
    walk.cancel()
    assert isinstance((await bench.the_end())[1], asyncio.CancelledError)
    assert cleaned == [1]


@pytest.mark.parametrize("turns", [0, 1, 3])
async def test_what_it_waited_for_is_cancelled_with_it(turns: int) -> None:
    """As by any task, whether or not that has taken its first step: who would set the future looks first."""
    bench = Bench()
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def waiting() -> None:
        await future

    walk = bench.begin(waiting())
    for _ in range(turns):
        await asyncio.sleep(0)
    walk.cancel()
    walk.cancel()
    assert isinstance((await bench.the_end())[1], asyncio.CancelledError)
    assert future.cancelled()


async def test_from_inside_it_cannot_be_cancelled() -> None:
    """Whoever cuts a connection off in the middle of an answer goes on with it."""
    bench = Bench()
    walks: list[Walk[Any]] = []

    def inside(task: bool) -> Callable[[], Coroutine[Any, Any, str]]:
        async def run() -> str:
            if task:
                await asyncio.sleep(0)
                walks[-1].cancel()
            elif walks:
                walks[-1].cancel()
            return "whole"

        return run

    walk = Walk(inside(task=False)(), asyncio.get_running_loop(), bench.ended)
    walks.append(walk)
    walk.resume()
    assert bench.endings == [("whole", None)]
    bench = Bench()
    walk = Walk(inside(task=True)(), asyncio.get_running_loop(), bench.ended)
    walks.append(walk)
    walk.resume()
    assert await bench.the_end() == ("whole", None)


async def test_one_within_another() -> None:
    """A walk begun by another's code leaves that one as it was."""
    bench, outer_waiter, inner_waiter = Bench(), Waiter(), Waiter()
    order: list[str] = []

    async def inner() -> None:
        await inner_waiter
        order.append("inner")

    async def outer() -> None:
        bench.begin(inner())
        await outer_waiter
        order.append("outer")

    bench.begin(outer())
    outer_waiter.wake()
    inner_waiter.wake()
    assert order == ["outer", "inner"]
    assert bench.endings == [(None, None), (None, None)]
