"""Answer from memory what was answered before, and ask the upstream once for what many want.

As a shared cache of RFC 9111; says what it did in Cache-Status (RFC 9211). Answers to requests with
credentials are kept, and kept answers given to such requests, only when they say `public`.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable

from gateway import config
from gateway.errors import GatewayError
from gateway.exchange import ClientGone, Exchange, Handler, Reply
from gateway.policies import cache_validation as validation
from gateway.policies.cache_fetch import Fetch
from gateway.policies.cache_flight import Flight, Turn
from gateway.policies.cache_key import Key, Primary, fold, primary_key
from gateway.policies.cache_reply import said, without_client
from gateway.policies.cache_shelf import REST, Count, Shelf, uncounted
from gateway.policies.cache_store import Entry, Store

_log = logging.getLogger("gateway.cache")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110, 9.2.1; TRACE is refused
_LOOKS = 3  # times that a request looks for an answer before it goes on alone


class Cache:
    """Serve from the store; let one ask for all who want the same.

    Args:
        settings: the route's.
        store: shared by all routes of this worker.
        count: told how each request fared: hit, stale, miss, revalidated, collapsed or bypass.
        renewed: told of each exchange that was made in the background.
    """

    __slots__ = ("_count", "_fetch", "_query", "_quiet", "_renewed", "_shelf", "_store", "_wait")

    def __init__(
        self,
        settings: config.RouteCache,
        store: Store,
        count: Count = uncounted,
        renewed: Callable[[Exchange], None] = lambda _: None,
    ) -> None:
        self._store = store
        self._count = count
        self._renewed = renewed
        self._wait = settings.wait
        self._query = (
            frozenset(fold(name.encode()) for name in settings.query) if settings.query is not None else None
        )
        self._shelf = Shelf(store, count)
        self._fetch = Fetch(settings, self._shelf)
        self._quiet = Fetch(settings, Shelf(store, uncounted))  # for requests that nobody made

    async def __call__(self, exchange: Exchange, proceed: Handler) -> Reply:
        """Handle one exchange.

        Raises:
            GatewayError: the upstream could not be asked, and nothing kept may stand in.
        """
        primary = primary_key(exchange, self._query)
        if exchange.method not in {"GET", "HEAD"}:
            reply = await proceed(exchange)
            if exchange.method not in _SAFE and reply.status < 400 and exchange.outcome == "proxied":
                self._store.forget(primary)  # what was kept may have changed (RFC 9111, 4.4)
            return reply
        asked = validation.read(exchange)
        if asked.odd:
            self._count(exchange.route, "bypass")
            return said(await proceed(exchange), b"fwd=bypass")
        return await self._look(exchange, proceed, primary, asked)

    def last(self, exchange: Exchange, stale_for: float | None = None) -> Reply | None:
        """What is kept for a request whose upstream is not to be asked; None when nothing may be used so.

        Args:
            exchange: the request.
            stale_for: seconds for which it may have been old; None is as long as after a failure.
        """
        if exchange.method not in {"GET", "HEAD"}:
            return None
        ours = exchange.headers
        if exchange.received is not None:  # the client's conditions count, not those that we asked by
            exchange.headers = exchange.received
        try:
            asked = validation.read(exchange)
            if asked.odd:
                return None
            key = self._store.key(primary_key(exchange, self._query), exchange)
            return self._shelf.last(key, exchange, asked, stale_for)
        finally:
            exchange.headers = ours

    # ---- what is there -----------------------------------------------------------------------

    async def _look(
        self, exchange: Exchange, proceed: Handler, primary: Primary, asked: validation.Asked
    ) -> Reply:
        """Serve what is kept, lead, or wait for whoever leads."""
        store, collapsed = self._store, False
        for _ in range(_LOOKS):
            key = store.key(primary, exchange)
            entry = store.get(key)
            if entry is not None and asked.credentials and not entry.terms.public:
                return await self._fetch.alone(exchange, proceed, key, asked)
            stale = entry.staleness(store.clock()) if entry is not None else 0.0
            if entry is not None and stale < 0:
                return self._shelf.serve(entry, exchange, asked, "collapsed" if collapsed else "hit")
            stand_in = self._shelf.stand_in(key, exchange, asked, resting=True)
            if stand_in is not None:
                return stand_in
            if (
                entry is not None
                and stale < entry.terms.stale_while_revalidate
                and self._renew(exchange, proceed, key, entry)
            ):
                return self._shelf.serve(entry, exchange, asked, "stale")
            flight = store.flights.get(key)
            if exchange.method == "HEAD" or asked.ranged or (flight is None and store.passes(key)):
                return await self._fetch.alone(exchange, proceed, key, asked)
            if flight is None:
                flight = Flight(store.flights, key)
                return await self._fetch.lead(exchange, proceed, flight, key, entry, asked)
            try:
                turn = await flight.wait(self._wait)
            except TimeoutError:
                break
            if turn is Turn.LEAD:
                return await self._fetch.lead(exchange, proceed, flight, key, entry, asked)
            if turn is Turn.FAILED:
                stand_in = self._shelf.stand_in(key, exchange, asked)
                if stand_in is not None:
                    return stand_in
                if flight.error is not None:
                    raise copy.copy(flight.error)  # each its own: a traceback grows with every raise
                break
            collapsed = True
        return await self._fetch.alone(exchange, proceed, store.key(primary, exchange), asked)

    def _renew(self, exchange: Exchange, proceed: Handler, key: Key, entry: Entry) -> bool:
        """See to it that an entry is asked for in the background; False when there is no room for that."""
        store = self._store

        async def renew(flight: Flight) -> None:
            mine = without_client(exchange)
            try:
                asked = validation.read(mine)
                await (await self._quiet.lead(mine, proceed, flight, key, entry, asked)).aclose()
            except (GatewayError, ClientGone) as error:
                entry.tried = store.clock() + REST
                _log.info("%s could not be renewed: %s", mine.route, error)
            except Exception:  # noqa: BLE001 - nobody awaits it; a defect of ours must at least be told
                _log.exception("renewing %s failed inside the gateway", mine.route)
            finally:
                mine.finish()
                self._renewed(mine)

        return key in store.flights or store.spawn(key, renew)
