"""What is kept, handed out: to whoever may have it while it is fresh, and in place of a failure."""

from __future__ import annotations

import math
from collections.abc import Callable

from gateway.exchange import Exchange, Reply
from gateway.policies import cache_validation as validation
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

    def stand_in(self, entry: Entry | None, exchange: Exchange, asked: validation.Asked) -> Reply | None:
        """An entry in place of a failure; None when it may not be used so."""
        if entry is None or (asked.credentials and not entry.terms.public):
            return None
        now = self.store.clock()
        if entry.staleness(now) >= entry.terms.stale_if_error:
            return None
        entry.tried = now + REST
        return self.serve(entry, exchange, asked, "stale")

    def last(
        self, entry: Entry | None, exchange: Exchange, asked: validation.Asked, stale_for: float | None
    ) -> Reply | None:
        """An entry for when the upstream is not to be asked at all; None when it may not be used so.

        Args:
            entry: what is kept.
            exchange: the request.
            asked: what it says to a cache.
            stale_for: seconds for which it may have been old; None is as long as after a failure.
        """
        if entry is None or (asked.credentials and not entry.terms.public):
            return None
        stale = entry.staleness(self.store.clock())
        bound = entry.terms.stale_if_error if stale_for is None else stale_for
        if stale >= 0 and (entry.terms.strict or stale >= bound):
            return None
        return self.serve(entry, exchange, asked, "stale" if stale >= 0 else "hit")
