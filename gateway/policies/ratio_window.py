"""Results of the last seconds, counted in buckets."""

from __future__ import annotations

import math
from typing import Final

BUCKETS: Final = 10  # the window forgets a tenth of itself at a time


class RatioWindow:
    """Requests, failures and slow answers of the last `seconds`.

    Attributes:
        total: requests; `failed` and `slow` are how many of them were so.
    """

    __slots__ = ("_counts", "_ends", "_epoch", "_width", "failed", "slow", "total")

    def __init__(self, seconds: float) -> None:
        self._width = seconds / BUCKETS
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._counts = [[0, 0, 0] for _ in range(BUCKETS)]
        self._epoch = -BUCKETS  # number of the newest bucket since the clock's zero
        self._ends = -math.inf  # when the newest bucket is full
        self.total = self.failed = self.slow = 0

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        """Count one result at `now`, seconds on a clock that never goes back."""
        if now >= self._ends:
            self._advance(now)
        bucket = self._counts[self._epoch % BUCKETS]
        bucket[0] += 1
        self.total += 1
        if failed:
            bucket[1] += 1
            self.failed += 1
        if slow:
            bucket[2] += 1
            self.slow += 1

    def forget(self, now: float) -> None:
        """Drop what is older than the window at `now`."""
        if now >= self._ends:
            self._advance(now)

    def _advance(self, now: float) -> None:
        epoch = int(now / self._width)
        for fresh in range(max(self._epoch, epoch - BUCKETS) + 1, epoch + 1):
            bucket = self._counts[fresh % BUCKETS]
            self.total -= bucket[0]
            self.failed -= bucket[1]
            self.slow -= bucket[2]
            bucket[:] = (0, 0, 0)
        self._epoch = max(epoch, self._epoch)
        self._ends = (self._epoch + 1) * self._width
