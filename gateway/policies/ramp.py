"""How traffic comes back to an upstream that has just been found well."""

from __future__ import annotations

import math

START = 16  # requests that may be in flight when it begins, one page's worth; a crowd may not
DOUBLES = 0.5  # seconds in which that number doubles


class Ramp:
    """Whoever comes one after the other passes; a crowd is let in by and by.

    Attributes:
        in_flight: requests that were let in and have not ended.
        began: when it began; long ago for one that never did.

    Args:
        seconds: after which everyone passes.
    """

    __slots__ = ("_seconds", "began", "in_flight")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.began = -math.inf
        self.in_flight = 0

    def over(self, now: float) -> bool:
        """Whether everyone passes."""
        return now - self.began >= self._seconds

    def admits(self, now: float) -> bool:
        """Let one in, or not."""
        if self.in_flight >= START * 2.0 ** ((now - self.began) / DOUBLES):
            return False
        self.in_flight += 1
        return True
