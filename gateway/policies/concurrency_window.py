"""The answers by which a limit is judged: when they are enough, and how long they took.

A window ends when it has the answers that it needs, and has lasted as long as they take; while they leave in
doubt what it shows, it goes on for some more. A row of slow answers makes it needless to see it to its end.

After a change of the limit the slow ones of those let in since are still missing among the answers (`SETTLE`,
`TAIL`): a window that counted the quick ones would not see a short queue, and one is enough where an upstream
degrades; and it would teach a base beside which the slow are a queue for ever.
"""

from __future__ import annotations

from typing import Final, Literal

from gateway.exchange import Clock
from gateway.policies.bases import Base, Bases

TOLERANCE: Final = 1.3  # times the base: so much latency is no queue yet (Gradient2Limit's rttTolerance)
SLACK: Final = 0.002  # seconds on top; noise to an upstream that answers at once
WINDOW: Final = 0.1  # seconds; a window lasts at least so long, and twice the mean latency
MANY, SOME = 50, 30  # answers that a window needs at most and at least
PATIENCE: Final = 4  # times the answers that a window needs; so many are waited for while it is in doubt
TURNS: Final = 12  # times the limit; and no more answers than that
MORE: Final = 10  # answers after which a window in doubt is looked at again
# Slow answers, one after the other, that make it needless to see a long queue's window to its end.
ROW: Final = 20
LONG_QUEUE: Final = 3.0  # bases
SLOW: Final = 0.01  # seconds beyond TOLERANCE bases; below that no answer is slow
SETTLE: Final = 1.5  # latencies after a change, in which the slow of those let in since are still missing
TAIL: Final = 2.0  # standard deviations on top: where answers differ, the slow are missing for longer
# Of a slow start:
START_WINDOW: Final = 1.5  # latencies that it lasts
START_FEW: Final = 10  # answers that it needs, or half as many as are open
START_SLACK: Final = 0.005  # seconds; so short a queue is worth no doubt
START_ROW: Final = 8  # slow answers, one after the other, that end it

End = Literal["first", "whole", "row"]


class Latency:
    """What some answers took.

    Attributes:
        answers: how many.
        actual: seconds that they took together.
        expected: seconds that they would have taken without a queue.
        error: the standard error of what they took, in bases.
        queued: what they took in bases, but for what the gateway itself adds.
    """

    __slots__ = ("actual", "answers", "error", "expected", "queued")

    def __init__(self, answers: int, actual: float, expected: float, error: float, slack: float) -> None:
        self.answers = answers
        self.actual = actual
        self.expected = expected
        self.error = error
        self.queued = 1 + max(0.0, actual - expected - answers * slack) / expected

    @property
    def ratio(self) -> float:
        """What they took, in bases."""
        return self.actual / self.expected

    @property
    def excess(self) -> float:
        """Seconds that they were queued, together."""
        return (self.queued - 1) * self.expected


class Window:
    """What has been answered since the limit was last judged.

    Attributes:
        bases: what answers take without a queue.
        began: when, in seconds.
        starting: the limit is in a slow start.
        held_back: somebody found no slot.
        count: answers and failures.
        failures: of these.
        peak: most requests in flight.
        mean: seconds that answers took, in the last window that had some; 0: there was none yet.
    """

    __slots__ = (
        *("_clock", "_ends", "_limit", "_most", "_need", "_open", "_settles"),
        *("_row", "_row_actual", "_row_expected", "_row_long", "_row_need"),
        *("bases", "began", "count", "failures", "held_back", "mean", "peak", "starting"),
    )

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.bases = Bases()
        self.mean = 0.0

    # ---- its life ----------------------------------------------------------------------------

    def begin(self, now: float, limit: int, open_now: int, own_delay: float, *, rush: bool = False) -> None:
        """Start anew, without answers.

        Args:
            now: seconds.
            limit: requests that may be in flight at once.
            open_now: those of them that may be used yet.
            own_delay: seconds that a turn of the gateway's own loop takes.
            rush: a slow start has found the first who must wait.
        """
        self.bases.begin(TOLERANCE, max(SLOW, SLACK + 2 * own_delay))
        self._limit, self._open = limit, open_now
        self.starting = open_now < limit
        self.began = now
        self.held_back = False
        self.count = self.failures = self.peak = 0
        # Slow answers, one after the other; what they took, and would have taken without a queue.
        self._row, self._row_actual, self._row_expected = 0, 0.0, 0.0
        self._row_need, self._row_long = ROW, LONG_QUEUE
        self._need = min(MANY, max(SOME, 2 * limit))  # answers
        self._most = max(self._need, min(PATIENCE * self._need, TURNS * limit))
        self._settles = 0.0  # when answers may be counted; 0: now
        self._ends = now + WINDOW  # when it may end
        if self.starting:
            self._row_need, self._row_long = START_ROW, 0.0
            if rush or not self.mean:
                self._ends = now
                self._need = min(MANY, max(START_FEW, open_now // 2))

    def settle(self) -> None:
        """Count no answer until the slow of those let in since a change are among them."""
        self._settles = self.began + SETTLE * self.mean + TAIL * self.bases.spread
        self._ends = max(self._ends, self._settles + self.mean)

    def go_on(self) -> None:
        """It is in doubt: wait for some more answers."""
        self._need = self.count + MORE

    # ---- an answer comes ---------------------------------------------------------------------

    def answered(self, base: Base, seconds: float, in_flight: int) -> End | None:
        """Take in an answer.

        Returns:
            What there is to judge by now: the whole window, or its row of slow answers. The first of all
            shows only a mean: none was answered but those that began with it, so the slow are missing.
        """
        if in_flight > self.peak:
            self.peak = in_flight
        if seconds > base.slow:
            self._row += 1
            self._row_actual += seconds
            self._row_expected += base.seconds
            if self._row >= self._row_need and self._row_is_long:
                return "row"
        elif self._row:
            self._row, self._row_actual, self._row_expected = 0, 0.0, 0.0
        if self._settles:
            if self._clock() < self._settles:
                return None
            self._settles = 0.0
        if not base.count:
            self.bases.seen.append(base)
        base.count += 1
        base.total += seconds
        base.squares += seconds * seconds
        self.count += 1
        return self._end() if self.count >= self._need else None

    def failed(self, in_flight: int) -> End | None:
        """Take in a failure; as `answered`."""
        self.failures += 1
        self.count += 1
        if in_flight > self.peak:
            self.peak = in_flight
        return self._end() if self.count >= self._need else None

    def _end(self) -> End | None:
        now = self._clock()
        if now < self._ends:
            return None
        if answers := self.answers:
            first, self.mean = not self.mean, max(self.bases.actual() / answers, 1e-6)
            if first:
                return "first"
            least = self.began + (START_WINDOW if self.starting else 2) * self.mean
            if now < least:
                # Too short for this latency: the slow would be missing among those that began within it.
                self._ends = least
                return None
        return "whole"

    @property
    def _row_is_long(self) -> bool:
        return (
            self._row_actual > self._row_long * self._row_expected
            and self.saturated
            and self._clock() >= self.began + WINDOW  # by then the loop has been timed
        )

    # ---- what it shows -----------------------------------------------------------------------

    @property
    def answers(self) -> int:
        """Without the failures."""
        return self.count - self.failures

    @property
    def saturated(self) -> bool:
        """The limit, or what a slow start has opened of it, holds requests back."""
        if self.starting:
            return self.held_back and 4 * self.peak >= 3 * self._open
        return self.held_back or 2 * self.peak >= self._limit

    @property
    def patient(self) -> bool:
        """More answers may be waited for."""
        return self.count < self._most

    def latency(self, own_delay: float) -> Latency:
        """What its answers took; there must be some."""
        expected = self.bases.expected()
        error = self.bases.error(self.answers) / expected
        return Latency(self.answers, self.bases.actual(), expected, error, self._slack(own_delay))

    def row_latency(self, own_delay: float) -> Latency:
        """What the slow answers of its row took, which is beyond chance."""
        return Latency(self._row, self._row_actual, self._row_expected, 0.0, self._slack(own_delay))

    def _slack(self, own_delay: float) -> float:
        slack = SLACK + 2 * own_delay
        return max(slack, START_SLACK) if self.starting else slack
