"""How traffic comes back to an upstream that has just been found well."""

from __future__ import annotations

import math

START = 16  # requests that may be in flight from the start, one page's worth


class Ramp:
    """Whoever comes one after the other passes; of a crowd a share that grows linearly from none to all.

    Attributes:
        in_flight: requests that were let in and have not ended.
        began: when it began; long ago for one that never did.

    Args:
        seconds: after which everyone passes.
    """

    __slots__ = ("_credit", "_seconds", "began", "in_flight")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._credit = 0.0  # requests that the share has earned and that have not come
        self.began = -math.inf
        self.in_flight = 0

    def begin(self, now: float) -> None:
        """The upstream is well from now on."""
        self.began = now
        self._credit = 0.0

    def over(self, now: float) -> bool:
        """Whether everyone passes."""
        return now - self.began >= self._seconds

    def admits(self, now: float) -> bool:
        """Let one in, or not."""
        if self.in_flight >= START:
            self._credit += (now - self.began) / self._seconds
            if self._credit < 1.0:
                return False
            self._credit -= 1.0
        self.in_flight += 1
        return True
