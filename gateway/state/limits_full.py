"""Keys that are known to be over their limit: judging them again would be a waste."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Final

from gateway.exchange import Charge, Clock, Hit, Verdict

MAX_KEYS: Final = 20_000  # remembered per worker; the oldest go first, and are judged again
# Microseconds; a Redis that lost its counters, or whose clock was set, is asked by then.
LONGEST: Final = 5_000_000
DRIFT: Final = 0.999  # our clock may run so much slower than Redis's

# When the answer is no longer certain, in microseconds on our clock; capacity, cost, left, quota, whole at,
# free at, fallback.
_Full = tuple[int, int, int, int, int, int, int, bool]

Spent = tuple[int, int]  # until when (microseconds on our clock) how many tokens were given out


class FullKeys:
    """Answers in the counter's place while its answer is certain to be no.

    The counter refused so many tokens of a key and said when they may be had, if nobody takes any until then.
    What others take only makes that later, and our reckoning starts when we asked, before the counter judged:
    so nobody is refused here whom it would admit, unless it lost count, and then for `LONGEST` at most. A
    request that costs less, or that has a larger capacity (an operator raised it), is not covered.
    """

    __slots__ = ("_clock", "_keys", "_max_keys")

    def __init__(self, clock: Clock, max_keys: int = MAX_KEYS) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._keys: OrderedDict[str, _Full] = OrderedDict()  # a dict finds its oldest ever more slowly

    def __len__(self) -> int:
        return len(self._keys)

    def learn(self, hit: Hit, charge: Charge, asked: int) -> None:
        """Remember a refusal that was asked for at `asked`, in microseconds on our clock."""
        terms, key = hit
        _, left, quota, reset, wait, fallback = charge
        name = terms.counter + key
        keys = self._keys
        keys.pop(name, None)  # to the end of the line
        end = asked + min(LONGEST, int(wait * DRIFT))
        keys[name] = (end, terms.capacity, terms.cost, left, quota, asked + reset, asked + wait, fallback)
        if len(keys) > self._max_keys:
            keys.popitem(last=False)

    def verdict(self, hits: Sequence[Hit]) -> Verdict | None:
        """A refusal that is certain, with None for limits not known to be full. None: ask the counter."""
        keys = self._keys
        if not keys:
            return None
        found: list[Charge | None] | None = None
        for place, (terms, key) in enumerate(hits):
            name = terms.counter + key
            full = keys.get(name)
            if full is not None and not terms.shadow:
                end, capacity, cost, left, quota, whole, free, fallback = full
                now = round(self._clock() * 1e6)
                if now >= whole:
                    del keys[name]
                elif now >= end:
                    continue
                elif terms.capacity <= capacity and terms.cost >= cost:
                    if found is None:
                        found = [None] * len(hits)
                    wait, reset = free - now, whole - now
                    found[place] = (False, left, quota, max(wait, reset), wait, fallback)
        return found

    def clear(self) -> dict[str, Spent]:
        """Forget all: the counters may have been lost, or are judged by other rules now.

        Returns:
            how many tokens each counter had given out.
        """
        were = {name: (full[6], full[1] - full[3]) for name, full in self._keys.items()}
        self._keys.clear()
        return were
