"""Retries as a share of requests, so that they never multiply an outage."""

from __future__ import annotations

from typing import Final

from gateway.exchange import Clock

WINDOW: Final = 10.0  # seconds
FLOOR: Final = 3  # retries per window that are always free, so that a quiet upstream has some too


class RetryBudget:
    """At most FLOOR + share × requests retries in any sliding window.

    A share of 0 forbids retries altogether.
    """

    __slots__ = ("_clock", "_earlier", "_now", "_since", "share")

    def __init__(self, share: float, *, clock: Clock) -> None:
        self.share = share
        self._clock = clock
        self._since = clock()  # start of the current window
        self._now = [0, 0]  # requests, retries in the current window
        self._earlier = [0, 0]  # in the one before

    def request(self, now: float) -> None:
        """Count one request, not its retries; it comes `now` on the clock."""
        if now - self._since >= WINDOW:
            self._roll()
        self._now[0] += 1

    def try_retry(self) -> bool:
        """Take one retry, if the budget has one."""
        if self.share <= 0:
            return False
        age = self._clock() - self._since
        if age >= WINDOW:
            self._roll()
            age = self._clock() - self._since
        weight = 1 - age / WINDOW  # of the earlier window's counts
        requests = self._now[0] + weight * self._earlier[0]
        retries = self._now[1] + weight * self._earlier[1]
        if retries + 1 > FLOOR + self.share * requests:
            return False
        self._now[1] += 1
        return True

    def _roll(self) -> None:
        elapsed = self._clock() - self._since
        self._earlier = self._now if elapsed < 2 * WINDOW else [0, 0]
        self._now = [0, 0]
        self._since += elapsed // WINDOW * WINDOW
