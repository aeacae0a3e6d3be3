"""A queue so short that it may be chance: how long it may be, and how a limit moves while it is no longer.

A queue of about half the limit's square root keeps an upstream busy though requests come unevenly; one that
is longer only makes them wait, and an upstream that degrades slower. So the limit settles there, in small
steps up and down, as TCP Vegas keeps its queue between alpha and beta. By what an upstream's latency varies
at rest, it may be longer.
"""

from __future__ import annotations

import math
from typing import Final

QUEUE: Final = 0.5  # times the limit's square root: so many requests may stand in a queue
MOST: Final = 1.25  # bases; latency where the limit settles, at most
CREEP: Final = 0.1  # of a step at least, however near a queue is
EASED: Final = 0.75  # further down needs the evidence of a cut
EASED_FOR: Final = 10  # windows; a queue that is still there after so many is none
UNKNOWN_NOISE: Final = 0.1
_NEW: Final = 0.2  # share of the newest window in the noise


class ShortQueue:
    """Where a limit settles.

    Attributes:
        noise: by how much of the base the latency of a window differs at rest, on average.
    """

    __slots__ = ("_before", "_grown", "_windows", "noise")

    def __init__(self) -> None:
        self.noise = UNKNOWN_NOISE
        self._grown = 0  # windows in a row that the limit grew in
        self._before = 0.0  # the limit before it was let down; 0: it was not
        self._windows = 0  # since then, with a queue

    def at_rest(self, ratio: float) -> None:
        """The limit held nobody back, and a window's latency was so many bases."""
        self.noise += _NEW * (abs(ratio - 1) - self.noise)

    def target(self, limit: int) -> float:
        """The latency to settle at, in bases."""
        return min(MOST, 1 + max(QUEUE / math.sqrt(limit), 2 * self.noise))

    def grow(self, limit: float, room: float) -> float:
        """A higher limit; by further steps the longer it has been growing.

        Args:
            limit: so far.
            room: 1 where there is no queue, 0 at the target.
        """
        root = math.sqrt(limit)
        step = min(max(root, limit / 8), QUEUE * root * 2 ** max(0, self._grown - 1))
        self._grown = min(self._grown + 1, 10)
        limit += step * max(CREEP, room)
        if limit >= self._before:
            self._before = 0.0
        return limit

    def let_down(self, limit: float, excess: float) -> tuple[float, bool]:
        """A lower limit, by as much as latency is above the target.

        Returns:
            The limit, and whether the latency is to be believed: the limit has been lower for long, and that
            shortened no queue.
        """
        self._grown = 0
        if not self._before:
            self._before, self._windows = limit, 0
        self._windows += 1
        if self._windows > EASED_FOR:
            limit, self._before = self._before, 0.0
            return limit, True
        return max(limit / excess, self._before * EASED), False

    def over(self) -> None:
        """The limit moved for another reason."""
        self._before, self._grown = 0.0, 0
