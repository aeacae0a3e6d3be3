"""The algorithms once more, in exact arithmetic and from first principles: a list of every hit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

from gateway.exchange import Hit, Terms


def hit_of(limit: str, key: str, capacity: int, window: float, *more: Any, **named: Any) -> Hit:
    """A hit with terms of its own."""
    return Hit(Terms(limit, capacity, window, *more, **named), key)


@dataclass
class Reference:
    """One limit of one key. Times are whole microseconds."""

    hit: Hit
    hits: list[int] = field(default_factory=list)
    arrival: Fraction = Fraction(0)  # theoretical, of the next cell (ITU-T I.371, A.1)

    @property
    def window(self) -> int:
        return round(self.hit.terms.window * 1_000_000)

    def room(self, now: int) -> Fraction:
        window, capacity = self.window, self.hit.terms.capacity
        if self.hit.terms.algorithm == "token-bucket":
            interval = Fraction(window, capacity)
            return (now + window - max(self.arrival, Fraction(now))) / interval
        index = now // window
        current = sum(at // window == index for at in self.hits)
        if self.hit.terms.algorithm == "fixed-window":
            return Fraction(capacity - current)
        before = [at for at in self.hits if at // window == index - 1]
        if not before or max(before) <= now - window:
            return Fraction(capacity - current)
        return capacity - current - len(before) * Fraction(window - now % window, window)

    def charge(self, now: int) -> None:
        terms = self.hit.terms
        self.hits.extend([now] * terms.cost)
        self.arrival = max(self.arrival, Fraction(now)) + Fraction(self.window * terms.cost, terms.capacity)

    def remaining(self, now: int) -> int:
        return max(0, math.floor(self.room(now)))


def judge(now: int, limits: list[Reference]) -> list[tuple[bool, int]]:
    """All or nothing: (had room, tokens left) of each."""
    allowed = [limit.room(now) >= limit.hit.terms.cost for limit in limits]
    if all(room or limit.hit.terms.shadow for room, limit in zip(allowed, limits, strict=True)):
        for room, limit in zip(allowed, limits, strict=True):
            if room:
                limit.charge(now)
    return [(room, limit.remaining(now)) for room, limit in zip(allowed, limits, strict=True)]
