"""What a load saw around one stop of Redis."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise


@dataclass(frozen=True, slots=True)
class Sample:
    """One request: by which host, when it was sent and answered (seconds), and whether it was admitted."""

    host: int
    sent: float
    answered: float
    admitted: bool


@dataclass(slots=True)
class Round:
    """One stop of Redis.

    Attributes:
        stopped: when, in seconds on the samples' clock.
        resumed: when it was let go.
        back: when every worker shared again.
        ended: when the load did.
        samples: every request.
        lost: how often a worker lost Redis while the others had it: a busy machine.
    """

    stopped: float = 0.0
    resumed: float = 0.0
    back: float = 0.0
    ended: float = 0.0
    samples: list[Sample] = field(default_factory=list)
    lost: int = 0

    def latencies(self, since: float, until: float) -> list[float]:
        """Milliseconds of the requests sent in an interval."""
        return [(one.answered - one.sent) * 1000 for one in self.samples if since <= one.sent < until]

    def rate(self, since: float, until: float, host: int | None = None) -> float:
        """Admitted a second, in an interval, by one host or by all."""
        found = [
            one
            for one in self.samples
            if one.admitted and since <= one.answered < until and host in {None, one.host}
        ]
        return len(found) / (until - since)

    def fullest_second(self, since: float, until: float) -> int:
        """The most that were certainly admitted within one second: both asked and answered in it."""
        found = sorted(
            (one.sent, one.answered) for one in self.samples if one.admitted and since <= one.sent < until
        )
        most = 0
        for first, (begin, _) in enumerate(found):
            within = 0
            for sent, answered in found[first:]:
                if sent >= begin + 1.0:
                    break
                within += answered < begin + 1.0
            most = max(most, within)
        return most

    def longest_pause(self, since: float, until: float) -> float:
        """Milliseconds without a request, in an interval."""
        sent = sorted(one.sent for one in self.samples if since <= one.sent < until)
        return 1000 * max((later - earlier for earlier, later in pairwise([since, *sent, until])), default=0)
