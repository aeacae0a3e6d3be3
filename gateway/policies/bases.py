"""What answers take without a queue: one base for each route of an upstream."""

from __future__ import annotations

import math
from typing import Final

FEW: Final = 20  # answers; a mean over so many is worth half of what is known
YOUNG: Final = 200  # answers; a base of fewer is still their mean
_NEW: Final = 0.2  # share of the newest window in what is usual
MOST_ROUTES: Final = 10_000  # patterns come from the config; a bound all the same


class Base:
    """One route's base, and its answers in this window.

    Attributes:
        seconds: without a queue; 0: not known yet.
        slow: seconds; an answer that takes longer stood in a queue, unless requests differ much.
        count: answers in this window.
        total: their seconds.
        squares: the sum of their squares.
        age: answers at rest that made the base, while they are few.
    """

    __slots__ = ("age", "count", "seconds", "slow", "squares", "total")

    def __init__(self) -> None:
        self.seconds = 0.0
        self.slow = math.inf
        self.count = 0
        self.age = 0
        self.total = self.squares = 0.0


class Bases:
    """The bases of all routes.

    Attributes:
        known: by the pattern of a route.
        seen: those with answers in this window.
        spread: seconds; the usual standard deviation of a route's answers without a queue.
    """

    __slots__ = ("known", "seen", "spread")

    def __init__(self) -> None:
        self.known: dict[str, Base] = {}
        self.seen: list[Base] = []
        self.spread = 0.0

    def know(self, route: str) -> Base:
        """A route that was not known before."""
        if len(self.known) >= MOST_ROUTES:
            self.seen.clear()  # they belong to routes that are forgotten now
            self.known.clear()
        base = self.known[route] = Base()
        return base

    def actual(self) -> float:
        """What the window's answers took together, in seconds."""
        return sum(base.total for base in self.seen)

    def expected(self) -> float:
        """What they would have taken without a queue, in seconds; above 0."""
        expected = 0.0
        for base in self.seen:
            if base.seconds <= 0.0:
                base.seconds = max(base.total / base.count, 1e-6)
            expected += base.count * base.seconds
        return expected

    def error(self, answers: int) -> float:
        """The standard error of what the window's answers took together, in seconds.

        A few quick answers know nothing of the slow: it is no less than usual.
        """
        return max(self._deviation, self.spread * math.sqrt(answers))

    def vary(self, answers: int) -> None:
        """There was no queue in this window: its answers differ as they usually do."""
        deviation = self._deviation / math.sqrt(answers)
        self.spread += (_NEW if self.spread else 1.0) * (deviation - self.spread)

    @property
    def _deviation(self) -> float:
        """How much answers differ within their routes, in seconds; that routes differ is known."""
        return math.sqrt(max(0.0, sum(base.squares - base.total**2 / base.count for base in self.seen)))

    def learn(self, weight: float, *, young: bool = False) -> None:
        """Move the bases towards the window's means, the less the fewer answers stand behind one.

        Args:
            weight: of a window of many answers.
            young: that few were at rest yet is a reason to move further.
        """
        for base in self.seen:
            share = weight * base.count / (base.count + FEW)
            if young and base.age < YOUNG:
                share = max(share, base.count / (base.age + base.count))
                base.age += base.count
            base.seconds = max(base.seconds + share * (base.total / base.count - base.seconds), 1e-6)

    def begin(self, tolerance: float, slack: float) -> None:
        """Start a window: from now on an answer is slow beyond so many bases, and so many seconds more."""
        for base in self.seen:
            base.count, base.total, base.squares = 0, 0.0, 0.0
            base.slow = tolerance * base.seconds + slack if base.seconds else math.inf
        self.seen.clear()
