"""The algorithms once more, in exact arithmetic and from first principles: a list of every hit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction

from gateway.exchange import Hit


@dataclass
class Reference:
    """One limit of one key. Times are whole microseconds."""

    hit: Hit
    hits: list[int] = field(default_factory=list)
    arrival: Fraction = Fraction(0)  # theoretical, of the next cell (ITU-T I.371, A.1)

    @property
    def window(self) -> int:
        return round(self.hit.window * 1_000_000)

    def room(self, now: int) -> Fraction:
        window, capacity = self.window, self.hit.capacity
        if self.hit.algorithm == "token-bucket":
            interval = Fraction(window, capacity)
            return (now + window - max(self.arrival, Fraction(now))) / interval
        index = now // window
        current = sum(at // window == index for at in self.hits)
        if self.hit.algorithm == "fixed-window":
            return Fraction(capacity - current)
        before = [at for at in self.hits if at // window == index - 1]
        if not before or max(before) <= now - window:
            return Fraction(capacity - current)
        return capacity - current - len(before) * Fraction(window - now % window, window)

    def charge(self, now: int) -> None:
        self.hits.append(now)
        self.arrival = max(self.arrival, Fraction(now)) + Fraction(self.window, self.hit.capacity)

    def remaining(self, now: int) -> int:
        return max(0, math.floor(self.room(now)))


def judge(now: int, limits: list[Reference]) -> list[tuple[bool, int]]:
    """All or nothing: (had room, tokens left) of each."""
    allowed = [limit.room(now) >= 1 for limit in limits]
    if all(room or limit.hit.shadow for room, limit in zip(allowed, limits, strict=True)):
        for room, limit in zip(allowed, limits, strict=True):
            if room:
                limit.charge(now)
    return [(room, limit.remaining(now)) for room, limit in zip(allowed, limits, strict=True)]
