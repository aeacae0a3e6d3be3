"""How long one turn of the event loop takes: the delay that the gateway itself adds to whatever it times."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

from gateway.exchange import Clock

EVERY = 0.05  # seconds between two measurements
_FADE = 0.8  # of the greatest one lives on at the next measurement
_SHARE = 0.3  # of the newest in the usual; a rush must not be long over when it shows


class LoopLag:
    """Times a turn of the running loop, again and again.

    Attributes:
        seconds: the longest turn of late, fading.
        usual: seconds of a turn, the mean of late.

    Args:
        tell: called after each measurement with both.
        clock: seconds, monotonic, finer than the loop's own.
    """

    def __init__(self, tell: Callable[[float, float], None], clock: Clock = time.perf_counter) -> None:
        self.seconds = self.usual = 0.0
        self._tell = tell
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._began = 0.0
        self._next: asyncio.Handle = self._loop.call_soon(self._turn_begins)

    def stop(self) -> None:
        """Measure no more."""
        self._next.cancel()

    def _wake(self) -> None:
        self._next = self._loop.call_soon(self._turn_begins)  # timers run at another point of the turn

    def _turn_begins(self) -> None:
        self._began = self._clock()
        self._next = self._loop.call_soon(self._turn_ends)

    def _turn_ends(self) -> None:
        turn = self._clock() - self._began
        self.seconds = max(turn, self.seconds * _FADE)
        self.usual += _SHARE * (turn - self.usual)
        self._next = self._loop.call_later(EVERY, self._wake)
        self._tell(self.seconds, self.usual)
