"""How long a call may take, where the loop that makes it may be busy."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

GRACE = 5  # loop passes after a time-out in which an answer that already arrived is still read

T = TypeVar("T")


class CallTimeout:
    """Bounds calls.

    Args:
        seconds: for each.
    """

    __slots__ = ("seconds",)

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    async def __call__(self, call: Coroutine[Any, Any, T]) -> T:
        """The result of a call.

        Raises:
            TimeoutError: it took longer.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as limit:
            alarm: list[asyncio.Handle] = [loop.call_later(self.seconds, lambda: expire(GRACE))]

            def expire(passes: int) -> None:
                # A worker that was busy for longer than the time-out finds the answer waiting: read it first.
                if passes:
                    alarm[0] = loop.call_soon(expire, passes - 1)
                else:
                    limit.reschedule(loop.time())

            try:
                return await call
            finally:
                alarm[0].cancel()
