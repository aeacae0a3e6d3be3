"""Answer from memory what was answered before, and ask the upstream once for what many want.

As a shared cache of RFC 9111; says what it did in Cache-Status (RFC 9211). Answers to requests with
credentials are kept, and kept answers given to such requests, only when they say `public`.
"""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from gateway import config
from gateway.errors import (
    GatewayError,
    Overloaded,
    PoolExhausted,
    UpstreamError,
    UpstreamUnavailable,
)
from gateway.exchange import ClientGone, Exchange, Handler, Headers, Reply
from gateway.policies import cache_rules as rules
from gateway.policies import cache_validation as validation
from gateway.policies.cache_body import collect
from gateway.policies.cache_flight import Flight, Turn
from gateway.policies.cache_key import Key, Primary, primary_key
from gateway.policies.cache_reply import date, said, shaped, told_age, without_client
from gateway.policies.cache_store import Entry, Store

_log = logging.getLogger("gateway.cache")
_SAFE = frozenset({"GET", "HEAD", "OPTIONS"})  # RFC 9110, 9.2.1; TRACE is refused
_FAILED = frozenset({500, 502, 503, 504})  # RFC 5861, 4
# The upstream's or our own want of room, which would meet every one who waits.
_SHARED = (UpstreamError, UpstreamUnavailable, Overloaded, PoolExhausted)
_REST = 1.0  # seconds for which a failed upstream is not asked again while a stale answer stands in
_LOOKS = 3  # times that a request looks for an answer before it goes on alone
# Not part of an answer that others may have: each is added anew, or was meant for the gateway.
_NOT_KEPT = frozenset({b"age", b"content-length", b"x-request-id"})

Count = Callable[[str, str], None]  # a route, and how its request fared in the cache


def _uncounted(_route: str, _result: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class Cache:
    """Serve from the store; let one ask for all who want the same.

    Attributes:
        settings: the route's.
        store: shared by all routes of this worker.
        count: told how each request fared: hit, stale, miss, revalidated, collapsed or bypass.
        renewed: told of each exchange that was made in the background.
    """

    settings: config.RouteCache
    store: Store
    count: Count = _uncounted
    renewed: Callable[[Exchange], None] = lambda _: None

    async def __call__(self, exchange: Exchange, proceed: Handler) -> Reply:
        """Handle one exchange.

        Raises:
            GatewayError: the upstream could not be asked, and nothing kept may stand in.
        """
        primary = primary_key(exchange)
        if exchange.method not in {"GET", "HEAD"}:
            reply = await proceed(exchange)
            if exchange.method not in _SAFE and reply.status < 400 and exchange.outcome == "proxied":
                self.store.forget(primary)  # what was kept may have changed (RFC 9111, 4.4)
            return reply
        asked = validation.read(exchange)
        if asked.odd:
            self.count(exchange.route, "bypass")
            return said(await proceed(exchange), b"fwd=bypass")
        return await self._look(exchange, proceed, primary, asked)

    # ---- what is there -----------------------------------------------------------------------

    async def _look(
        self, exchange: Exchange, proceed: Handler, primary: Primary, asked: validation.Asked
    ) -> Reply:
        """Serve what is kept, lead, or wait for whoever leads."""
        store, collapsed = self.store, False
        for _ in range(_LOOKS):
            key = store.key(primary, exchange)
            entry = store.get(key)
            if entry is not None and asked.credentials and not entry.terms.public:
                return await self._alone(exchange, proceed, primary, asked, None)
            if entry is not None:
                now = store.clock()
                stale = entry.staleness(now)
                if stale < 0:
                    return self._serve(entry, exchange, asked, "collapsed" if collapsed else "hit")
                if now < entry.tried and stale < entry.terms.stale_if_error:
                    return self._serve(entry, exchange, asked, "stale")
                if stale < entry.terms.stale_while_revalidate and self._renew(exchange, proceed, key, entry):
                    return self._serve(entry, exchange, asked, "stale")
            flight = store.flights.get(key)
            if exchange.method == "HEAD" or asked.ranged or (flight is None and store.passes(key)):
                return await self._alone(exchange, proceed, primary, asked, entry)
            if flight is None:
                return await self._lead(exchange, proceed, Flight(store.flights, key), key, entry, asked)
            try:
                turn = await flight.wait(self.settings.wait)
            except TimeoutError:
                break
            if turn is Turn.LEAD:
                return await self._lead(exchange, proceed, flight, key, entry, asked)
            if turn is Turn.FAILED:
                stand_in = self._stand_in(store.get(key), exchange, asked)
                if stand_in is not None:
                    return stand_in
                if flight.error is not None:
                    raise copy.copy(flight.error)  # each its own: a traceback grows with every raise
                break
            collapsed = True
        return await self._alone(exchange, proceed, primary, asked, None)

    def _serve(self, entry: Entry, exchange: Exchange, asked: validation.Asked, how: str) -> Reply:
        """What is kept, as one client gets it."""
        now = self.store.clock()
        exchange.outcome = "cached"
        self.count(exchange.route, how)
        left = math.floor(-entry.staleness(now))
        status = b"tidegate; hit; ttl=%d" % left
        if how == "collapsed":
            status = b"tidegate; fwd=miss; collapsed; ttl=%d" % left
        return shaped(entry, exchange, asked, status, entry.age(now))

    def _stand_in(self, entry: Entry | None, exchange: Exchange, asked: validation.Asked) -> Reply | None:
        """What is kept, in place of a failure; None when it may not be used so."""
        if entry is None or (asked.credentials and not entry.terms.public):
            return None
        now = self.store.clock()
        if entry.staleness(now) >= entry.terms.stale_if_error:
            return None
        entry.tried = now + _REST
        return self._serve(entry, exchange, asked, "stale")

    # ---- asking ------------------------------------------------------------------------------

    async def _alone(
        self,
        exchange: Exchange,
        proceed: Handler,
        primary: Primary,
        asked: validation.Asked,
        entry: Entry | None,
    ) -> Reply:
        """Ask for this client only, its conditions and ranges as they are; keep the answer if it may be."""
        self.count(exchange.route, "bypass")
        began, mark = self.store.clock(), len(exchange.reply_headers)
        try:
            reply = await proceed(exchange)
        except _SHARED:
            stand_in = self._stand_in(entry, exchange, asked)
            if stand_in is None:
                raise
            return stand_in
        stand_in = await self._instead(reply, entry, exchange, asked, mark)
        if stand_in is not None:
            return stand_in
        kept = None
        if exchange.method == "GET" and not asked.ranged:
            kept = await self._keep(exchange, reply, primary, asked, began)
        return said(reply, b"fwd=miss; stored" if kept is not None else b"fwd=miss")

    async def _lead(
        self,
        exchange: Exchange,
        proceed: Handler,
        flight: Flight,
        key: Key,
        entry: Entry | None,
        asked: validation.Asked,
    ) -> Reply:
        """Ask for all who wait."""
        store, mark = self.store, len(exchange.reply_headers)
        received = exchange.headers
        kept_headers = (
            entry.headers if entry is not None and validation.has_validator(entry.headers) else None
        )
        exchange.headers = validation.fetch_headers(received, kept_headers)
        try:
            began = store.clock()
            reply = await proceed(exchange)
            if reply.status == 304 and kept_headers is not None and entry is not None:
                if validation.same_validator(kept_headers, reply.headers):
                    return await self._revalidated(
                        exchange, reply, flight, key, entry, asked, received, began
                    )
                await reply.aclose()  # it speaks of something else: ask for that
                exchange.headers = validation.fetch_headers(received, None)
                began = store.clock()
                reply = await proceed(exchange)
            stand_in = await self._instead(reply, entry, exchange, asked, mark)
            if stand_in is not None:
                flight.fail(None)
                return stand_in
            kept = await self._keep(exchange, reply, key[0], asked, began)
        except _SHARED as error:
            flight.fail(error)
            stand_in = self._stand_in(entry, exchange, asked)
            if stand_in is None:
                self.count(exchange.route, "miss")
                raise
            return stand_in
        except (
            BaseException
        ):  # the client left, or the request itself is at fault: says nothing to the others
            flight.hand_over()
            raise
        finally:
            exchange.headers = received
        self.count(exchange.route, "miss")
        forward = b"fwd=stale" if entry is not None else b"fwd=miss"
        if kept is None:
            if reply.status in _FAILED:
                flight.fail(None)  # they may fare better; those to come shall wait for one again
            else:
                self._let_pass(flight, key, entry)
            return said(reply, forward)
        if kept.staleness(store.clock()) >= 0:
            store.pass_by(key)  # kept for bad times only: whoever waits gains nothing
        flight.land()
        return shaped(kept, exchange, asked, b"tidegate; %b; stored" % forward, told_age(kept))

    async def _revalidated(
        self,
        exchange: Exchange,
        reply: Reply,
        flight: Flight,
        key: Key,
        entry: Entry,
        asked: validation.Asked,
        received: Headers,
        began: float,
    ) -> Reply:
        """The upstream says that what is kept still holds, and perhaps for how long."""
        await reply.aclose()
        store, now = self.store, self.store.clock()
        exchange.headers = received
        if not any(name == b"date" for name, _ in reply.headers):
            reply.headers.append(date(store.wall()))  # else it would be as old as what it renews
        headers = validation.renewed(entry.headers, reply.headers)
        ages = [field for field in reply.headers if field[0] == b"age"]
        terms = self._terms([*headers, *ages], asked, now - began)
        fresh = Entry(entry.status, headers, entry.body, terms or entry.terms, now)
        self.count(exchange.route, "revalidated")
        if terms is None or not store.put(key[0], exchange, fresh):
            self._let_pass(flight, key, entry)
        else:
            flight.land()
        return shaped(fresh, exchange, asked, b"tidegate; fwd=stale; fwd-status=304", told_age(fresh))

    async def _instead(
        self, reply: Reply, entry: Entry | None, exchange: Exchange, asked: validation.Asked, mark: int
    ) -> Reply | None:
        """What is kept, in place of a 5xx or of a breaker's fallback."""
        if reply.status not in _FAILED and exchange.outcome != "broken":
            return None
        stand_in = self._stand_in(entry, exchange, asked)
        if stand_in is not None:
            await reply.aclose()
            del exchange.reply_headers[mark:]  # what they said of the reply that is not sent
        return stand_in

    def _let_pass(self, flight: Flight, key: Key, entry: Entry | None) -> None:
        """The answer is for one client only; let nobody wait for the next, and forget what it contradicts."""
        self.store.pass_by(key)
        if entry is not None:
            self.store.remove(entry)
        flight.land()

    # ---- keeping -----------------------------------------------------------------------------

    async def _keep(
        self, exchange: Exchange, reply: Reply, primary: Primary, asked: validation.Asked, began: float
    ) -> Entry | None:
        """Keep a reply if it may be and is small; it then has its whole body. None when it is not kept."""
        if reply.status not in rules.KEPT or exchange.outcome != "proxied":
            return None
        if any(name == b"tidegate-shut" for name, _ in reply.headers):
            return None  # is held as a shut-off, whose time is its own
        now = self.store.clock()
        terms = self._terms(reply.headers, asked, now - began)
        if terms is None or not await collect(reply, self.settings.max_body):
            return None
        headers = [field for field in reply.headers if field[0] not in _NOT_KEPT]
        if not any(name == b"date" for name, _ in headers):
            headers.append(date(self.store.wall()))  # RFC 9110, 6.6.1
        if reply.status != 204:
            headers.append((b"content-length", b"%d" % len(reply.body)))
        entry = Entry(reply.status, headers, reply.body, terms, now)
        return entry if self.store.put(primary, exchange, entry) else None

    def _terms(self, headers: Headers, asked: validation.Asked, delay: float) -> rules.Terms | None:
        settings = self.settings
        caps = rules.Caps(settings.ttl, settings.stale_while_revalidate, settings.stale_if_error)
        wall = self.store.wall()
        return rules.terms(headers, caps, credentials=asked.credentials, received=wall, delay=delay)

    def _renew(self, exchange: Exchange, proceed: Handler, key: Key, entry: Entry) -> bool:
        """See to it that an entry is asked for in the background; False when there is no room for that."""
        store, quiet = self.store, replace(self, count=_uncounted)

        async def renew(flight: Flight) -> None:
            mine = without_client(exchange)
            try:
                asked = validation.read(mine)
                await (await quiet._lead(mine, proceed, flight, key, entry, asked)).aclose()
            except (GatewayError, ClientGone) as error:
                entry.tried = store.clock() + _REST
                _log.info("%s could not be renewed: %s", mine.route, error)
            except Exception:  # noqa: BLE001 - nobody awaits it; a defect of ours must at least be told
                _log.exception("renewing %s failed inside the gateway", mine.route)
            finally:
                mine.finish()
                self.renewed(mine)

        return key in store.flights or store.spawn(key, renew)
