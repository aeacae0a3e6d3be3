"""The last minutes, a point every few seconds, so that curves are there before somebody looks."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from gateway.admin import shapes
from gateway.exchange import Clock

STEP = 3.0  # seconds between two points, and no less
LENGTH = 60  # points: three minutes


class History:
    """Points, the newest last; the oldest go.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._points: deque[shapes.Point] = deque(maxlen=LENGTH)
        self._taken = float("-inf")

    @property
    def points(self) -> list[shapes.Point]:
        """All there are."""
        return list(self._points)

    def take(self, make: Callable[[], shapes.Point]) -> None:
        """Add a point, made now, unless the last one is too new."""
        now = self._clock()
        if now - self._taken >= STEP:
            self._taken = now
            self._points.append(make())
