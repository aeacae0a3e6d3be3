"""What is kept, handed out: to whoever may have it while it is fresh, and in place of a failure."""

from __future__ import annotations

import math
from collections.abc import Callable

from gateway.exchange import Exchange, Reply
from gateway.policies import cache_validation as validation
from gateway.policies.cache_key import Key
from gateway.policies.cache_reply import shaped
from gateway.policies.cache_store import Entry, Store

REST = 1.0  # seconds for which a failed upstream is not asked again while a stale answer stands in

Count = Callable[[str, str], None]  # a route, and how its request fared in the cache


def uncounted(_route: str, _result: str) -> None:
    """For requests that nobody made."""


class Shelf:
    """Hands out entries.

    Attributes:
        store: where they are kept.
        count: told how each request fared.
    """

    __slots__ = ("count", "store")

    def __init__(self, store: Store, count: Count) -> None:
        self.store = store
        self.count = count

    def serve(self, entry: Entry, exchange: Exchange, asked: validation.Asked, how: str) -> Reply:
        """An entry, as one client gets it."""
        now = self.store.clock()
        exchange.outcome = "cached"
        self.count(exchange.route, how)
        left = math.floor(-entry.staleness(now))
        status = b"tidegate; hit; ttl=%d" % left
        if how == "collapsed":
            status = b"tidegate; fwd=miss; collapsed; ttl=%d" % left
        return shaped(entry, exchange, asked, status, entry.age(now))

    def stand_in(
        self, key: Key, exchange: Exchange, asked: validation.Asked, *, resting: bool = False
    ) -> Reply | None:
        """What is kept, in place of a failure; None when nothing may be used so.

        Args:
            key: where it would stand.
            exchange: the request.
            asked: what it says to a cache.
            resting: only what has stood in for a failure a moment ago, so that the upstream is left alone.
        """
        entry = self._usable(key, asked, None)
        now = self.store.clock()
        if entry is None or (resting and now >= entry.tried):
            return None
        if not resting:
            entry.tried = now + REST
        return self.serve(entry, exchange, asked, "stale")

    def last(
        self, key: Key, exchange: Exchange, asked: validation.Asked, stale_for: float | None
    ) -> Reply | None:
        """What is kept, for when the upstream is not to be asked at all; None when nothing may be used so.

        Args:
            key: where it would stand.
            exchange: the request.
            asked: what it says to a cache.
            stale_for: seconds for which it may have been old; None is as long as after a failure.
        """
        entry = self._usable(key, asked, stale_for)
        if entry is None:
            return None
        return self.serve(
            entry, exchange, asked, "stale" if entry.staleness(self.store.clock()) >= 0 else "hit"
        )

    def _usable(self, key: Key, asked: validation.Asked, stale_for: float | None) -> Entry | None:
        """The best that may be used without the upstream.

        Made while other features were off, it is no answer to this request but better than none, unless it
        is `strict`: an upstream can forbid it so.
        """
        now = self.store.clock()
        for entry in self.store.stand_ins(key):
            terms, stale = entry.terms, entry.staleness(now)
            bound = terms.stale_if_error if stale_for is None else stale_for
            if asked.credentials and not terms.public:
                continue
            if terms.strict and (stale >= 0 or entry.key != key):
                continue
            if stale < bound:
                return entry
        return None
