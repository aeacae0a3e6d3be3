"""The algorithms once more, in exact arithmetic and from first principles: a list of every hit."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

from gateway.exchange import Hit, Terms, Verdict


def hit_of(limit: str, key: str, capacity: int, window: float, *more: Any, **named: Any) -> Hit:
    """A hit with terms of its own."""
    return Terms(limit, capacity, window, *more, **named), key


class Told(NamedTuple):
    """A charge, by names. Times are microseconds."""

    allowed: bool
    remaining: int
    quota: int
    reset: int
    retry_after: int
    fallback: bool


def told(verdict: Verdict | None) -> list[Told]:
    """A verdict that is there, and in which every limit was asked."""
    assert verdict is not None, "it would wait"
    return [Told(*charge) for charge in verdict if charge is not None]


@dataclass
class Reference:
    """One limit of one key. Times are whole microseconds."""

    hit: Hit
    hits: list[int] = field(default_factory=list)
    arrival: Fraction = Fraction(0)  # theoretical, of the next cell (ITU-T I.371, A.1)

    @property
    def window(self) -> int:
        return round(self.hit[0].window * 1_000_000)

    def room(self, now: int) -> Fraction:
        window, capacity = self.window, self.hit[0].capacity
        if self.hit[0].algorithm == "token-bucket":
            interval = Fraction(window, capacity)
            return (now + window - max(self.arrival, Fraction(now))) / interval
        index = now // window
        # Debts may go beyond what it admits; they count up to that.
        current = min(capacity, sum(at // window == index for at in self.hits))
        if self.hit[0].algorithm == "fixed-window":
            return Fraction(capacity - current)
        before = [at for at in self.hits if at // window == index - 1]
        if not before or max(before) <= now - window:
            return Fraction(capacity - current)
        return capacity - current - min(capacity, len(before)) * Fraction(window - now % window, window)

    def charge(self, now: int) -> None:
        terms = self.hit[0]
        self.hits.extend([now] * terms.cost)
        self.arrival = max(self.arrival, Fraction(now)) + Fraction(self.window * terms.cost, terms.capacity)

    def owe(self, now: int, age: int, tokens: int) -> None:
        """Tokens that were taken elsewhere, `age` ago; of a bucket's, those that have not drained."""
        self.hits.extend([now - age] * tokens)
        arrival = max(self.arrival, Fraction(now)) + Fraction(self.window * tokens, self.hit[0].capacity)
        self.arrival = max(self.arrival, min(arrival, Fraction(now + self.window)))

    def remaining(self, now: int) -> int:
        return max(0, math.floor(self.room(now)))


def judge(now: int, limits: list[Reference]) -> list[tuple[bool, int]]:
    """All or nothing: (had room, tokens left) of each."""
    allowed = [limit.room(now) >= limit.hit[0].cost for limit in limits]
    if all(room or limit.hit[0].shadow for room, limit in zip(allowed, limits, strict=True)):
        for room, limit in zip(allowed, limits, strict=True):
            if room:
                limit.charge(now)
    return [(room, limit.remaining(now)) for room, limit in zip(allowed, limits, strict=True)]
