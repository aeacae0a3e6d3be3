"""What a host admits by its share of the limits, while the Redis that counts for all hosts is away."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.exchange import Charge, Clock, Hit, Verdict
from gateway.state.counters import Counters
from gateway.state.limits_full import Spent
from gateway.state.limits_local import LocalLimits
from gateway.state.limits_owed import Owed

UNCHECKED = 1_000_000  # microseconds for which `on_store_failure: refuse` refuses


class HostShare:
    """Judges without the store, as each limit's `on_store_failure` says, and remembers what is owed to it.

    "local" judges by this host's share (limit x its workers ÷ all that live), "allow" admits, "refuse"
    refuses for a second, which the policy answers with 503: it is not the client's doing.

    Args:
        counters: where this host's workers count; if not shared, each judges its own part.
        workers: of this host.
        clock: seconds, the same for all workers of this host.

    Attributes:
        owed: admitted, and not yet charged to the store.
        full: counters that were full in the store when it was lost: as much of their share is used up, or
            it would be there on top of what the store had just admitted.
    """

    def __init__(self, counters: Counters, workers: int, clock: Clock) -> None:
        self.owed = Owed()
        self.full: dict[str, Spent] = {}
        self._local = LocalLimits(counters, workers=workers, clock=clock, fallback=True)
        self._judges = 1 if counters.lock is None else workers  # who judge together what is judged here
        self._workers = workers
        self._clock = clock
        self.resize(workers)

    def resize(self, alive: int) -> None:
        """Take in how many workers there are, over all hosts."""
        self._local.share = (self._judges, max(alive, self._workers))

    def refusal(self, hits: Sequence[Hit]) -> Verdict | None:
        """Charge the limits that are judged locally; the verdict if that refuses, else None."""
        judged = iter(self._local.try_take([hit for hit in hits if hit[0].on_store_failure == "local"]))
        verdict = [next(judged) if hit[0].on_store_failure == "local" else None for hit in hits]
        refused = any(
            charge and not charge[0] and not hit[0].shadow for hit, charge in zip(hits, verdict, strict=True)
        )
        return verdict if refused else None

    def judge(self, hits: Sequence[Hit]) -> Verdict:
        """Charge every limit at once, or none."""
        local = [hit for hit in hits if hit[0].on_store_failure == "local"]
        if self.full:
            for hit in local:
                spent = self.full.pop(hit[0].counter + hit[1], None)
                if spent is not None:
                    self._local.fill(hit, spent)
        refused = any(terms.on_store_failure == "refuse" and not terms.shadow for terms, _ in hits)
        judged = self._local.judge(local, refused=True) if refused else self._local.try_take(local)
        both = list(zip(local, judged, strict=True))
        if not refused and all(charge is not None and (charge[0] or hit[0].shadow) for hit, charge in both):
            now = round(self._clock() * 1e6)
            for (terms, key), charge in both:
                if charge is not None and charge[0]:
                    self.owed.add(terms, key, now, self._local.share[1])
        if len(local) == len(hits):
            return judged
        answers = iter(judged)
        return [
            next(answers)
            if terms.on_store_failure == "local"
            else _allowed(terms.capacity)
            if terms.on_store_failure == "allow"
            else (False, 0, terms.capacity, UNCHECKED, UNCHECKED, True)
            for terms, _ in hits
        ]


def _allowed(capacity: int) -> Charge:
    return True, capacity, capacity, 0, 0, True
