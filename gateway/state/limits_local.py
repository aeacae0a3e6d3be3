# ruff: noqa: ARG002 - the counters share one shape; not each needs every argument
"""Limits counted in this process, in bounded memory; the algorithms are those of lua/take.lua.

Times are whole microseconds, as in Redis. Sources:

- sliding window: the weighted pair of fixed windows of Cloudflare's "How we built rate limiting capable of
  scaling to millions of domains" (2017). Two things are stricter or kinder here: the weighted part is never
  rounded down, so that a burst across a boundary gains nothing; and the window before weighs nothing once
  its last hit is more than a window old, so that "1/minute" is one a minute and not one every two.
- fixed window: windows aligned to the clock.
- token bucket: the generic cell rate algorithm in its continuous-state leaky bucket form (ITU-T I.371, A.1),
  which stays exact where a theoretical arrival time would need fractions of a microsecond.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Protocol

from gateway.exchange import Charge, Clock, Hit, Terms

MAX_KEYS = 100_000  # counters kept per worker; the longest unused go first


class Counter(Protocol):
    """State of one key. `room` comes first, then a charge and questions at that moment."""

    def room(self, now: int, capacity: int, window: int) -> float:
        """Make the state current; tokens left. Below a request's cost the limit is full."""

    def charge(self, cost: int, window: int) -> None:
        """Take tokens."""

    def reset(self, capacity: int, window: int) -> int:
        """Microseconds until the quota is whole again."""

    def wait(self, cost: int, capacity: int, window: int) -> int:
        """Microseconds until so many tokens may be had, when there are fewer."""


class _SlidingWindow:
    """Two fixed windows; the one before counts for as much of it as still overlaps the last `window`."""

    __slots__ = ("before", "before_last", "current", "elapsed", "index", "last")

    def __init__(self) -> None:
        self.index = self.current = self.before = 0
        self.last = self.before_last = self.elapsed = 0  # offsets into their windows

    def room(self, now: int, capacity: int, window: int) -> float:
        index, elapsed = divmod(now, window)
        if index > self.index:
            adjacent = index == self.index + 1
            self.before, self.before_last = (self.current, self.last) if adjacent else (0, 0)
            self.current = self.last = 0
        self.index = index
        self.elapsed = elapsed
        if elapsed >= self.before_last:
            return capacity - self.current
        return capacity - self.current - self.before * (window - elapsed) / window

    def charge(self, cost: int, window: int) -> None:
        self.current += cost
        if self.elapsed > self.last:
            self.last = self.elapsed

    def reset(self, capacity: int, window: int) -> int:
        if self.current:
            return window - self.elapsed + self.last
        return max(0, self.before_last - self.elapsed) if self.before else 0

    def wait(self, cost: int, capacity: int, window: int) -> int:
        free = capacity - self.current - cost
        if free >= 0:  # the window before is in the way
            return min(self.before_last, math.ceil(window - free * window / self.before)) - self.elapsed
        slid_out = math.ceil(window - (capacity - cost) * window / self.current)
        return window - self.elapsed + min(self.last, slid_out)


class _FixedWindow:
    """Hits since the clock last passed a multiple of the window."""

    __slots__ = ("current", "elapsed", "index")

    def __init__(self) -> None:
        self.index = self.current = self.elapsed = 0

    def room(self, now: int, capacity: int, window: int) -> float:
        index, self.elapsed = divmod(now, window)
        if index > self.index:
            self.current = 0
        self.index = index
        return capacity - self.current

    def charge(self, cost: int, window: int) -> None:
        self.current += cost

    def reset(self, capacity: int, window: int) -> int:
        return window - self.elapsed if self.current else 0

    def wait(self, cost: int, capacity: int, window: int) -> int:
        return window - self.elapsed


class _TokenBucket:
    """A debt of `window` per token taken, in token·microseconds, that drains by `capacity` a microsecond."""

    __slots__ = ("at", "debt")

    def __init__(self) -> None:
        self.debt = self.at = 0

    def room(self, now: int, capacity: int, window: int) -> float:
        self.debt = max(0, self.debt - max(0, now - self.at) * capacity)
        self.at = now
        return (capacity * window - self.debt) / window

    def charge(self, cost: int, window: int) -> None:
        self.debt += cost * window

    def reset(self, capacity: int, window: int) -> int:
        return math.ceil(self.debt / capacity)

    def wait(self, cost: int, capacity: int, window: int) -> int:
        return math.ceil((self.debt + cost * window - capacity * window) / capacity)


COUNTERS: dict[str, type[Counter]] = {
    "sliding-window": _SlidingWindow,
    "fixed-window": _FixedWindow,
    "token-bucket": _TokenBucket,
}


class LocalLimits:
    """A LimitStore of one worker: its share of every limit, all of a request's limits or none.

    Attributes:
        workers: how many share a limit; each admits capacity ÷ workers, and at least one request.
        up: always; there is nothing that could be away.
    """

    up = True

    def __init__(
        self, workers: int, clock: Clock = time.monotonic, *, fallback: bool = False, max_keys: int = MAX_KEYS
    ) -> None:
        self.workers = workers
        self._clock = clock
        self._fallback = fallback  # told in every charge: judged here since the store was away
        # Two generations: when the new one is full, the old one, unused since, is dropped. That costs a used
        # counter one look-up, where a strict order of use would cost each request a write.
        self._half = max(1, max_keys // 2)
        self._new: dict[str, Counter] = {}
        self._old: dict[str, Counter] = {}

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    async def start(self) -> None:
        """Nothing to open."""

    async def aclose(self) -> None:
        """Nothing to close."""

    async def take(self, hits: Sequence[Hit]) -> list[Charge]:
        """As `try_take`, which never has to wait here."""
        return self.judge(hits)

    def try_take(self, hits: Sequence[Hit]) -> list[Charge]:
        """Charge every limit at once, or none; shadow limits never refuse."""
        return self.judge(hits)

    def judge(self, hits: Sequence[Hit], *, refused: bool = False) -> list[Charge]:
        """As `try_take`; `refused` says that the request is refused anyway, so nothing is charged."""
        now = round(self._clock() * 1e6)
        judged: list[tuple[Counter, Terms, int, float]] = []
        for hit in hits:
            terms = hit.terms
            name = terms.counter + hit.key
            counter = self._new.get(name) or self._find(name, terms.algorithm)
            quota = terms.capacity // self.workers
            if quota < terms.cost:
                quota = terms.cost
            room = counter.room(now, quota, terms.microseconds)
            if room < terms.cost and not terms.shadow:
                refused = True
            judged.append((counter, terms, quota, room))
        charges = []
        for counter, terms, quota, room in judged:
            cost, window = terms.cost, terms.microseconds
            if room >= cost:
                if not refused:
                    counter.charge(cost, window)
                    room -= cost
                reset = counter.reset(quota, window) / 1e6
                charges.append(Charge(True, int(room), quota, reset, 0.0, self._fallback))
            else:
                left, reset = max(0, int(room)), max(0, counter.reset(quota, window)) / 1e6
                wait = max(1, counter.wait(cost, quota, window)) / 1e6
                charges.append(Charge(False, left, quota, reset, wait, self._fallback))
        return charges

    def _find(self, name: str, algorithm: str) -> Counter:
        """A counter that is not in the new generation, put there."""
        counter = self._old.pop(name, None) or COUNTERS[algorithm]()
        if len(self._new) >= self._half:
            self._old, self._new = self._new, {}
        self._new[name] = counter
        return counter
