"""One call for many callers: a server that is asked once a moment has less to do than one asked by each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Batcher(Generic[Q, A]):
    """Collects questions while others are being answered, and asks them together.

    Who is alone waits no longer than without. One that is cancelled takes nothing with it: the others get
    their answers, and so does the server its question, once that is under way; unless questions only read:
    then a call that nobody waits for any more is cancelled.

    Args:
        answer: the answers to some questions, in their order; one that is an exception is raised to its
            caller, one that `answer` raises to all of them.
        at_most: questions in one call.
        every: seconds from the beginning of one call to the next, at least: many small calls cost more than
            a few large ones. Whoever comes more seldom does not notice.
        reads: questions change nothing, so a call may be cancelled when all its callers have left.
        clock: seconds, monotonic.
        sleep: for so many seconds.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Awaitable[Sequence[A | BaseException]]],
        *,
        at_most: int = 100,
        every: float = 0.0,
        reads: bool = False,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._answer = answer
        self._at_most = at_most
        self._every = every
        self._reads = reads
        self._clock = clock
        self._sleep = sleep
        self._next = float("-inf")  # when the next call may begin
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._busy = False  # apart from the task, which ends a turn later than its work
        self._task: asyncio.Task[None] | None = None

    async def ask(self, question: Q) -> A:
        """The answer to one question."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if not self._busy:
            self._busy = True
            # It begins in the loop's next turn: what comes in this one goes with it.
            # In a context of its own: it is no part of the request that happened to come first.
            self._task = asyncio.create_task(self._work(), context=Context())
        return await future

    async def _work(self) -> None:
        try:
            while self._waiting:
                if (pause := self._next - self._clock()) > 0 and len(self._waiting) < self._at_most:
                    await self._sleep(pause)
                self._next = self._clock() + self._every
                batch, self._waiting = self._waiting[: self._at_most], self._waiting[self._at_most :]
                # Nobody waits for the others any more.
                if batch := [each for each in batch if not each[1].done()]:
                    await self._settle(batch)
        finally:
            self._busy = False

    async def _settle(self, batch: Sequence[tuple[Q, asyncio.Future[A]]]) -> None:
        futures = [future for _, future in batch]
        asking = asyncio.ensure_future(self._answer([q for q, _ in batch]))  # noqa: RUF006 - awaited below

        def left(_: asyncio.Future[A]) -> None:
            if all(future.done() for future in futures):
                asking.cancel()  # does nothing when it is they who got their answers

        if self._reads:
            for future in futures:
                future.add_done_callback(left)
        try:
            await asyncio.wait([asking])
        finally:
            if not asking.done() or asking.cancelled():
                asking.cancel()
                for future in futures:
                    future.cancel()
        if asking.cancelled():
            return
        error = asking.exception()
        answers: Sequence[A | BaseException] = asking.result() if error is None else [error] * len(batch)
        for (_, future), answer in zip(batch, answers, strict=True):
            if future.done():
                continue
            if isinstance(answer, BaseException):
                future.set_exception(answer)
            else:
                future.set_result(answer)
