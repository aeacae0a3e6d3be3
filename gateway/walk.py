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
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")
Steps = Generator[Any, None, None]


class _Stage:
    """Who is on.

    Attributes:
        walk: the walk whose coroutine runs just now, unless a task runs it.
    """

    __slots__ = ("walk",)

    def __init__(self) -> None:
        self.walk: Walk[Any] | None = None


_STAGE: Final = _Stage()


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
        walk = _STAGE.walk
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
        if _STAGE.walk is not None:
            yield


async def in_task() -> None:
    """Go on in a task; at once when there is one."""
    await _InTask()


class _Ended:
    """What a walk hands out at its end: a StopIteration would cost as much as a policy."""

    __slots__ = ()


_ENDED: Final = _Ended()


class Walk(Generic[T]):
    """One coroutine on its way.

    Args:
        coroutine: not begun yet.
        loop: on which all of it happens.
        ended: told how it ended, once: the result, or the exception in its place.
    """

    __slots__ = ("_carried_on", "_ended", "_error", "_loop", "_result", "_steps", "_task")

    def __init__(
        self,
        coroutine: Coroutine[Any, Any, T],
        loop: asyncio.AbstractEventLoop,
        ended: Callable[[T | None, BaseException | None], None],
    ) -> None:
        self._loop = loop
        self._ended = ended
        self._result: T | None = None
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self._carried_on: _Carried | None = None
        self._steps: Steps = self._walk(coroutine)

    def _walk(self, coroutine: Coroutine[Any, Any, T]) -> Steps:
        try:
            self._result = yield from coroutine.__await__()
        except GeneratorExit:
            raise
        except BaseException as error:  # noqa: BLE001 - handed on
            self._error = error
        yield _ENDED

    def resume(self) -> None:
        """Begin, or go on, as far as it goes."""
        self._go_on(None)

    def cancel(self) -> None:
        """Once begun, have it end with a CancelledError where it waits; from inside, nothing happens."""
        if self._task is None:
            if _STAGE.walk is not self:
                self._cancel()
        elif asyncio.current_task(self._loop) is not self._task and not (
            self._carried_on is not None and self._carried_on.cancel()
        ):
            self._task.cancel()

    def _cancel(self) -> None:
        self._go_on(asyncio.CancelledError())

    def _go_on(self, error: BaseException | None) -> None:
        outer, _STAGE.walk = _STAGE.walk, self
        try:
            waits_for = self._steps.send(None) if error is None else self._steps.throw(error)
        finally:
            _STAGE.walk = outer
        if type(waits_for) is not Waiter:
            self._came(waits_for)

    def _came(self, waits_for: Any) -> None:  # noqa: ANN401 - whatever asyncio's tasks take
        """It ended, or awaits what no walk can wait for: it goes on in a task."""
        if waits_for is _ENDED:
            result, error = self._result, self._error
            self._result = self._error = None
            self._ended(result, error)
        else:
            self._carried_on = _Carried(self._steps, waits_for)
            self._task = self._loop.create_task(self._carry_on(self._carried_on))
            self._task.add_done_callback(self._carried)

    # ---- in a task ---------------------------------------------------------------------------

    async def _carry_on(self, carried: _Carried) -> None:
        await carried

    def _carried(self, _: asyncio.Task[None]) -> None:
        self._task = None
        if self._carried_on is not None and not self._carried_on.begun:
            self._cancel()  # cancelled before the task took its first step
        else:
            self._came(_ENDED)


class _Carried:
    """Steps that are taken already, as something to await: what they wait for is handed on.

    Attributes:
        begun: somebody awaits it.
    """

    __slots__ = ("_steps", "_waits_for", "begun")

    def __init__(self, steps: Steps, waits_for: Any) -> None:  # noqa: ANN401 - the same
        self._steps = steps
        self._waits_for = waits_for
        self.begun = False

    def cancel(self) -> bool:
        """Cancel what it waits for, as a task would; False when there is one by now, or nothing to cancel."""
        return not self.begun and self._waits_for is not None and bool(self._waits_for.cancel())

    def __await__(self) -> Generator[Any, None, None]:
        self.begun = True
        steps, waits_for = self._steps, self._waits_for
        while waits_for is not _ENDED:
            try:
                yield waits_for
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as error:  # noqa: BLE001 - theirs to handle
                waits_for = steps.throw(error)
            else:
                waits_for = steps.send(None)
