"""One request asks the upstream; those who want the same wait for its answer."""

from __future__ import annotations

import asyncio
import enum
from collections import deque

from gateway.errors import GatewayError
from gateway.policies.cache_key import Key
from gateway.walk import in_task


class Turn(enum.Enum):
    """What becomes of one who waited."""

    LOOK = "look again"
    LEAD = "ask"
    FAILED = "the one who asked failed"


class Flight:
    """One request on its way to the upstream, and those who wait for its answer, first come first."""

    __slots__ = ("_flights", "_key", "_queue", "error")

    def __init__(self, flights: dict[Key, Flight], key: Key) -> None:
        self._flights = flights
        self._key = key
        self._queue: deque[asyncio.Future[Turn]] = deque()
        self.error: GatewayError | None = None  # why it failed, when it did not answer at all
        flights[key] = self

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(not waiter.done() for waiter in self._queue)

    async def wait(self, patience: float) -> Turn:
        """Wait for the answer.

        Args:
            patience: seconds after which to go on alone.

        Raises:
            TimeoutError: nothing for so long.
        """
        mine: asyncio.Future[Turn] = asyncio.get_running_loop().create_future()
        self._queue.append(mine)  # before the task: the answer may be there when it begins
        try:
            await in_task()
            async with asyncio.timeout(patience):
                return await mine
        except BaseException:
            if mine.done() and not mine.cancelled() and mine.result() is Turn.LEAD:
                self.hand_over()  # chosen and gone in the same moment
            mine.cancel()
            raise

    def land(self) -> None:
        """The answer is there: all look again."""
        self._end(Turn.LOOK)

    def fail(self, error: GatewayError | None) -> None:
        """The upstream failed; it would fail all of them."""
        self.error = error
        self._end(Turn.FAILED)

    def hand_over(self) -> None:
        """The one who asks leaves; the next asks in its place."""
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(Turn.LEAD)
                return
        self._end(Turn.LOOK)

    def _end(self, turn: Turn) -> None:
        if self._flights.get(self._key) is self:
            del self._flights[self._key]
        while self._queue:
            waiter = self._queue.popleft()
            if not waiter.done():
                waiter.set_result(turn)
