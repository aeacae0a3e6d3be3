"""Ask the upstream, for one client or for all who wait, and keep what it answers where it may be kept."""

from __future__ import annotations

from gateway import config
from gateway.errors import Overloaded, PoolExhausted, UpstreamError, UpstreamUnavailable
from gateway.exchange import Exchange, Handler, Header, Reply
from gateway.policies import cache_rules as rules
from gateway.policies import cache_validation as validation
from gateway.policies.cache_body import collect
from gateway.policies.cache_coding import with_coding
from gateway.policies.cache_flight import Flight
from gateway.policies.cache_key import Key, Primary
from gateway.policies.cache_reply import date, said, shaped, told_age
from gateway.policies.cache_shelf import Shelf
from gateway.policies.cache_store import Entry

_FAILED = frozenset({500, 502, 503, 504})  # RFC 5861, 4
# The upstream's or our own want of room, which would meet every one who waits.
_SHARED = (UpstreamError, UpstreamUnavailable, Overloaded, PoolExhausted)
# Not part of an answer that others may have: each is added anew, or was for the gateway (RFC 9111, 3.1).
_NOT_KEPT = validation.FOR_PROXIES | {b"age", b"content-length", b"x-request-id"}


class Fetch:
    """Asks for one route.

    Args:
        settings: the route's.
        shelf: what it keeps goes there, and what stands in for a failure comes from there.
    """

    __slots__ = ("_caps", "_max_body", "_shelf", "_store")

    def __init__(self, settings: config.RouteCache, shelf: Shelf) -> None:
        self._caps = rules.Caps(settings.ttl, settings.stale_while_revalidate, settings.stale_if_error)
        self._max_body = settings.max_body
        self._shelf = shelf
        self._store = shelf.store

    async def alone(
        self,
        exchange: Exchange,
        proceed: Handler,
        key: Key,
        asked: validation.Asked,
    ) -> Reply:
        """Ask for this client only, its conditions and ranges as they are; keep the answer if it may be."""
        self._shelf.count(exchange.route, "bypass")
        began, mark = self._store.clock(), len(exchange.reply_headers)
        exchange.headers = with_coding(exchange.headers)
        try:
            reply = await proceed(exchange)
        except _SHARED:
            stand_in = self._shelf.stand_in(key, exchange, asked)
            if stand_in is None:
                raise
            return stand_in
        stand_in = await self._instead(reply, key, exchange, asked, mark)
        if stand_in is not None:
            return stand_in
        kept = None
        if exchange.method == "GET" and not asked.ranged:
            kept = await self._keep(exchange, reply, key[0], asked, began)
        return said(reply, b"fwd=miss; stored" if kept is not None else b"fwd=miss")

    async def lead(
        self,
        exchange: Exchange,
        proceed: Handler,
        flight: Flight,
        key: Key,
        entry: Entry | None,
        asked: validation.Asked,
    ) -> Reply:
        """Ask for all who wait."""
        store, mark, held = self._store, len(exchange.reply_headers), exchange.deferred
        received = exchange.received = exchange.headers
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
                exchange.finish(held)  # the slot is given back: the second call waits for one of its own
                exchange.upstream_seconds = None  # that call has been counted
                exchange.headers = validation.fetch_headers(received, None)
                began = store.clock()
                reply = await proceed(exchange)
            stand_in = await self._instead(reply, key, exchange, asked, mark)
            if stand_in is not None:
                flight.fail(None)
                return stand_in
            kept = await self._keep(exchange, reply, key[0], asked, began)
        except _SHARED as error:
            flight.fail(error)
            stand_in = self._shelf.stand_in(key, exchange, asked)
            if stand_in is None:
                self._shelf.count(exchange.route, "miss")
                raise
            return stand_in
        except (
            BaseException
        ):  # the client left, or the request itself is at fault: says nothing to the others
            flight.hand_over()
            raise
        finally:
            exchange.headers, exchange.received = received, None
        self._shelf.count(exchange.route, "miss")
        forward = b"fwd=stale" if entry is not None else b"fwd=miss"
        if kept is None:
            if reply.status in _FAILED:
                flight.fail(None)  # they may fare better; those to come shall wait for one again
            elif store.outdated(key[0], began):
                flight.land()  # some may have come after it
            else:
                self._let_pass(flight, key, entry, asked)
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
        received: Header,
        began: float,
    ) -> Reply:
        """The upstream says that what is kept still holds, and perhaps for how long."""
        await reply.aclose()
        store, now = self._store, self._store.clock()
        exchange.headers = received
        if not any(name == b"date" for name, _ in reply.headers):
            reply.headers = [*reply.headers, date(store.wall())]  # else it would be as old as what it renews
        headers = validation.renewed(entry.headers, reply.headers)
        ages = [field for field in reply.headers if field[0] == b"age"]
        terms = self._terms([*headers, *ages], asked, now - began)
        fresh = Entry(entry.status, headers, entry.body, terms or entry.terms, now)
        self._shelf.count(exchange.route, "revalidated")
        if store.outdated(key[0], began) or (terms is not None and store.put(key[0], exchange, fresh)):
            flight.land()
        else:
            self._let_pass(flight, key, entry, asked)
        return shaped(fresh, exchange, asked, b"tidegate; fwd=stale; fwd-status=304", told_age(fresh))

    async def _instead(
        self, reply: Reply, key: Key, exchange: Exchange, asked: validation.Asked, mark: int
    ) -> Reply | None:
        """What is kept, in place of a 5xx or of a breaker's fallback."""
        if reply.status not in _FAILED and exchange.outcome != "broken":
            return None
        stand_in = self._shelf.stand_in(key, exchange, asked)
        if stand_in is not None:
            await reply.aclose()
            del exchange.reply_headers[mark:]  # what they said of the reply that is not sent
        return stand_in

    def _let_pass(self, flight: Flight, key: Key, entry: Entry | None, asked: validation.Asked) -> None:
        """The answer is for one client only; let nobody wait for the next, and forget what it contradicts."""
        self._store.pass_by(key)
        if entry is not None or not asked.credentials:  # else it says nothing of what the anonymous may have
            self._store.withdraw(key)
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
        now = self._store.clock()
        terms = self._terms(reply.headers, asked, now - began)
        if terms is None or not await collect(reply, self._max_body):
            return None
        if self._store.outdated(primary, began):
            return None  # the target has changed while this was under way
        headers = [field for field in reply.headers if field[0] not in _NOT_KEPT]
        if not any(name == b"date" for name, _ in headers):
            headers.append(date(self._store.wall()))  # RFC 9110, 6.6.1
        if reply.status != 204:
            headers.append((b"content-length", b"%d" % len(reply.body)))
        entry = Entry(reply.status, headers, reply.body, terms, now)
        return entry if self._store.put(primary, exchange, entry) else None

    def _terms(self, headers: Header, asked: validation.Asked, delay: float) -> rules.Terms | None:
        wall = self._store.wall()
        return rules.terms(headers, self._caps, credentials=asked.credentials, received=wall, delay=delay)
