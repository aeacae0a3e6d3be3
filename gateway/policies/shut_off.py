"""Backend-driven shut-off: what the upstream says once, the gateway answers for a while.

`Tidegate-Shut: sku=steam-50; for=5` on an answer means: for 5 s, requests of this route with this parameter
get this same answer from every worker. Only the upstream can say so, and no client sees the field.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import logging
import re
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from gateway.exchange import Clock, Exchange, Handler, Headers, Reply
from gateway.policies.cache_body import collect

_log = logging.getLogger("gateway.shut-off")
FIELD = b"tidegate-shut"
LONGEST = 60.0  # seconds
MAX_HELD = 10_000  # the least asked for goes first
MAX_BYTES = 16 << 20  # of all answers held; the same
MAX_ANSWER = 64 << 10  # bytes; larger answers are not held
MAX_BODY = 4 << 10  # bytes of a request's body in which a parameter is looked for
_SAID = re.compile(
    r'\s*(?P<name>[a-z][a-z0-9_]{0,31})=(?:"(?P<quoted>[^"\\]{1,256})"|(?P<plain>[^\s";,]{1,256}))'
    r"\s*;\s*for=(?P<seconds>[0-9]{1,6}(?:\.[0-9]{1,3})?)\s*"
)
# Fields of the one answer that was given, not of those that repeat it.
_NOT_HELD = frozenset({b"age", b"date", b"set-cookie", b"x-request-id", FIELD})

_OF_ONE_REQUEST = frozenset({206, 304})  # say nothing to one who asked for something else

Key = tuple[str, str, str]  # route, parameter, value


@dataclass(slots=True)
class ShutOff:
    """An answer held for a while.

    Attributes:
        key: the route's pattern, the parameter and its value.
        until: when it ends, on the holder's clock.
        status: the answer's status; headers its fields; body all of it.
    """

    key: Key
    until: float
    status: int
    headers: Headers
    body: bytes

    @property
    def id(self) -> str:
        """Twelve hex digits that name it in the admin API."""
        return hashlib.sha256("\0".join(self.key).encode()).hexdigest()[:12]

    @property
    def size(self) -> int:
        """Bytes that it takes."""
        return len(self.body) + sum(len(name) + len(value) for name, value in self.headers)

    def to_json(self, now: float) -> dict[str, Any]:
        """Plain values, for the line between the workers and the master."""
        return {
            "key": list(self.key),
            "seconds": self.until - now,
            "status": self.status,
            "headers": [[name.decode("latin-1"), value.decode("latin-1")] for name, value in self.headers],
            "body": base64.b64encode(self.body).decode(),
        }

    @classmethod
    def from_json(cls, said: Mapping[str, Any], now: float) -> ShutOff:
        """What `to_json` described.

        Raises:
            ValueError: it is none.
        """
        try:
            route, parameter, value = said["key"]
            return cls(
                key=(route, parameter, value),
                until=now + min(float(said["seconds"]), LONGEST),
                status=int(said["status"]),
                headers=[(name.encode("latin-1"), text.encode("latin-1")) for name, text in said["headers"]],
                body=base64.b64decode(said["body"]),
            )
        except (KeyError, TypeError, AttributeError, binascii.Error) as error:
            raise ValueError(f"no shut-off: {error}") from None


class ShutOffs:
    """Those that hold, at most `MAX_HELD` of together `MAX_BYTES`.

    Args:
        on_new: told of each that the upstream asked for here, for the other workers.
        clock: seconds, monotonic.
    """

    def __init__(
        self, on_new: Callable[[ShutOff], None] = lambda _: None, *, clock: Clock = time.monotonic
    ) -> None:
        self.on_new = on_new
        self.clock = clock
        self.bytes = 0
        self._held: OrderedDict[Key, ShutOff] = OrderedDict()
        self._by_route: dict[str, dict[str, int]] = {}  # how many there are of a route's parameter

    def __len__(self) -> int:
        return len(self._held)

    def parameters(self, route: str) -> Mapping[str, int] | None:
        """The parameters by which some of a route's requests are shut off; None in good times."""
        return self._by_route.get(route) if self._held else None

    def get(self, key: Key) -> ShutOff | None:
        """The one that holds, or None."""
        held = self._held.get(key)
        if held is None:
            return None
        if held.until <= self.clock():
            self._drop(key)
            return None
        self._held.move_to_end(key)
        return held

    def add(self, new: ShutOff) -> bool:
        """Hold one; False when such a one holds already or its time is over."""
        if self.get(new.key) is not None or new.until <= self.clock():
            return False  # requests that were on their way bring the same answer again
        self._held[new.key] = new
        route, parameter, _ = new.key
        counts = self._by_route.setdefault(route, {})
        counts[parameter] = counts.get(parameter, 0) + 1
        self.bytes += new.size
        while len(self._held) > MAX_HELD or self.bytes > MAX_BYTES:
            self._drop(next(iter(self._held)))
        return True

    def all(self) -> list[ShutOff]:
        """Those that hold, the least asked for first; forgets those whose time is over."""
        now = self.clock()
        for key in [key for key, held in self._held.items() if held.until <= now]:
            self._drop(key)
        return list(self._held.values())

    def clear(self, ids: set[str] | None = None) -> int:
        """Let requests through again, all of them or those of these ids; says how many were held."""
        gone = [held.key for held in self.all() if ids is None or held.id in ids]
        for key in gone:
            self._drop(key)
        return len(gone)

    def _drop(self, key: Key) -> None:
        self.bytes -= self._held.pop(key).size
        route, parameter, _ = key
        counts = self._by_route[route]
        counts[parameter] -= 1
        if not counts[parameter]:
            del counts[parameter]
            if not counts:
                del self._by_route[route]


class Held(Protocol):
    """What the policy needs of those that hold."""

    clock: Clock
    on_new: Callable[[ShutOff], None]

    def parameters(self, route: str) -> Mapping[str, int] | None:
        """The parameters by which some of a route's requests are shut off."""
        ...

    def get(self, key: Key) -> ShutOff | None:
        """The one that holds."""
        ...

    def add(self, new: ShutOff) -> bool:
        """Hold one."""
        ...


@dataclass(frozen=True, slots=True)
class Shut:
    """Answer what the upstream has shut off; hold what it shuts off now.

    Attributes:
        held: shared by all routes of this worker.
        in_body: parameters of the route that stand in the JSON body of its requests.

    A request is told by its parameter alone, so a repeated one (same Idempotency-Key) is refused like a new
    one as long as the shut-off holds, although the upstream would repeat what it had answered.
    """

    held: Held
    in_body: frozenset[str] = frozenset()

    async def __call__(self, exchange: Exchange, proceed: Handler) -> Reply:
        """Handle one exchange."""
        parameters = self.held.parameters(exchange.route)
        if parameters is not None:
            shut = await self._find(exchange, parameters)
            if shut is not None:
                exchange.outcome = "cached"
                body = b"" if exchange.method == "HEAD" else shut.body
                return Reply(shut.status, list(shut.headers), body)
        reply = await proceed(exchange)
        for name, _ in reply.headers:
            if name == FIELD:
                await self._learn(exchange, reply)
                break
        return reply

    async def _find(self, exchange: Exchange, parameters: Mapping[str, int]) -> ShutOff | None:
        values: Mapping[str, str] = exchange.params
        if not self.in_body.isdisjoint(parameters):
            values = {**await _in_body(exchange), **values}
        for parameter in tuple(parameters):  # one that has ended leaves while we look
            value = values.get(parameter)
            if value is not None:
                shut = self.held.get((exchange.route, parameter, value))
                if shut is not None:
                    return shut
        return None

    async def _learn(self, exchange: Exchange, reply: Reply) -> None:
        """Take the field off the answer, and hold the answer."""
        said = [value for name, value in reply.headers if name == FIELD]
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
        ClientGone, PayloadTooLarge: as `Exchange.body`.
    """
    length = exchange.content_length
    if length is None or not 0 < length <= MAX_BODY:
        return {}
    raw = await exchange.peek()
    try:
        body = json.loads(raw)
    except (ValueError, RecursionError):
        return {}  # the upstream says what is wrong with it
    if not isinstance(body, dict):
        return {}
    return {name: value for name, value in body.items() if isinstance(value, str)}
