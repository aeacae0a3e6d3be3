"""One call for many callers: a server that is asked once a moment has less to do than one asked by each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Batcher(Generic[Q, A]):
    """Collects questions while others are being answered, and asks them together.

    A caller that is alone waits no longer than without. One that is cancelled takes nothing with it: the
    others get their answers, and so does the server its question, once that is under way; unless questions
    only read: then a call that nobody waits for any more is cancelled.

    Args:
        answer: the answers to some questions, in their order; one that is an exception is raised to its
            caller, one that `answer` raises to all of them.
        at_most: questions in one call.
        lanes: calls under way at once: more, and each is for fewer questions.
        reads: questions change nothing, so a call may be cancelled when all its callers have left.
    """

    def __init__(
        self,
        answer: Callable[[Sequence[Q]], Awaitable[Sequence[A | BaseException]]],
        *,
        at_most: int = 100,
        lanes: int = 1,
        reads: bool = False,
    ) -> None:
        self._answer = answer
        self._at_most = at_most
        self._lanes = lanes
        self._reads = reads
        self._waiting: list[tuple[Q, asyncio.Future[A]]] = []
        self._busy = 0  # lanes; counted apart from the tasks, which end a turn later than their work
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, question: Q) -> A:
        """The answer to one question."""
        future: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._busy < self._lanes:
            self._busy += 1
            # It begins in the loop's next turn: what comes in this one goes with it.
            # In a context of its own: it is no part of the request that happened to come first.
            task = asyncio.create_task(self._work(), context=Context())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        return await future

    async def _work(self) -> None:
        try:
            while self._waiting:
                batch, self._waiting = self._waiting[: self._at_most], self._waiting[self._at_most :]
                # Nobody waits for the others any more.
                if batch := [each for each in batch if not each[1].done()]:
                    await self._settle(batch)
        finally:
            self._busy -= 1

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
