"""What was admitted while the shared store was away, and is to be charged when it is back.

How much a return admits, C being the capacity, W the window, c the share of a host; all shares together are
C (see algorithms.py for the bounds without an outage). Up to a moment r each admission is within its host's
share; by r all debts are charged, and from r on the store judges (see SharedLimits). An interval of length
T that begins after the store was lost and ends before r holds what shares allow, and they add up. One that
ends later:

- sliding window: **at most C (1 + T/W) for T ≤ W**, as ever. Proof. The last admission, judged by the
  store, is at offset e of a window that had n tokens before it; the window before has b, of which b₁ are in
  the interval. If that window weighs nothing by then, see algorithms.py. The store knows min(b, C) and,
  since it admits one more, all of n. If b ≤ C, it judges as ever, and so is the bound. If b > C, shares
  alone admitted them, for the store does not go beyond C: so b₁ ≤ C (1 + (T - e)/W), and the window at hand
  has C - C (W - e)/W = C e/W at most.
- fixed window: in the store's window that has r, at most C, or what shares admitted if that is more (their
  windows begin elsewhere, so 2 C at most); then C in each.
- token bucket: at most C (1 + (T + d)/W), d being the time between the first charge of debts and the last,
  which is that of two looks around. Proof, in token·time. For a worker with share c, whose debt is a bucket
  of that rate, W times its tokens from s to r are at most debt(r) + c (r - s). The store's bucket has the
  sum of debts at r, less C d; it admits C W - that + C (e - r) up to e. The sum of both is C W + C (e - s)
  + C d. Where the debts were cut at C W, the store admits C (e - r), and shares by their own bound C W + C
  (r - s).

That holds for the MAX_KEYS of each worker that were asked for last. A charge without an answer is sent again
under its number, and counts once; of a bucket's tokens until a window has passed, and as if none had drained
meanwhile.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

from gateway.exchange import ALGORITHMS, Terms
from gateway.state.limits_batch import Debt

MAX_KEYS = 20_000  # remembered per worker; the longest unused go first
SLICES = 32  # of a window: when a token was taken is remembered no finer, and told rather too late
_KEPT = 2 * SLICES + 2  # two windows, their slices rounded down to whole microseconds
_BUCKET = ALGORITHMS.index("token-bucket")


@dataclass(frozen=True, slots=True)
class Bill:
    """Debts that are charged together, once.

    Attributes:
        number: tells it from all others of this worker.
        debts: as they stood then.
        at: when that was, microseconds.
    """

    number: int
    debts: list[Debt]
    at: int

    def later(self, now: int) -> Bill:
        """The same at `now`."""
        passed = max(0, now - self.at)
        debts: list[Debt] = []
        for terms, key, told in self.debts:
            if terms.kind != _BUCKET:
                debts.append((terms, key, [n if i % 2 else n + passed for i, n in enumerate(told)]))
            elif passed < terms.microseconds:
                debts.append((terms, key, told))
        return Bill(self.number, debts, now)


class Owed:
    """Tokens taken of each key by a worker that judged alone, and when.

    Without it a limit's whole capacity would be there again at the moment of return, on top of what was
    admitted just before. When they were taken matters as much as how many: charged to one moment they would
    hold everybody up for a window, and then all be free at once. So tokens of windows are remembered for as
    long as they count, in slices of time, and charged to the window in which they were taken; the store is
    told how long ago that was, since its clock is not ours. Of a bucket's tokens those are remembered that
    have not drained yet, at the rate of this worker's own share.
    """

    __slots__ = ("_bills", "_keys", "_unpaid")

    def __init__(self) -> None:
        self._keys: OrderedDict[str, _Taken] = OrderedDict()  # a dict finds its oldest ever more slowly
        self._unpaid: Bill | None = None
        self._bills = 0

    def __len__(self) -> int:
        return len(self._keys) + (self._unpaid is not None)

    @property
    def last(self) -> bool:
        """Whether the bill at hand has all that is owed."""
        return not self._keys

    def add(self, terms: Terms, key: str, now: int, judges: int) -> None:
        """A request was admitted.

        Args:
            terms: of the limit.
            key: whom it counts.
            now: microseconds.
            judges: workers, over all hosts, that have an equal share of the limit.
        """
        name = terms.counter + key
        taken = self._keys.get(name)
        if taken is None:
            if len(self._keys) >= MAX_KEYS:
                self._keys.popitem(last=False)
            taken = self._keys[name] = (_Level if terms.kind == _BUCKET else _Slices)(terms, key, now)
        else:
            self._keys.move_to_end(name)
        taken.terms = terms
        taken.add(now, judges)

    def bill(self, now: int, most: int) -> Bill:
        """The next debts to charge; the same ones again until they are `paid`."""
        if self._unpaid is None:
            self._bills += 1
            self._unpaid = Bill(self._bills, list(self.pop(now, most)), now)
        else:
            self._unpaid = self._unpaid.later(now)
        return self._unpaid

    def paid(self) -> None:
        """The last bill has been charged."""
        self._unpaid = None

    def pop(self, now: int, most: int) -> Iterator[Debt]:
        """Debts as they stand at `now`, latest keys first, until they have `most` parts or all are told."""
        parts = 0
        while self._keys and parts < most:
            _, taken = self._keys.popitem()
            told = taken.told(now)
            if told:
                parts += len(told)
                yield taken.terms, taken.key, told


class _Slices:
    """Tokens by slice of time, the last one last."""

    __slots__ = ("_last", "_tokens", "key", "terms")

    def __init__(self, terms: Terms, key: str, now: int) -> None:
        self.terms, self.key = terms, key
        self._last = now // self._width
        self._tokens = [0]

    @property
    def _width(self) -> int:
        return max(1, self.terms.microseconds // SLICES)

    def add(self, now: int, _: int) -> None:
        passed = now // self._width - self._last
        if passed > 0:
            self._last += passed
            self._tokens += [0] * min(passed, _KEPT)
            del self._tokens[:-_KEPT]
        self._tokens[-1] += self.terms.cost

    def told(self, now: int) -> list[float]:
        """Pairs of age, in microseconds, and tokens."""
        width = self._width
        told: list[float] = []
        for slices, tokens in enumerate(reversed(self._tokens)):
            age = max(0, now - (self._last - slices + 1) * width)  # where the slice ends
            if age > 2 * self.terms.microseconds:
                break
            if tokens:
                told += (age, tokens)
        return told


class _Level:
    """Tokens that have not drained yet."""

    __slots__ = ("_at", "_judges", "_level", "key", "terms")

    def __init__(self, terms: Terms, key: str, now: int) -> None:
        self.terms, self.key = terms, key
        self._at, self._level, self._judges = now, 0.0, 1

    def _now(self, now: int) -> float:
        drained = max(0, now - self._at) * self.terms.capacity / self.terms.microseconds / self._judges
        return max(0.0, self._level - drained)

    def add(self, now: int, judges: int) -> None:
        self._level = self._now(now) + self.terms.cost
        self._at, self._judges = now, judges

    def told(self, now: int) -> list[float]:
        """As if all of them were taken now."""
        level = self._now(now)
        return [0, level] if level else []


_Taken = _Slices | _Level
