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
from collections import OrderedDict
from collections.abc import Sequence
from typing import Protocol

from gateway.exchange import Charge, Clock, Hit, Verdict

MAX_KEYS = 100_000  # counters kept per worker; the longest unused go first


class Counter(Protocol):
    """State of one key. `advance` comes first, then questions and a charge at that moment."""

    def advance(self, now: int, capacity: int, window: int) -> None:
        """Make the state current."""

    def room(self, capacity: int, window: int) -> float:
        """Tokens left; below 1 the limit is full."""

    def charge(self, window: int) -> None:
        """Take one token."""

    def reset(self, capacity: int, window: int) -> int:
        """Microseconds until the quota is whole again."""

    def wait(self, capacity: int, window: int) -> int:
        """Microseconds until one token may be had, when there is none."""


class _SlidingWindow:
    """Two fixed windows; the one before counts for as much of it as still overlaps the last `window`."""

    __slots__ = ("before", "before_last", "current", "elapsed", "index", "last")

    def __init__(self) -> None:
        self.index = self.current = self.before = 0
        self.last = self.before_last = self.elapsed = 0  # offsets into their windows

    def advance(self, now: int, capacity: int, window: int) -> None:
        index, self.elapsed = divmod(now, window)
        if index > self.index:
            adjacent = index == self.index + 1
            self.before, self.before_last = (self.current, self.last) if adjacent else (0, 0)
            self.current = self.last = 0
        self.index = index

    def room(self, capacity: int, window: int) -> float:
        if self.elapsed >= self.before_last:
            return capacity - self.current
        return capacity - self.current - self.before * (window - self.elapsed) / window

    def charge(self, window: int) -> None:
        self.current += 1
        self.last = max(self.last, self.elapsed)

    def reset(self, capacity: int, window: int) -> int:
        if self.current:
            return window - self.elapsed + self.last
        return max(0, self.before_last - self.elapsed) if self.before else 0

    def wait(self, capacity: int, window: int) -> int:
        free = capacity - self.current - 1
        if free >= 0:  # the window before is in the way
            return min(self.before_last, math.ceil(window - free * window / self.before)) - self.elapsed
        slid_out = math.ceil(window - (capacity - 1) * window / self.current)
        return window - self.elapsed + min(self.last, slid_out)


class _FixedWindow:
    """Hits since the clock last passed a multiple of the window."""

    __slots__ = ("current", "elapsed", "index")

    def __init__(self) -> None:
        self.index = self.current = self.elapsed = 0

    def advance(self, now: int, capacity: int, window: int) -> None:
        index, self.elapsed = divmod(now, window)
        if index > self.index:
            self.current = 0
        self.index = index

    def room(self, capacity: int, window: int) -> float:
        return capacity - self.current

    def charge(self, window: int) -> None:
        self.current += 1

    def reset(self, capacity: int, window: int) -> int:
        return window - self.elapsed if self.current else 0

    def wait(self, capacity: int, window: int) -> int:
        return window - self.elapsed


class _TokenBucket:
    """A debt of `window` per token taken, in token·microseconds, that drains by `capacity` a microsecond."""

    __slots__ = ("at", "debt")

    def __init__(self) -> None:
        self.debt = self.at = 0

    def advance(self, now: int, capacity: int, window: int) -> None:
        self.debt = max(0, self.debt - max(0, now - self.at) * capacity)
        self.at = now

    def room(self, capacity: int, window: int) -> float:
        return (capacity * window - self.debt) / window

    def charge(self, window: int) -> None:
        self.debt += window

    def reset(self, capacity: int, window: int) -> int:
        return math.ceil(self.debt / capacity)

    def wait(self, capacity: int, window: int) -> int:
        return math.ceil((self.debt + window - capacity * window) / capacity)


ALGORITHMS: dict[str, type[Counter]] = {
    "sliding-window": _SlidingWindow,
    "fixed-window": _FixedWindow,
    "token-bucket": _TokenBucket,
}


class LocalLimits:
    """A LimitStore of one worker: its share of every limit, all of a request's limits or none.

    Attributes:
        workers: how many share a limit; each admits capacity ÷ workers, at least 1.
        up: always; there is nothing that could be away.
    """

    up = True

    def __init__(
        self, workers: int, clock: Clock = time.monotonic, *, fallback: bool = False, max_keys: int = MAX_KEYS
    ) -> None:
        self.workers = workers
        self._clock = clock
        self._fallback = fallback  # told in every charge: judged here since the store was away
        self._max_keys = max_keys
        self._counters: OrderedDict[tuple[str, str, float, str], Counter] = OrderedDict()

    def __len__(self) -> int:
        return len(self._counters)

    async def start(self) -> None:
        """Nothing to open."""

    async def aclose(self) -> None:
        """Nothing to close."""

    async def take(self, hits: Sequence[Hit]) -> Verdict:
        """Charge one token of every limit at once, or none; shadow limits never refuse."""
        return self.judge(hits)

    def judge(self, hits: Sequence[Hit], *, refused: bool = False) -> list[Charge]:
        """As `take`; `refused` says that the request is refused anyway, so nothing is charged."""
        now = round(self._clock() * 1e6)
        judged: list[tuple[Counter, int, int, float]] = []
        for hit in hits:
            capacity, window = max(1, hit.capacity // self.workers), round(hit.window * 1e6)
            counter = self._counter(hit)
            counter.advance(now, capacity, window)
            room = counter.room(capacity, window)
            if room < 1 and not hit.shadow:
                refused = True
            judged.append((counter, capacity, window, room))
        charges = []
        for counter, capacity, window, room in judged:
            if room >= 1:
                if not refused:
                    counter.charge(window)
                    room -= 1
                charges.append(
                    Charge(True, int(room), counter.reset(capacity, window) / 1e6, 0.0, self._fallback)
                )
            else:
                reset, wait = counter.reset(capacity, window), counter.wait(capacity, window)
                charges.append(Charge(False, 0, max(0, reset) / 1e6, max(1, wait) / 1e6, self._fallback))
        return charges

    def _counter(self, hit: Hit) -> Counter:
        key = (hit.limit, hit.key, hit.window, hit.algorithm)
        counter = self._counters.get(key)
        if counter is None:
            counter = self._counters[key] = ALGORITHMS[hit.algorithm]()
            if len(self._counters) > self._max_keys:
                self._counters.popitem(last=False)
        else:
            self._counters.move_to_end(key)
        return counter
