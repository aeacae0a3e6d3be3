"""What the crowd wrote down: every request with its answer, and what became of every buyer."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Note:
    """One request as its sender saw it.

    Attributes:
        what: page, recommendations, session, order, read or pay.
        at: seconds since the beginning.
        took: seconds to the whole answer, or until it was given up.
        status: of the answer; None when there was none.
        told_when: whether a refusal said when to come back; None where that is not asked of it.
        degraded: whether a fallback stood in.
    """

    what: str
    at: float
    took: float
    status: int | None
    told_when: bool | None = None
    degraded: bool = False

    @property
    def kind(self) -> str:
        """How it ended: good, degraded, limited, shed, refused, failed or lost."""
        if self.status is None:
            return "lost"
        if self.degraded:
            return "degraded"
        if self.status == 429:
            return "limited"
        if self.status == 503:
            return "shed"
        if self.status >= 500:
            return "failed"
        return "good" if self.status < 400 else "refused"


@dataclass
class Buyer:
    """What became of one who wanted to buy.

    Attributes:
        number: who.
        twice: presses the button twice.
        leaves: never pays.
        end: delivered, refunded, sold out, left (did not pay, on purpose), refused, or gave up.
        said: why, where it is not good.
        order_id: as answered with 202.
        paid: whether the provider took the money.
        keys: what was received.
        waited: seconds from pressing *buy* to the key.
    """

    number: int
    twice: bool = False
    leaves: bool = False
    end: str = "gave up"
    said: str = ""
    order_id: str | None = None
    paid: bool = False
    keys: list[str] = field(default_factory=list)
    waited: float | None = None


@dataclass
class Notes:
    """All of it.

    Attributes:
        cards: how many there were to sell.
        returning: how many more were held for unpaid orders of before, and may have come back meanwhile.
        requests: every request, in the order of its end.
        buyers: everybody who wanted to buy.
        late: seconds by which arrivals were behind their plan: the crowd's own slowness.
    """

    cards: int
    requests: list[Note] = field(default_factory=list)
    buyers: list[Buyer] = field(default_factory=list)
    late: list[float] = field(default_factory=list)
    returning: int = 0

    def took(self, *what: str, statuses: Iterable[int] = ()) -> list[float]:
        """How long answers took, of these requests, of these statuses or of all."""
        wanted = set(statuses)
        return [n.took for n in self.requests if n.what in what and (not wanted or n.status in wanted)]

    def kinds(self) -> Counter[str]:
        """How requests ended."""
        return Counter(note.kind for note in self.requests)

    def ends(self) -> Counter[str]:
        """How buyers ended."""
        return Counter(buyer.end for buyer in self.buyers)


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed; 0 of none."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else 0.0
