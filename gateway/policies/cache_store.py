"""Kept answers, within a bound of bytes; and the calls that will bring new ones."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from gateway.exchange import Clock, Exchange, Headers
from gateway.policies.cache_flight import Flight
from gateway.policies.cache_key import NEVER_THE_SAME, Key, Primary, field_values, kin
from gateway.policies.cache_rules import Terms, varies_by

DEFAULT_BYTES = 64 << 20  # per worker
OVERHEAD = 1024  # bytes that an entry costs beside its strings, roughly
PASS_FOR = 5.0  # seconds for which nobody waits for an answer that was not to be kept
MAX_PASSES = 10_000
MAX_FORGOTTEN = 10_000  # targets remembered, for answers still under way
MAX_BACKGROUND = 64  # answers renewed in the background at once, per worker


@dataclass(slots=True, eq=False)
class Entry:
    """A kept answer.

    Attributes:
        status: its status.
        headers: its fields, without Age and without those of one request only.
        body: all of it.
        terms: for how long it may be used.
        at: when it came, on the store's clock.
        tried: until when the upstream is not asked again after a failure, on the store's clock.
        key: where it stands.
        size: bytes that it is counted with.
    """

    status: int
    headers: Headers
    body: bytes
    terms: Terms
    at: float
    tried: float = 0.0
    key: Key | None = None
    size: int = 0

    def age(self, now: float) -> float:
        """Seconds since it was made (RFC 9111, 4.2.3)."""
        return self.terms.age + max(0.0, now - self.at)

    def staleness(self, now: float) -> float:
        """Seconds since it stopped being fresh; negative while it is fresh."""
        return self.age(now) - self.terms.lifetime


@dataclass(slots=True)
class _Variants:
    """The entries of one primary key, and what the newest of them varies by."""

    names: tuple[bytes, ...] = ()
    keys: set[Key] = field(default_factory=set)


class Store:
    """The response cache of one worker; every route's entries share its bytes, the least used go first.

    Args:
        max_bytes: so much is kept.
        clock: seconds, monotonic.
        wall: seconds since 1970.
    """

    def __init__(
        self, max_bytes: int = DEFAULT_BYTES, *, clock: Clock = time.monotonic, wall: Clock = time.time
    ) -> None:
        self.clock = clock
        self.wall = wall
        self.bytes = 0
        self.flights: dict[Key, Flight] = {}
        self._max_bytes = max_bytes
        self._entries: OrderedDict[Key, Entry] = OrderedDict()
        self._variants: dict[Primary, _Variants] = {}
        self._kin: dict[Key, dict[Key, None]] = {}  # entries that differ in what was off, the newest last
        # By hash: keys are as long as clients like, and who shares one with another only asks once more.
        self._passes: OrderedDict[int, float] = OrderedDict()  # and until when
        self._forgotten: OrderedDict[int, float] = OrderedDict()  # targets, and when
        self._cleared = float("-inf")  # when everything was
        self._background: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        return len(self._entries)

    # ---- look ----

    def key(self, primary: Primary, exchange: Exchange) -> Key:
        """Where the answer to a request stands, by what its kind varies by as far as we know."""
        variants = self._variants.get(primary)
        if variants is None or not variants.names:
            return primary, (), ()
        return primary, variants.names, field_values(exchange, variants.names)

    def get(self, key: Key) -> Entry | None:
        """The entry there, fresh or not; it counts as used."""
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def stand_ins(self, key: Key) -> list[Entry]:
        """What might answer there while the upstream can't, the best first; fresh or not, they count as used.

        The entry there; then the newest of those that were made while other features were off. None that is
        older than the one there: it would contradict it.
        """
        common = kin(key)
        relatives = self._kin.get(common, {}) if common is not None else {}
        keys = dict.fromkeys((key, *([next(reversed(relatives))] if relatives else ())))
        return [entry for entry in map(self.get, keys) if entry is not None]

    def passes(self, key: Key) -> bool:
        """Whether the last answer there was not to be kept, so that waiting for the next is in vain."""
        until = self._passes.get(hash(key))
        if until is None:
            return False
        if self.clock() < until:
            return True
        del self._passes[hash(key)]
        return False

    def outdated(self, primary: Primary, asked_at: float) -> bool:
        """Whether an answer that was asked for then is of before the target was forgotten: not to be kept."""
        return asked_at < self._cleared or asked_at < self._forgotten.get(hash(primary), asked_at)

    # ---- keep ----

    def put(self, primary: Primary, exchange: Exchange, entry: Entry) -> bool:
        """Keep an entry; False when it can't be found again or is too large."""
        names = varies_by(entry.headers)
        if names is None or not NEVER_THE_SAME.isdisjoint(names):
            return False
        key = (primary, names, field_values(exchange, names))
        entry.key, entry.size = key, _size(key, entry)
        self._discard(key)
        if entry.size > self._max_bytes:
            return False
        variants = self._variants.setdefault(primary, _Variants())
        variants.names = names
        variants.keys.add(key)
        common = kin(key)
        if common is not None:
            self._kin.setdefault(common, {})[key] = None
        self._entries[key] = entry
        self.bytes += entry.size
        self._passes.pop(hash(key), None)
        while self.bytes > self._max_bytes:
            self._discard(next(iter(self._entries)))
        return True

    def pass_by(self, key: Key) -> None:
        """For a while nobody need wait for an answer there."""
        place = hash(key)
        self._passes[place] = self.clock() + PASS_FOR
        self._passes.move_to_end(place)
        if len(self._passes) > MAX_PASSES:
            self._passes.popitem(last=False)

    def withdraw(self, key: Key) -> None:
        """Forget what stands there, and all that could stand in for it."""
        common = kin(key)
        for each in (key, *(self._kin.get(common, ()) if common is not None else ())):
            self._discard(each)

    def forget(self, primary: Primary) -> None:
        """Forget a target in all its variants (RFC 9111, 4.4)."""
        variants = self._variants.get(primary)
        for key in list(variants.keys) if variants is not None else ():
            self._discard(key)
        place = hash(primary)
        self._forgotten[place] = self.clock()
        self._forgotten.move_to_end(place)
        if len(self._forgotten) > MAX_FORGOTTEN:
            self._forgotten.popitem(last=False)

    def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self._variants.clear()
        self._kin.clear()
        self._passes.clear()
        self._forgotten.clear()
        self._cleared = self.clock()
        self.bytes = 0

    def resize(self, max_bytes: int) -> None:
        """Keep so much from now on."""
        self._max_bytes = max_bytes
        while self.bytes > max_bytes:
            self._discard(next(iter(self._entries)))

    def _discard(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is None:
            return
        self.bytes -= entry.size
        variants = self._variants[key[0]]
        variants.keys.discard(key)
        if not variants.keys:
            del self._variants[key[0]]
        common = kin(key)
        if common is not None:
            relatives = self._kin[common]
            del relatives[key]
            if not relatives:
                del self._kin[common]

    # ---- in the background ----

    def spawn(self, key: Key, renew: Callable[[Flight], Coroutine[Any, Any, None]]) -> bool:
        """Renew an entry while its stale answer is served; False when too many are on their way."""
        if len(self._background) >= MAX_BACKGROUND:
            return False
        flight = Flight(self.flights, key)
        task = asyncio.create_task(renew(flight), name="cache-renew")
        self._background.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._background.discard(task)
            if task.cancelled():  # perhaps before its first step
                flight.land()

        task.add_done_callback(ended)
        return True

    async def aclose(self) -> None:
        """Stop what goes on in the background."""
        tasks = list(self._background)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _size(key: Key, entry: Entry) -> int:
    primary, names, values = key
    strings = (primary[2], primary[3], *names, *(value or b"" for value in values))
    fields = sum(len(name) + len(value) for name, value in entry.headers)
    return OVERHEAD + len(entry.body) + fields + sum(map(len, strings))
