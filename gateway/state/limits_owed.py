"""What was admitted while the shared store was away, and is to be charged when it is back."""

from __future__ import annotations

import dataclasses

from gateway.exchange import Hit, Terms

MAX_KEYS = 20_000  # remembered per worker; the oldest go first


_Taken = tuple[Terms, str, int, int, int]  # whose; a window's number, tokens taken in it, in the one before


class Owed:
    """Tokens taken of each key in its last two windows, by a worker that judged alone.

    Without it a limit's whole capacity would be there again at the moment of return, on top of what was
    admitted just before: a burst above the limit. What is remembered is at least what still counts, by any
    of the algorithms, so the return is rather too strict, for a window, than too lax.
    """

    __slots__ = ("_keys",)

    def __init__(self) -> None:
        self._keys: dict[
            str, tuple[Terms, str, int, int, int]
        ] = {}  # …, window's number, tokens in it, before it

    def __len__(self) -> int:
        return len(self._keys)

    def add(self, terms: Terms, key: str, now: int) -> None:
        """A request was admitted; `now` in microseconds."""
        name = terms.counter + key
        window = now // terms.microseconds
        _, _, last, taken, before = self._keys.get(name, (terms, key, window, 0, 0))
        if window != last:
            before = taken if window == last + 1 else 0
            taken = 0
        self._keys[name] = (terms, key, window, taken + terms.cost, before)
        if len(self._keys) > MAX_KEYS:
            del self._keys[next(iter(self._keys))]

    def settle(self, now: int) -> list[Hit]:
        """What is owed at `now`, a hit for each key, and nothing afterwards."""
        hits: list[Hit] = []
        for terms, key, window, taken, before in self._keys.values():
            late = now // terms.microseconds - window
            tokens = taken + before if late == 0 else taken if late == 1 else 0
            if tokens:
                hits.append((dataclasses.replace(terms, cost=min(tokens, terms.capacity)), key))
        self._keys.clear()
        return hits
