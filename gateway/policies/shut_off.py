"""Backend-driven shut-off: what the upstream says once, the gateway answers for a while.

`Tidegate-Shut: sku=steam-50; for=5` on an answer means: for 5 s, requests of this route with this parameter
get this same answer from every worker. Only the upstream can say so, and no client sees the field.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from gateway.errors import FeatureOff, Overloaded, PoolExhausted, UpstreamUnavailable
from gateway.exchange import Clock, Exchange, Handler, Reply
from gateway.fields import values
from gateway.policies.cache_body import collect
from gateway.policies.shut_offs import LONGEST, Key, ShutOff
from gateway.request_body import peek

_log = logging.getLogger("gateway.shut-off")
FIELD: Final = b"tidegate-shut"
MAX_ANSWER: Final = 64 << 10  # bytes; larger answers are not held
MAX_BODY: Final = 4 << 10  # bytes of a request's body in which a parameter is looked for
_SAID: Final = re.compile(
    r'\s*(?P<name>[a-z][a-z0-9_]{0,31})=(?:"(?P<quoted>[^"\\]{1,256})"|(?P<plain>[^\s";,]{1,256}))'
    r"\s*;\s*for=(?P<seconds>[0-9]{1,6}(?:\.[0-9]{1,3})?)\s*"
)
# Fields of the one answer that was given, not of those that repeat it.
_NOT_HELD: Final = frozenset({b"age", b"date", b"set-cookie", b"x-request-id", FIELD})
_KEY: Final = b"idempotency-key"
_UNKEYED: Final = frozenset({"GET", "HEAD", "OPTIONS"})  # nothing is done twice by these
_OF_ONE_REQUEST: Final = frozenset({206, 304})  # say nothing to one who asked for something else
# We refused it ourselves, and the upstream has not seen it.
_NOT_SENT = (Overloaded, FeatureOff, UpstreamUnavailable, PoolExhausted)


class Held(Protocol):
    """What the policy needs of those that hold."""

    clock: Clock
    on_new: Callable[[ShutOff], None]

    def parameters(self, route: str) -> Mapping[str, int] | None:
        """The parameters by which some of a route's requests are shut off."""
        ...

    def stand_in(self, key: Key) -> ShutOff | None:
        """The one to answer with, or None for who is to ask the upstream."""
        ...

    def asked(self, key: Key) -> None:
        """The upstream has answered for it, or could not."""
        ...

    def add(self, new: ShutOff) -> bool:
        """Hold one."""
        ...


class Known(Protocol):
    """Which requests were passed on before, by their fingerprints."""

    async def knows(self, key: int) -> bool:
        """Whether one with this fingerprint was passed on, and not refused since."""
        ...

    async def begin(self, key: int) -> bool:
        """Note that one with this fingerprint is about to be passed on; whether that is new."""
        ...

    def accepted(self, key: int, *, first: bool) -> None:
        """It was accepted; `first` as `begin` said."""
        ...

    def refused(self, key: int) -> None:
        """It was refused, and `begin` said that it is new."""
        ...


@dataclass(frozen=True, slots=True)
class Shut:
    """Answer what the upstream has shut off; hold what it shuts off now.

    A request that repeats one which may have been accepted goes through, for the upstream alone knows what it
    answered: by its Idempotency-Key and user it is told from a new one. So each request with such a key is
    noted before it is passed on, and forgotten if the upstream refuses it.

    Attributes:
        held: shared by all routes of this worker.
        known: the same.
        in_body: parameters of the route that stand in the JSON body of its requests.
    """

    held: Held
    known: Known
    in_body: frozenset[str] = frozenset()

    def __call__(self, exchange: Exchange, proceed: Handler) -> Awaitable[Reply]:
        """Handle one exchange."""
        key = 0 if exchange.method in _UNKEYED else self._fingerprint(exchange)
        parameters = self.held.parameters(exchange.route)
        if parameters is not None:
            return self._stand_in(exchange, proceed, parameters, key)
        if key:
            return self._pass(exchange, proceed, key)
        answering = proceed(exchange)
        # An answer that nobody waited for is the gateway's own.
        return answering if type(answering) is Reply else self._hear(exchange, answering)

    async def _hear(self, exchange: Exchange, answering: Awaitable[Reply]) -> Reply:
        """Take in what an answer says, and hand it on."""
        reply = await answering
        if said := values(reply.headers, FIELD):
            await self._learn(exchange, reply, said)
        return reply

    async def _stand_in(
        self, exchange: Exchange, proceed: Handler, parameters: Mapping[str, int], key: int
    ) -> Reply:
        """Answer for the upstream, where one of the parameters is shut off."""
        asking: list[Key] = []
        try:
            for one in await self._named(exchange, parameters):
                shut = self.held.stand_in(one)
                if shut is None:
                    asking.append(one)
                elif not (key and await self.known.knows(key)):
                    exchange.outcome = "cached"
                    body = b"" if exchange.method == "HEAD" else shut.body
                    return Reply(shut.status, list(shut.headers), body)
            return await self._pass(exchange, proceed, key)
        finally:
            for one in asking:  # not what merely let a repeat through: another may be asking for that one
                self.held.asked(one)

    def _fingerprint(self, exchange: Exchange) -> int:
        """63 bits that tell a keyed request and its user from others; 0 when it has no key.

        Who has no verified user is known by the key alone: addresses change while one tries again.
        """
        if not self.in_body and not exchange.params:
            return 0  # nothing could shut it off
        keys = values(exchange.headers, _KEY)
        if len(keys) != 1:
            return 0
        whole = b"%b\0%b" % ((exchange.user or "").encode(), keys[0])
        return int.from_bytes(hashlib.blake2b(whole, digest_size=8).digest()) >> 1 or 1

    async def _named(self, exchange: Exchange, parameters: Mapping[str, int]) -> list[Key]:
        """By what the request might be shut off."""
        values: Mapping[str, str] = exchange.params
        if not self.in_body.isdisjoint(parameters):
            values = {**await _in_body(exchange), **values}
        return [(exchange.route, name, values[name]) for name in parameters if name in values]

    async def _pass(self, exchange: Exchange, proceed: Handler, key: int) -> Reply:
        """Let the upstream answer."""
        if not key:
            return await self._hear(exchange, proceed(exchange))
        # From here on it may be accepted, whether or not the answer finds its way back.
        first = await self.known.begin(key)
        try:
            reply = await proceed(exchange)
        except _NOT_SENT:
            if first:
                self.known.refused(key)
            raise
        if exchange.outcome != "proxied" or 400 <= reply.status < 500:
            if first:
                self.known.refused(key)
        elif reply.status < 400:
            self.known.accepted(key, first=first)
        if said := values(reply.headers, FIELD):
            await self._learn(exchange, reply, said)
        return reply

    async def _learn(self, exchange: Exchange, reply: Reply, said: Sequence[bytes]) -> None:
        """Take the field off the answer, and hold the answer."""
        reply.headers = [field for field in reply.headers if field[0] != FIELD]
        if exchange.method == "HEAD" or reply.status in _OF_ONE_REQUEST:
            return  # its body is not here to be repeated
        whole = False
        for value in said:
            match = _SAID.fullmatch(value.decode("latin-1"))
            if match is None or not (float(match["seconds"]) > 0):
                _log.warning(
                    "%s: the upstream's Tidegate-Shut is not understood; write name=value; for=seconds",
                    exchange.route,
                )
                continue
            if match["name"] not in self.in_body and match["name"] not in exchange.params:
                # No request of this route could be told to be meant. Said with every answer, perhaps.
                _log.debug("%s has no parameter %s to be shut off by", exchange.route, match["name"])
                continue
            whole = whole or await collect(reply, MAX_ANSWER)
            if not whole:
                _log.warning("%s: the answer is too large to be held for all", exchange.route)
                return
            clock = self.held.clock
            new = ShutOff(
                key=(exchange.route, match["name"], match["quoted"] or match["plain"]),
                until=clock() + min(float(match["seconds"]), LONGEST),
                status=reply.status,
                headers=[field for field in reply.headers if field[0] not in _NOT_HELD],
                body=reply.body,
            )
            if self.held.add(new):
                self.held.on_new(new)


async def _in_body(exchange: Exchange) -> Mapping[str, str]:
    """The text members of a small JSON body; the body can be read again after that.

    Raises:
        ClientGone, PayloadTooLarge: as `request_body.pieces`.
    """
    length = exchange.content_length
    if length is None or not 0 < length <= MAX_BODY:
        return {}
    raw = await peek(exchange)
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return {}  # the upstream says what is wrong with it
    if not isinstance(body, dict):
        return {}
    return {name: value for name, value in body.items() if isinstance(value, str)}
