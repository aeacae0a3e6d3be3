"""The requests of one call of lua/take.lua: how they go out, and how each gets its verdict from the reply."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import hiredis

from gateway.exchange import Charge, Hit, Terms, Verdict

LUA = Path(__file__).parent / "lua"
TAKE = (LUA / "take.lua").read_text()
MAX_HITS = 512  # per script call: about a millisecond of Redis's only thread, and far from Lua's stack limit

Waiting = tuple[Sequence[Hit], "asyncio.Future[Verdict]"]

# Tokens of one key that were admitted without Redis: pairs of how long ago (microseconds) and how many.
Debt = tuple[Terms, str, Sequence[float]]


class OutOfStepError(Exception):
    """The reply is not the one to this call; the connection can't be trusted any more."""


class Batch:
    """The requests of one script call, and the way from its reply back to each.

    Args:
        number: of the call; the reply must have it too.
        prefix: of every key.
        waiting: the requests, each with whoever waits for its verdict.
        debts: charged before any request is judged, whether there is room or not.
        once: a key by which debts that were charged already are known, when they are sent again.
    """

    __slots__ = ("_charges", "_debts", "_once", "_pairs", "keys", "number", "specs", "waiting")

    def __init__(
        self,
        number: int,
        prefix: str,
        waiting: Sequence[Waiting],
        debts: Sequence[Debt] = (),
        *,
        once: str = "",
    ) -> None:
        self.number = b"%d" % number
        self.waiting = waiting
        self.keys: dict[str, int] = {}
        self.specs: dict[Terms, int] = {}
        keys, specs = self.keys, self.specs
        pairs: list[str] = []
        charges = 0
        for hits, _ in waiting:
            request: list[str] = []
            for terms, key in hits:
                name = prefix + terms.counter + key
                place = keys.get(name)
                if place is None:
                    place = keys[name] = len(keys) + 1
                spec = specs.get(terms)
                if spec is None:
                    spec = specs[terms] = len(specs) + 1
                request.append(f"{place},{spec}")
            charges += len(request)
            pairs.append(",".join(request))
        self._pairs = "],[".join(pairs)
        self._charges = charges
        owed: list[str] = []
        for terms, key, taken in debts:
            place = keys.setdefault(prefix + terms.counter + key, len(keys) + 1)
            spec = specs.setdefault(terms, len(specs) + 1)
            owed.append(",".join(map(str, (place, spec, *taken))))
        self._once = keys.setdefault(once, len(keys) + 1) if once else 0
        self._debts = f"[{'],['.join(owed)}]" if owed else ""

    def call(self) -> str:
        """The JSON that take.lua reads."""
        specs = "],[".join([self._spec(terms) for terms in self.specs])
        requests = f"[{self._pairs}]" if self.waiting else ""
        return f'{{"specs":[[{specs}]],"requests":[{requests}],"debts":[{self._debts}],"once":{self._once}}}'

    def command(self, *script: str) -> bytes:
        """The call as it goes over the wire; `script` is EVALSHA and a hash, or EVAL and the source."""
        # redis-py packs in Python, at a microsecond per key.
        words = (*script, len(self.keys), *self.keys, self.number, self.call())
        packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub wants a 1-tuple
        return packed

    def settle(self, reply: object) -> list[tuple[Hit, Charge]]:
        """Hand each request its verdict; returns what refused somebody.

        Raises:
            OutOfStepError: the reply belongs to another call.
        """
        if not isinstance(reply, list) or len(reply) != 2 + 4 * self._charges or reply[0] != self.number:
            raise OutOfStepError("Redis answered another call than the one asked")
        full: list[tuple[Hit, Charge]] = []
        values = iter(reply)
        next(values), next(values)
        for hits, future in self.waiting:
            verdict: list[Charge] = []
            for hit in hits:
                terms = hit[0]
                allowed = next(values) == 1
                charge = (allowed, next(values), terms.capacity, next(values), next(values), False)
                verdict.append(charge)
                if not allowed and not terms.shadow:
                    full.append((hit, charge))
            if not future.done():  # its caller may be gone
                future.set_result(verdict)
        return full

    def _spec(self, terms: Terms) -> str:
        """What take.lua must know of a limit."""
        return f"{terms.capacity},{terms.microseconds},{terms.kind},{terms.shadow:d},{terms.cost}"


def split(waiting: Sequence[Waiting]) -> list[list[Waiting]]:
    """Whoever still waits, in portions of a bearable size.

    By size only, never by slot: the limits of a request are charged together, one of them is often global,
    so all counters of a gateway have to stand in one slot, whatever the URL; a cluster keeps a slot on one
    of its nodes.
    """
    portions: list[list[Waiting]] = []
    size = MAX_HITS
    for one in waiting:
        if one[1].done():  # the cancelled cost nothing
            continue
        if size + len(one[0]) > MAX_HITS:
            portions.append([])
            size = 0
        portions[-1].append(one)
        size += len(one[0])
    return portions
