"""How many requests an upstream can work on at once, found from how long it takes to answer.

The family is that of TCP Vegas (Brakmo and Peterson, 1995) and of Gradient2Limit in Netflix's
concurrency-limits: latency above an idle upstream's is a queue, and the limit is cut in proportion to it. As
there, it grows by its square root (or an eighth) while there is no queue, and only while it holds back.

Three things differ, each for a failing of the models:

- Netflix compares with a long average, which drifts up under a lasting overload; Envoy pins the limit low to
  measure anew. Here the latency to compare with, the *base*, moves up only on evidence: where a cut did not
  bring the latency down, there was no queue to shorten, so the upstream itself has become slower. A cut that
  did bring it down may show a lower base. When nothing has confirmed it for EXPLORE_EVERY, a cut is made
  on purpose; the one that first costs throughput is taken back.
- Requests differ, and shedding changes their mix. Each route has a base of its own, and a window is judged by
  the sum of its latencies over what the same answers would have taken at their routes' bases.
- What the gateway's own loop adds is measured and not taken for the upstream's (`own_delay`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable

from gateway.config import Concurrency
from gateway.exchange import Clock

TOLERANCE = 1.75  # times the base: so much latency is no queue yet (Gradient2Limit's rttTolerance)
SLACK = 0.002  # seconds on top; noise to an upstream that answers at once
WINDOW = 0.1  # seconds; a window lasts at least so long, and twice the mean latency
FEW, MANY = 20, 50  # answers that a window needs, by the limit; twice as many to judge an exploring cut
DROPS_FREE = 0.05  # failures that cost nothing: a bug in one page must not throttle the rest
CUT = 0.7  # at most, in one window
DEEP_CUT = 0.5  # for failures, and for a latency of LONG_QUEUE bases
LONG_QUEUE = 3.0
ENOUGH = 0.2  # cuts to this share must shorten any queue, whatever other workers do meanwhile
DRAIN = 0.95  # a cut for latency goes a little below where the queue ends
EXPLORE_EVERY = 10.0  # seconds
EXPLORE_ABOVE = 0.01  # seconds; a queue within that is not worth looking for
EXPLORE_CUT = 0.7
DRIFT = 30.0  # seconds in which an unconfirmed base follows the latency of a quiet upstream up
MOST_ROUTES = 10_000  # patterns come from the config; a bound all the same


class _Route:
    """One route's base, and its answers in this window."""

    __slots__ = ("base", "count", "total")

    def __init__(self) -> None:
        self.base = 0.0  # seconds; 0: not known yet
        self.count = 0
        self.total = 0.0


class AdaptiveLimit:
    """The limit of one upstream in one worker.

    Give it each answer of the upstream itself: none that was cached, refused, cancelled or answered in the
    upstream's place. `generation` at the request's start says which limit it was admitted under; an answer to
    a request from before the last change says nothing of this one and is left out.

    Attributes:
        limit: requests that may be in flight at once.
        generation: grows with each change of the limit.
        held_back: somebody found no slot in this window; set by the gate, cleared by each judgement.
        own_delay: seconds that the gateway's own loop adds to a latency.
        base_ratio: the last window's latency, in bases; 1 is no queue.

    Args:
        settings: least, greatest and first limit.
        clock: seconds, monotonic. All workers of a host share its zero, so that they explore together: a
            cut of one alone would be filled by the others.
    """

    __slots__ = (
        *(
            "_began",
            "_clock",
            "_confirmed",
            "_count",
            "_ends",
            "_exploring",
            "_failed",
            "_limit",
            "_listener",
        ),
        *("_max", "_min", "_need", "_peak", "_routes", "_seen", "_trial", "_was_saturated"),
        *("base_ratio", "generation", "held_back", "limit", "own_delay"),
    )

    def __init__(self, settings: Concurrency, clock: Clock = time.monotonic) -> None:
        self._min, self._max = settings.min, settings.max
        self._limit = float(settings.start)
        self.limit = settings.start
        self.generation = 1
        self.held_back = False
        self.own_delay = 0.0
        self.base_ratio = 1.0
        self._clock = clock
        self._listener: Callable[[], None] = lambda: None
        self._routes: dict[str, _Route] = {}
        self._confirmed = -1  # the last of the spells of EXPLORE_EVERY in which the base was confirmed
        self._exploring = self._was_saturated = False
        self._trial: tuple[float, float] | None = (
            None  # of the last cut: latency before it, in bases; its depth
        )
        # This window's answers, by route and in number; failures among them; most in flight; when it may end.
        self._seen: list[_Route] = []
        self._count = self._failed = self._peak = self._need = 0
        self._began = self._ends = 0.0
        self._begin(clock())

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call back after each change of the limit; must not block."""
        self._listener = listener

    # ---- an answer comes ---------------------------------------------------------------------

    def answered(self, generation: int, route: str, seconds: float, in_flight: int) -> None:
        """The upstream answered.

        Args:
            generation: this limit's, when the request was admitted.
            route: the pattern of the request's route.
            seconds: from asking the upstream to its header.
            in_flight: requests that hold a slot now, this one included.
        """
        if generation != self.generation:
            return
        state = self._routes.get(route)
        if state is None:
            state = self._know(route)
        if not state.count:
            self._seen.append(state)
        state.count += 1
        state.total += seconds
        self._count += 1
        if in_flight > self._peak:
            self._peak = in_flight
        if self._count >= self._need and self._clock() >= self._ends:
            self._judge()

    def failed(self, generation: int, in_flight: int) -> None:
        """The upstream did not answer in time, broke off, or said that it can't."""
        if generation != self.generation:
            return
        self._failed += 1
        self._count += 1
        if in_flight > self._peak:
            self._peak = in_flight
        if self._count >= self._need and self._clock() >= self._ends:
            self._judge()

    # ---- a window ends -----------------------------------------------------------------------

    def _judge(self) -> None:
        now = self._clock()
        answers = self._count - self._failed
        actual = sum(route.total for route in self._seen)
        if answers and now < self._began + 2 * actual / answers:
            # Too short for this latency: the slow would be missing among those that began within it.
            self._ends = self._began + 2 * actual / answers
            return
        saturated = self.held_back or 2 * self._peak >= self.limit
        before = self._limit
        if saturated:
            if self._failed > DROPS_FREE * self._count:
                self._trial, self._exploring = None, False
                self._limit *= max(DEEP_CUT, 1 - self._failed / self._count)
            elif answers:
                self._steer(now, answers, actual)
        elif answers:
            self._learn_at_rest(now, actual)
        self._was_saturated = saturated
        self._limit = min(max(self._limit, float(self._min)), float(self._max))
        self._begin(now)
        if self._limit != before:
            self.generation += 1
            if int(self._limit) != self.limit:
                self.limit = int(self._limit)
                self._listener()

    def _steer(self, now: float, answers: int, actual: float) -> None:
        """Cut or grow: requests come faster than the limit lets them in."""
        expected = self._expected()
        ratio = actual / expected
        excess = actual - expected - answers * (SLACK + 2 * self.own_delay)
        queued = self.base_ratio = 1 + max(0.0, excess) / expected
        if ratio < 1:
            self._learn(0.5 if ratio < 0.75 else 0.05)
            if ratio < 0.75:
                self._confirmed = -1
        exploring, self._exploring = self._exploring, False
        trial, self._trial = self._trial, None
        paid = trial is None or ratio < trial[0] * (1 + trial[1]) / 2
        if exploring and not paid:
            # So many less took as long each: there was no queue to shorten, and this is the base.
            self._confirmed = self._spell(now)
            self._learn(0.7)
            self._limit /= EXPLORE_CUT  # it cost throughput and found nothing: taken back
        elif queued > TOLERANCE:
            if trial is None or paid:
                self._cut(DEEP_CUT if queued > LONG_QUEUE else max(CUT, DRAIN / queued), actual)
            elif trial[1] > ENOUGH:
                depth = trial[1]
                self._cut(CUT, actual)
                if self._trial is not None:
                    self._trial = (trial[0], depth * CUT)
            else:
                # Cuts so deep, and no shorter a queue: there was none, and the upstream has become slower.
                self._confirmed = self._spell(now)
                self._learn(0.7)
                self._limit /= trial[1]  # they cost throughput and found nothing: taken back
        elif exploring or (
            self._was_saturated  # else the queue was still filling, and no latency to compare with
            and self._confirmed != self._spell(now)
            and actual / answers > EXPLORE_ABOVE + 4 * self.own_delay
        ):
            self._cut(EXPLORE_CUT, actual)
            self._exploring = self._trial is not None
        else:
            room = (TOLERANCE - queued) / (TOLERANCE - 1)
            self._limit += max(math.sqrt(self._limit), self._limit / 8) * max(0.25, room)

    def _cut(self, depth: float, actual: float) -> None:
        after = max(self._limit * depth, float(self._min))
        if after < self._limit:
            self._trial = (actual / self._expected(), after / self._limit)
        else:  # nothing left to cut, so no more can be found out
            self._confirmed = self._spell(self._clock())
        self._limit = after

    @staticmethod
    def _spell(now: float) -> int:
        return int(now / EXPLORE_EVERY)

    def _learn_at_rest(self, now: float, actual: float) -> None:
        """The limit holds nobody back, so latency is the upstream's own: follow it down fast, up slowly."""
        ratio = actual / self._expected()
        self.base_ratio = max(1.0, ratio)
        self._confirmed = self._spell(now)
        self._trial, self._exploring = None, False
        if ratio > 1:
            self._learn(1 - math.exp((self._began - now) / DRIFT))
        else:
            self._learn(0.3 if ratio < 0.75 else 0.05)

    # ---- bases -------------------------------------------------------------------------------

    def _expected(self) -> float:
        """What the window's latencies would have been without a queue, in seconds; above 0."""
        expected = 0.0
        for route in self._seen:
            if route.base <= 0.0:
                route.base = max(route.total / route.count, 1e-6)
            expected += route.count * route.base
        return expected

    def _learn(self, weight: float) -> None:
        """Move the bases towards the window's means, the less the fewer answers stand behind one."""
        for route in self._seen:
            share = weight * route.count / (route.count + FEW)
            route.base = max(route.base + share * (route.total / route.count - route.base), 1e-6)

    def _know(self, name: str) -> _Route:
        if len(self._routes) >= MOST_ROUTES:
            self._begin(self._clock())  # the window's answers belong to routes that are forgotten now
            self._routes.clear()
        route = self._routes[name] = _Route()
        return route

    def _begin(self, now: float) -> None:
        """Start a window."""
        for route in self._seen:
            route.count, route.total = 0, 0.0
        self._seen.clear()
        self._count = self._failed = self._peak = 0
        self.held_back = False
        self._began = now
        self._ends = now + WINDOW
        self._need = min(MANY, max(FEW, 2 * self.limit)) * (2 if self._exploring else 1)
