"""What a cut of a limit has shown: whether there was a queue that it shortened.

Where latency came down with the limit there was one. Where it did not, so many less took as long each: the
latency is the upstream's own. Answers differ by chance, so both latencies come with their standard errors.
Where it rose instead, something else has happened meanwhile, and the cut has shown nothing.
"""

from __future__ import annotations

import math
from typing import Final, Literal

EXPLORE_EVERY: Final = 10.0  # seconds; or twice, four times as many, until that is
SELDOM: Final = 100  # latencies without a queue; looking takes time itself
CLEAR: Final = 0.06  # bases; a standard error of latencies by which a verdict can be clear
DOUBT: Final = 1.0  # standard errors, of both latencies together, within which it is not
# The same of a verdict on the first answers: who looks after each finds chance sooner or later.
AT_ONCE: Final = 2.0
WORSE: Final = 1.3  # times as long as before; no cut makes an upstream slower
DEEP: Final = 0.65  # cuts below this share need no clear verdict: of a queue they would have shown much more

Verdict = Literal["paid", "in vain", "unclear"]


class Trial:
    """The last cut, until it is judged; and when the base was confirmed last.

    Attributes:
        running: a cut waits to be judged.
        exploring: it was made only to look whether there is a queue.
        limit: what was cut.
        depth: the share of it that was left.
    """

    __slots__ = ("_before", "_confirmed", "_error", "depth", "exploring", "limit", "running")

    def __init__(self) -> None:
        self.running = self.exploring = False
        self.limit, self.depth = 0.0, 1.0
        self._before = self._error = 0.0  # latency before the cut, in bases, and its standard error
        self._confirmed = -math.inf  # when the base was confirmed, in seconds

    # ---- a cut -------------------------------------------------------------------------------

    def begin(
        self, limit: float, after: float, latency: float, error: float, *, exploring: bool = False
    ) -> None:
        """The limit is cut.

        Args:
            limit: before.
            after: the limit from now on.
            latency: before, in bases.
            error: the standard error of that.
            exploring: only to look whether there is a queue.
        """
        self.running, self.exploring = True, exploring
        self.limit, self.depth = limit, after / limit
        self._before, self._error = latency, error

    def deepen(self, after: float) -> None:
        """It showed no queue yet, and the limit is cut further."""
        self.running = True
        self.depth = after / self.limit

    def end(self) -> None:
        """It can't be judged any more."""
        self.running = self.exploring = False

    def clear(self, latency: float, error: float, doubt: float = DOUBT) -> bool:
        """Whether a verdict would be more than chance.

        Args:
            latency: since the cut, in bases.
            error: the standard error of that.
            doubt: standard errors, of both latencies together, within which it is chance.
        """
        return abs(latency - self._middle) >= doubt * math.hypot(error, self._error)

    def judge(self, latency: float, error: float) -> Verdict | None:
        """What the cut has shown; that ends it.

        Args:
            latency: since the cut, in bases.
            error: the standard error of that.

        Returns:
            None where there was none, or something else has happened.
        """
        running, exploring = self.running, self.exploring
        self.end()
        if not running or latency > WORSE * self._before + 2 * math.hypot(error, self._error):
            return None
        clear = self.clear(latency, error)
        if latency < self._middle:
            return "paid" if clear or not exploring else "unclear"
        return "in vain" if clear or exploring or self.depth < DEEP else "unclear"

    @property
    def _middle(self) -> float:
        """Between the latency before, and that in proportion to the limit."""
        return self._before * (1 + self.depth) / 2

    # ---- when to look ------------------------------------------------------------------------

    def confirm(self, now: float) -> None:
        """The base is known to be right at this moment (seconds)."""
        self._confirmed = now

    def mistrust(self) -> None:
        """The base is known to be wrong."""
        self._confirmed = -math.inf

    def due(self, now: float, base: float) -> bool:
        """Whether nothing has confirmed the base for long; all workers of a host find that at once.

        Args:
            now: seconds, by a clock that they share.
            base: the latency without a queue, in seconds.
        """
        every = EXPLORE_EVERY
        while every < SELDOM * base:
            every *= 2
        return self._confirmed < now // every * every
