"""What upstreams have shut off: the answers that are held for a while."""

from __future__ import annotations

import base64
import binascii
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.exchange import Clock, Headers

LONGEST: Final = 60.0  # seconds
MAX_HELD: Final = 10_000  # the least asked for goes first
MAX_BYTES: Final = 16 << 20  # of all answers held; the same
ASKING: Final = 1.0  # seconds for which one that is over may stand in while one request asks anew

Key = tuple[str, str, str]  # route, parameter, value


@dataclass(slots=True)
class ShutOff:
    """An answer held for a while.

    Attributes:
        key: the route's pattern, the parameter and its value.
        until: when it ends, on the holder's clock.
        status: the answer's status; headers its fields; body all of it.
        asking: its time is over, and one has gone to ask anew; until when that may take. 0 before.
    """

    key: Key
    until: float
    status: int
    headers: Headers
    body: bytes
    asking: float = 0.0

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
        return held if held is not None and self.clock() < held.until else None

    def stand_in(self, key: Key) -> ShutOff | None:
        """The one to answer with, or None for who is to ask the upstream.

        When its time is over one asks for all: until that is answered, a second at most, it stands in for the
        others. Else a crowd would reach the upstream each time.
        """
        held = self._held.get(key)
        if held is None:
            return None
        now = self.clock()
        if now >= max(held.until, held.asking):
            if held.asking or now >= held.until + ASKING:  # nobody answered, or nobody came for long
                self._drop(key)
            else:
                held.asking = now + ASKING
            return None
        self._held.move_to_end(key)
        return held

    def asked(self, key: Key) -> None:
        """The upstream has answered for it, or could not: what is out of date stands in no more."""
        held = self._held.get(key)
        if held is not None and held.until <= self.clock():
            self._drop(key)

    def add(self, new: ShutOff) -> bool:
        """Hold one; False when such a one holds already or its time is over."""
        if self.get(new.key) is not None or new.until <= self.clock():
            return False  # requests that were on their way bring the same answer again
        if new.key in self._held:
            self._drop(new.key)
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
