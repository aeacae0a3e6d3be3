"""Drives the coroutine of one request: without a task while it only waits for an upstream, else in one.

A task and its futures cost as much as three policies, and what a proxy awaits is nearly always the same: the
upstream's answer, which the loop brings with nobody above it on the stack. So a walk begins where its request
was read, and goes on where its answer was read. As soon as it awaits anything else (a future, a time-out) it
goes on in a task, as any coroutine does. Code that needs a task by then, as `asyncio.timeout` does, awaits
`in_task` first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any, Generic, TypeVar

T = TypeVar("T")

_running: Walk[Any] | None = None  # the walk whose coroutine runs just now, unless a task runs it


class Waiter:
    """What one coroutine at a time waits for; may be waited for again and again.

    `wake` must be called by the event loop, with no other walk under way that would have to go on after it.
    """

    __slots__ = ("_future", "_walk")

    def __init__(self) -> None:
        self._walk: Walk[Any] | None = None
        self._future: asyncio.Future[None] | None = None

    def __await__(self) -> Generator[Any, None, None]:
        """Wait until woken."""
        walk = _running
        if walk is not None:
            self._walk = walk
            try:
                yield self
            finally:
                self._walk = None
        else:
            self._future = future = asyncio.get_running_loop().create_future()
            try:
                yield from future
            finally:
                self._future = None

    def wake(self) -> None:
        """Let whoever waits go on; nothing happens when nobody does."""
        walk = self._walk
        if walk is not None:
            self._walk = None
            walk.resume()
        elif self._future is not None and not self._future.done():
            self._future.set_result(None)


class _InTask:
    """What a walk hands out to be carried on in a task."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, None]:
        if _running is not None:
            yield


async def in_task() -> None:
    """Go on in a task; at once when there is one."""
    await _InTask()


class Walk(Generic[T]):
    """One coroutine on its way.

    Args:
        coroutine: not begun yet.
        loop: on which all of it happens.
        ended: told how it ended, once: the result, or the exception in its place.
    """

    __slots__ = ("_carried_on", "_coroutine", "_ended", "_loop", "_task")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, T],
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[T | None, BaseException | None], None],
    ) -> None:
        self._coroutine = coroutine
        self._loop = loop
        self._ended = ended
        self._task: asyncio.Task[T] | None = None
        self._carried_on: _Carried[T] | None = None

    def resume(self) -> None:
        """Begin, or go on, as far as it goes."""
        global _running
        outer, _running = _running, self
        try:
            waits_for = self._coroutine.send(None)
        except StopIteration as stop:
            _running = outer
            self._ended(stop.value, None)
        except BaseException as error:  # noqa: BLE001 - handed on
            _running = outer
            self._ended(None, error)
        else:
            _running = outer
            if type(waits_for) is not Waiter:
                self._go_on_in_task(waits_for)

    def cancel(self) -> None:
        """Have it end with a CancelledError where it waits; from inside of it, nothing happens."""
        if self._task is None:
            if _running is not self:
                self._throw(asyncio.CancelledError())
        elif asyncio.current_task(self._loop) is not self._task and not (
            self._carried_on is not None and self._carried_on.cancel()
        ):
            self._task.cancel()

    def _throw(self, error: BaseException) -> None:
        global _running
        outer, _running = _running, self
        try:
            waits_for = self._coroutine.throw(error)
        except StopIteration as stop:
            _running = outer
            self._ended(stop.value, None)
        except BaseException as raised:  # noqa: BLE001 - handed on
            _running = outer
            self._ended(None, raised)
        else:
            _running = outer
            if type(waits_for) is not Waiter:
                self._go_on_in_task(waits_for)

    # ---- in a task ---------------------------------------------------------------------------

    def _go_on_in_task(self, waits_for: Any) -> None:  # noqa: ANN401 - whatever asyncio's tasks take
        self._carried_on = _Carried(self._coroutine, waits_for)
        self._task = self._loop.create_task(self._carry_on(self._carried_on))
        self._task.add_done_callback(self._carried)

    async def _carry_on(self, carried: _Carried[T]) -> T:
        return await carried

    def _carried(self, task: asyncio.Task[T]) -> None:
        self._task = None
        if not task.cancelled():
            error = task.exception()
            self._ended(None if error is not None else task.result(), error)
        elif self._carried_on is not None and self._carried_on.begun:
            self._ended(None, asyncio.CancelledError())
        else:
            self._throw(asyncio.CancelledError())  # cancelled before the task took its first step


class _Carried(Generic[T]):
    """A coroutine that has begun, as something to await: what it awaits is handed on.

    Attributes:
        begun: somebody awaits it.
    """

    __slots__ = ("_coroutine", "_waits_for", "begun")

    def __init__(self, coroutine: Coroutine[Any, Any, T], waits_for: Any) -> None:  # noqa: ANN401 - the same
        self._coroutine = coroutine
        self._waits_for = waits_for
        self.begun = False

    def cancel(self) -> bool:
        """Cancel what it waits for, as a task would; False when there is one by now, or nothing to cancel."""
        return not self.begun and self._waits_for is not None and bool(self._waits_for.cancel())

    def __await__(self) -> Generator[Any, None, T]:
        self.begun = True
        coroutine, waits_for = self._coroutine, self._waits_for
        try:
            while True:
                try:
                    yield waits_for
                except GeneratorExit:
                    coroutine.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - its to handle
                    waits_for = coroutine.throw(error)
                else:
                    waits_for = coroutine.send(None)
        except StopIteration as stop:
            result: T = stop.value
            return result
