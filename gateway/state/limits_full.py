"""Keys that are known to be over their limit: asking Redis about them again would be a waste."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.exchange import Charge, Clock, Hit, Verdict

MAX_KEYS = 20_000  # remembered per worker; the oldest go first, and cost a round trip again
LONGEST = 5.0  # seconds; a Redis that lost its counters, or whose clock was set, is asked again by then
DRIFT = 0.999  # our clock may run so much slower than Redis's


@dataclass(slots=True)
class _Full:
    """What Redis said; times in seconds on our clock."""

    capacity: int
    cost: int
    remaining: int
    until: float  # it would say so again
    free_at: float  # tokens may be had
    whole_at: float  # all of them


class FullKeys:
    """Answers in Redis's place while its answer is certain to be no.

    Redis refused so many tokens of a key and said when they may be had, if nobody takes any until then. What
    others take only makes that later, and our reckoning starts when we asked, before Redis judged: so nobody
    is refused here whom Redis would admit, unless it lost the counter, and then for `LONGEST` at most. A
    request that costs less, or that has a larger capacity (an operator raised it), is not covered.
    """

    def __init__(self, clock: Clock, max_keys: int = MAX_KEYS) -> None:
        self._clock = clock
        self._max_keys = max_keys
        self._keys: dict[str, _Full] = {}

    def __len__(self) -> int:
        return len(self._keys)

    def learn(self, hit: Hit, charge: Charge, asked: float) -> None:
        """Remember a refusal by Redis to a question that was put at `asked`, by our clock."""
        terms = hit.terms
        name = terms.counter + hit.key
        self._keys.pop(name, None)  # to the end of the line
        self._keys[name] = _Full(
            terms.capacity,
            terms.cost,
            charge.remaining,
            asked + min(LONGEST, charge.retry_after * DRIFT),
            asked + charge.retry_after,
            asked + charge.reset,
        )
        if len(self._keys) > self._max_keys:
            del self._keys[next(iter(self._keys))]

    def verdict(self, hits: Sequence[Hit]) -> Verdict | None:
        """A refusal that is certain, limits not known to be full as None in it; None: Redis must be asked."""
        if not self._keys:
            return None
        found: list[Charge | None] = [None] * len(hits)
        for place, hit in enumerate(hits):
            terms = hit.terms
            full = self._keys.get(terms.counter + hit.key)
            if full is None or terms.shadow:
                continue
            now = self._clock()
            if now >= full.until:
                del self._keys[terms.counter + hit.key]
            elif terms.capacity <= full.capacity and terms.cost >= full.cost:
                wait = full.free_at - now
                found[place] = Charge(
                    False, full.remaining, terms.capacity, max(wait, full.whole_at - now), wait
                )
        return found if any(found) else None

    def clear(self) -> None:
        """Forget all: the store was away, and may come back empty."""
        self._keys.clear()
