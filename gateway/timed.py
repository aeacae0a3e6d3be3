"""A connection that waits for nobody for ever."""

from __future__ import annotations

import asyncio
import math
from abc import abstractmethod


class Timed:
    """What is due by when.

    One timer outlives many requests: it looks at the deadlines of the moment when it fires.

    Attributes:
        loop: whose clock it is, in seconds.
        read_by: when the peer must have brought what is due; infinity: nothing is.
        write_by: when it must have taken what waits for it.
        timer_at: when somebody looks next; whoever sets an earlier deadline calls `arm`.

    Args:
        loop: the connection's.
        rhythm: seconds between two looks while nothing is due; no deadline set meanwhile is nearer.
    """

    __slots__ = ("_rhythm", "_timer", "loop", "read_by", "timer_at", "write_by")

    def __init__(self, loop: asyncio.AbstractEventLoop, rhythm: float) -> None:
        self.loop = loop
        self.read_by = math.inf
        self.timer_at = math.inf
        self.write_by = math.inf
        self._rhythm = rhythm
        self._timer: asyncio.TimerHandle | None = None

    def due(self, seconds: float) -> None:
        """The peer has so long to bring what comes next; without end when nothing is due."""
        self.read_by = self.loop.time() + seconds

    @abstractmethod
    def late(self, now: float) -> None:
        """`read_by` has passed, and holds no more."""

    @abstractmethod
    def abort(self) -> None:
        """`write_by` has passed."""

    def arm(self) -> None:
        """Have the timer fire by the next deadline."""
        at = min(self.read_by, self.write_by)
        if at < self.timer_at:
            self.disarm()
            self.timer_at = at
            self._timer = self.loop.call_at(at, self._tick)

    def disarm(self) -> None:
        """Nobody looks any more."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.timer_at = math.inf

    def _tick(self) -> None:
        self._timer = None
        self.timer_at = math.inf
        now = self.loop.time()
        if now >= self.write_by:
            self.abort()
            return
        if now >= self.read_by:
            self.read_by = math.inf
            self.late(now)
        if self.read_by == math.inf and self._timer is None:  # busy; the next deadline is set without a look
            self.timer_at = now + self._rhythm
            self._timer = self.loop.call_at(self.timer_at, self._tick)
        self.arm()
