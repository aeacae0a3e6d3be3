"""Limits counted on this host, by its workers together, through a table of counters that they share."""

from __future__ import annotations

import time
from collections.abc import Sequence

from gateway.exchange import Charge, Clock, Hit, Verdict
from gateway.state.algorithms import ADMIT, FILL, LOOK, State
from gateway.state.counters import Counters, OwnCounters
from gateway.state.limits_full import FullKeys, Spent
from gateway.state.shared_lock import SharedLock


class LocalLimits:
    """A LimitStore of this host, or of one worker: all of a request's limits are charged, or none.

    Workers that share counters judge under their lock, together exactly. One that can't get the lock, since
    its holder was stopped, judges by its own part of each limit meanwhile, in counters of its own.

    Args:
        counters: where they stand; of this process alone when left out.
        workers: how many judge; those who share no counters have an equal part of each limit.
        clock: seconds, the same for all who share the counters.
        fallback: told in every charge: judged here since the store was away.
    """

    def __init__(
        self,
        counters: Counters | None = None,
        *,
        workers: int = 1,
        clock: Clock = time.monotonic,
        fallback: bool = False,
    ) -> None:
        self._counters: Counters = counters if counters is not None else OwnCounters()
        self._lock = self._counters.lock
        self._alone = (
            LocalLimits(workers=workers, clock=clock, fallback=True) if self._lock is not None else self
        )
        self._clock = clock
        self._fallback = fallback
        self._full = FullKeys(clock)
        self._share = (1, 1 if self._lock is not None else workers)

    def __len__(self) -> int:
        return len(self._counters)

    @property
    def up(self) -> bool:
        """Whether counts are whole: they are, unless a stopped worker holds the lock."""
        return self._lock is None or not self._lock.stuck

    @property
    def share(self) -> tuple[int, int]:
        """The part of each limit that is judged here, as a fraction; a request's cost is always in it."""
        return self._share

    @share.setter
    def share(self, part: tuple[int, int]) -> None:
        if part != self._share:
            self._share = part
            self._full.clear()

    async def start(self) -> None:
        """Nothing to open."""

    async def aclose(self) -> None:
        """Nothing to close."""

    async def take(self, hits: Sequence[Hit]) -> Verdict:
        """As `try_take`, which never has to wait here."""
        return self.try_take(hits)

    def try_take(self, hits: Sequence[Hit]) -> Verdict:
        """Charge every limit at once, or none; shadow limits never refuse."""
        return self._full.verdict(hits) or self.judge(hits)

    def judge(self, hits: Sequence[Hit], *, refused: bool = False) -> list[Charge]:
        """As `try_take`, with every limit's standing, from the counters themselves.

        Args:
            hits: the limits, each with whom it counts.
            refused: the request is refused anyway, so nothing is charged.
        """
        lock = self._lock
        if lock is None:
            return self._judge(hits, refused)
        if not _take(lock):
            return self._alone.judge(hits, refused=refused)
        try:
            return self._judge(hits, refused)
        finally:
            lock.release(lock.address)

    def fill(self, hit: Hit, spent: Spent) -> None:
        """Take in how many tokens of a key were given out elsewhere; of what is judged here, so much."""
        lock = self._lock
        if lock is None:
            self._fill(hit, spent)
            return
        if not _take(lock):
            self._alone.fill(hit, spent)
            return
        try:
            self._fill(hit, spent)
        finally:
            lock.release(lock.address)

    def _fill(self, hit: Hit, spent: Spent) -> None:
        terms, key = hit
        now, window = round(self._clock() * 1e6), terms.microseconds
        mine, of = self._share
        quota = max(terms.cost, terms.capacity * mine // of)
        until, given = spent
        # Of the capacity that holds by now: an operator may have raised it since.
        tokens = quota * min(given, terms.capacity) // terms.capacity - quota * max(0, now - until) // window
        if tokens > 0:
            name = terms.counter + key
            state = self._counters.get(name) or self._counters.find(name, now, now + window)
            self._counters.put(name, FILL[terms.kind](state, now, quota, window, tokens))

    def _judge(self, hits: Sequence[Hit], refused: bool) -> list[Charge]:
        now = int(self._clock() * 1e6 + 0.5)  # read under the lock: for whoever comes later it is later
        counters, fallback = self._counters, self._fallback
        mine, of = self._share
        charges: list[Charge] = []
        states: list[State] = []
        for terms, key in hits:
            cost, window, quota = terms.cost, terms.microseconds, terms.capacity
            if of != 1:
                quota = max(cost, quota * mine // of)
            name = terms.counter + key
            state = counters.get(name) or counters.find(name, now, now + window)
            states.append(state)
            taken = ADMIT[terms.kind](state, now, quota, window, cost)
            if taken is not None:
                charged, left = taken
                counters.put(name, charged)
                charges.append((True, left, quota, charged[1] - now, 0, fallback))
            elif terms.shadow:  # left as it would be if it were enforced
                left, reset, wait = LOOK[terms.kind](state, now, quota, window, cost)
                charges.append((False, left, quota, reset, wait, fallback))
            else:
                refused = True
                break
        if refused:
            for (terms, key), state in zip(hits, states, strict=False):  # all or nothing
                counters.put(terms.counter + key, state)
            return self._look(hits, states, now)
        return charges

    def _look(self, hits: Sequence[Hit], states: Sequence[State], now: int) -> list[Charge]:
        """How each limit stands, for a request that is charged to none; states as far as they are known."""
        mine, of = self._share
        charges: list[Charge] = []
        for place, (terms, key) in enumerate(hits):
            cost, window = terms.cost, terms.microseconds
            quota = max(cost, terms.capacity * mine // of)
            if place < len(states):
                state = states[place]
            else:
                state = self._counters.find(terms.counter + key, now, now + window)
            left, reset, wait = LOOK[terms.kind](state, now, quota, window, cost)
            charge = (wait == 0, left, quota, reset, wait, self._fallback)
            charges.append(charge)
            if wait and not terms.shadow:
                self._full.learn((terms, key), charge, now)
        return charges


def _take(lock: SharedLock) -> bool:
    """Take the lock; False when its holder was stopped."""
    code = lock.attempt(lock.address)
    return not (code or lock.stuck) or lock.acquire(code)
