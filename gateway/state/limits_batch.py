"""The requests of one call of lua/take.lua: how they go out, and how each gets its verdict from the reply."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from pathlib import Path

import hiredis

from gateway.exchange import ALGORITHMS, Charge, Hit, Terms, Verdict

TAKE = (Path(__file__).parent / "lua" / "take.lua").read_text()
KINDS = {name: number for number, name in enumerate(ALGORITHMS)}
MAX_HITS = 512  # per script call: about a millisecond of Redis's only thread, and far from Lua's stack limit

Waiting = tuple[Sequence[Hit], "asyncio.Future[Verdict]"]


class OutOfStepError(Exception):
    """The reply is not the one to this call; the connection can't be trusted any more."""


class Batch:
    """The requests of one script call, and the way from its reply back to each."""

    __slots__ = ("keys", "number", "requests", "specs", "waiting")

    def __init__(self, number: int, prefix: str, waiting: Sequence[Waiting]) -> None:
        self.number = b"%d" % number
        self.waiting = waiting
        self.keys: dict[str, int] = {}
        self.specs: dict[Terms, int] = {}
        self.requests: list[list[int]] = []
        keys, specs = self.keys, self.specs
        for hits, _ in waiting:
            request: list[int] = []
            for hit in hits:
                terms = hit.terms
                key = prefix + terms.counter + hit.key
                request.append(keys.setdefault(key, len(keys) + 1))
                request.append(specs.setdefault(terms, len(specs) + 1))
            self.requests.append(request)

    def command(self, *script: str) -> bytes:
        """The call as it goes over the wire; `script` is EVALSHA and a hash, or EVAL and the source."""
        call = json.dumps(
            {"specs": [spec(terms) for terms in self.specs], "requests": self.requests},
            separators=(",", ":"),
            check_circular=False,
        )
        # redis-py packs in Python, at a microsecond per key.
        words = (*script, len(self.keys), *self.keys, self.number, call)
        packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub wants a 1-tuple
        return packed

    def settle(self, reply: object) -> list[tuple[Hit, Charge]]:
        """Hand each request its verdict; returns what refused somebody.

        Raises:
            OutOfStepError: the reply belongs to another call.
        """
        expected = 2 + 2 * sum(map(len, self.requests))
        if not isinstance(reply, list) or len(reply) != expected or reply[0] != self.number:
            raise OutOfStepError("Redis answered another call than the one asked")
        at = 2
        full: list[tuple[Hit, Charge]] = []
        for hits, future in self.waiting:
            verdict = []
            for hit in hits:
                allowed, remaining, reset, wait = reply[at : at + 4]
                at += 4
                charge = Charge(allowed == 1, remaining, hit.terms.capacity, reset / 1e6, wait / 1e6)
                verdict.append(charge)
                if allowed != 1 and not hit.terms.shadow:
                    full.append((hit, charge))
            if not future.done():  # its caller may be gone
                future.set_result(verdict)
        return full


def spec(terms: Terms) -> tuple[int, int, int, int, int]:
    """What take.lua must know of a limit."""
    return (terms.capacity, terms.microseconds, KINDS[terms.algorithm], int(terms.shadow), terms.cost)


def split(waiting: Sequence[Waiting]) -> list[list[Waiting]]:
    """Whoever still waits, in portions of a bearable size; one empty portion when nobody does."""
    portions: list[list[Waiting]] = [[]]
    size = 0
    for one in waiting:
        if one[1].done():  # the cancelled cost nothing
            continue
        if size + len(one[0]) > MAX_HITS and portions[-1]:
            portions.append([])
            size = 0
        portions[-1].append(one)
        size += len(one[0])
    return portions
