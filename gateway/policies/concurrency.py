"""How many requests an upstream can work on at once, found from how long it takes to answer.

The family is that of TCP Vegas (Brakmo and Peterson, 1995) and of Gradient2Limit in Netflix's
concurrency-limits: latency above an idle upstream's is a queue, and the limit is cut in proportion to it. As
there, it grows by its square root (or an eighth) while there is no queue, and only while it holds back.

These things differ, each for a failing of the models:

- Netflix compares with a long average, which drifts up under a lasting overload; Envoy pins the limit low to
  measure anew. Here the latency to compare with, the *base*, moves up only on evidence: where a cut did not
  bring the latency down, there was no queue to shorten, so the upstream itself has become slower. A cut that
  did bring it down may show a lower base. When nothing has confirmed it for long, a cut is made on purpose;
  the one that first costs throughput is taken back (`trial`).
- A mean of few answers is partly chance. Here it has a standard error, by how much answers differ: while that
  leaves in doubt what a window shows, it goes on for a while, and what may be chance is no queue. Else an
  upstream whose latency varies is cut again and again for a queue that it has not.
- Requests differ, and shedding changes their mix. Each route has a base of its own, and a window is judged by
  the sum of its latencies over what the same answers would have taken at their routes' bases.
- What the gateway's own loop adds is measured and not taken for the upstream's (`own_delay`).
- A limit that was not used lately proves nothing, and a rush that fills it at once is a queue before anybody
  could measure it. So after a calm, what may be in flight (`open`) begins at twice what was, and grows by
  half with each window of answers without a queue (slow start, RFC 7661, at a pace that never opens much
  beyond what is proven). The first queue ends that, and the limit is what was open then, less the queue.
- It settles where the queue is short (`short_queue`), not wherever one is too long to be noise.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Final

from gateway.config import Concurrency
from gateway.exchange import Clock
from gateway.policies.bases import FEW, Base
from gateway.policies.concurrency_window import LONG_QUEUE, MANY, TOLERANCE, WINDOW, End, Latency, Window
from gateway.policies.short_queue import ShortQueue
from gateway.policies.trial import AT_ONCE, CLEAR, DEEP, Trial

DROPS_FREE: Final = 0.05  # failures that cost nothing: a bug in one page must not throttle the rest
CUT: Final = 0.7  # at most, in one window
DEEP_CUT: Final = 0.5  # for failures
DEEPEST_CUT: Final = 0.2  # for a long queue: to where it ends, but no deeper
LOWER: Final = 0.75  # bases; below that the base itself is too high
ENOUGH: Final = 0.2  # cuts to this share must shorten any queue, whatever other workers do meanwhile
DRAIN: Final = 1.1  # bases; a cut for latency leaves so much of a queue, for answers that differ
EXPLORE_ABOVE: Final = 0.01  # seconds; a queue within that is not worth looking for
EXPLORE_CUT: Final = 0.75
BEYOND_DOUBT: Final = 2.5  # standard errors of a window's latency; within them it may be chance
DRIFT: Final = 30.0  # seconds in which an unconfirmed base follows the latency of a quiet upstream up
# Of a slow start:
FIRST_OPEN: Final = 32  # requests that may be in flight before any was answered, if the limit is not below
FEWEST_OPEN: Final = 8  # the same after a calm
OPENING: Final = 1.5  # times what was open, after each window without a queue


class AdaptiveLimit:
    """The limit of one upstream in one worker.

    Give it each answer of the upstream itself: none that was cached, refused, cancelled or answered in the
    upstream's place. `generation` at the request's start says which limit it was admitted under; an answer to
    a request from before the last change says nothing of this one and is left out.

    Attributes:
        limit: requests that may be in flight at once.
        open: those of them that may be used yet; the limit, but in a slow start.
        generation: grows with each change of the limit.
        own_delay: seconds that a turn of the gateway's own loop usually takes.
        stall: seconds that one took of late at the most.
        base_ratio: the last window's latency, in bases; 1 is no queue.

    Args:
        settings: least, greatest and first limit.
        clock: seconds, monotonic. All workers of a host share its zero, so that they explore together: a
            cut of one alone would be filled by the others.
    """

    __slots__ = (
        *("_bases", "_clock", "_known", "_limit", "_listener", "_max", "_min", "_open", "_short", "_trial"),
        *("_was_saturated", "_window", "base_ratio", "generation", "limit", "open", "own_delay", "stall"),
    )

    def __init__(self, settings: Concurrency, clock: Clock = time.monotonic) -> None:
        self._min, self._max = settings.min, settings.max
        self._limit = float(settings.start)
        self.limit = settings.start
        self.open = min(settings.start, FIRST_OPEN)
        self._open = float(self.open)
        self.generation = 1
        self.own_delay = self.stall = 0.0
        self.base_ratio = 1.0
        self._clock = clock
        self._listener: Callable[[], None] = lambda: None
        self._window = Window(clock)
        self._bases = self._window.bases
        self._known = self._bases.known
        self._was_saturated = False
        self._trial = Trial()
        self._short = ShortQueue()
        self._begin(clock())

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call back after each change of `limit` or `open`; must not block."""
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
        base = self._known.get(route)
        if base is None:
            base = self._know(route)
        if generation != self.generation:
            return
        end = self._window.answered(base, seconds, in_flight)
        if end is not None:
            self._judge(end)

    def failed(self, generation: int, in_flight: int) -> None:
        """The upstream did not answer in time, broke off, or said that it can't."""
        if generation != self.generation:
            return
        end = self._window.failed(in_flight)
        if end is not None:
            self._judge(end)

    def hold_back(self) -> None:
        """Somebody found no slot."""
        window = self._window
        if not window.held_back:
            if window.starting:
                self._begin(self._clock(), rush=True)  # what was answered before tells nothing of it
            window.held_back = True

    def _know(self, route: str) -> Base:
        base = self._bases.know(route)
        if not self._bases.seen:  # what the window has counted may have been forgotten just now
            self._begin(self._clock())
        return base

    def _begin(self, now: float, *, rush: bool = False) -> None:
        """Start a window."""
        self._window.begin(now, self.limit, self.open, self.own_delay, rush=rush)

    # ---- a window ends -----------------------------------------------------------------------

    def _judge(self, end: End) -> None:
        now, window, before = self._clock(), self._window, self._limit
        if end == "first":
            self._begin(now)
            return
        saturated = window.saturated
        if end == "row":
            self._steer(now, window.row_latency(self.own_delay))
        elif not saturated:
            if window.answers:
                self._learn_at_rest(now, window.latency(self.own_delay))
        elif window.failures > DROPS_FREE * window.count:
            self._trial.end()
            self._limit = self._used() * max(DEEP_CUT, 1 - window.failures / window.count)
        elif window.answers:
            latency = window.latency(self.own_delay)
            if not self._sure(now, latency):
                window.go_on()
                return
            self._steer(now, latency)
        self._end(now, before, saturated=saturated)

    def _used(self) -> float:
        """The limit, or what a slow start has made of it."""
        if not self._window.starting:
            return self._limit
        return min(self._limit, float(max(self.open, self._window.peak, self._min)))

    def _sure(self, now: float, latency: Latency) -> bool:
        """Whether a window shows more than chance; if not, some more answers may."""
        window, queued, error = self._window, latency.queued, latency.error
        beyond = queued > 1 + BEYOND_DOUBT * error
        if window.starting:
            # A slow start goes on without a queue, and ends with one that is beyond doubt.
            if queued <= self._short.target(self.open):
                return True
            few = FEW if queued > TOLERANCE and beyond else MANY
            return latency.answers >= few and now >= window.began + WINDOW
        if not window.patient:
            return True
        if self._trial.running:
            return self._trial.clear(latency.ratio, error, AT_ONCE)
        if queued > TOLERANCE:
            return beyond
        if latency.actual < LOWER * latency.expected:
            return error <= CLEAR  # fewer answers than many would teach a base that is too low
        return error <= CLEAR or not self._look(now, latency)

    def _end(self, now: float, before: float, *, saturated: bool) -> None:
        """The limit is found; what may be used of it follows, and the next window begins."""
        window, told = self._window, (self.limit, self.open)
        self._limit = min(max(self._limit, float(self._min)), float(self._max))
        self.limit = int(self._limit)
        if not saturated:
            self._open = float(max(FEWEST_OPEN, 2 * window.peak))
        elif not window.starting:
            self._open = self._limit
        self.open = min(self.limit, int(self._open))
        self._was_saturated = saturated
        self._begin(now)
        if self._limit != before or (saturated and self.open > told[1]):
            self.generation += 1
            if not window.starting:
                window.settle()
        if told != (self.limit, self.open):
            self._listener()

    def _steer(self, now: float, latency: Latency) -> None:
        """Cut or grow: requests come faster than the limit lets them in."""
        ratio, error = latency.ratio, latency.error
        queued = self.base_ratio = latency.queued
        short, target, trial = self._short, self._short.target(self.open), self._trial
        if queued > TOLERANCE and latency.excess < latency.answers * 2 * (self.stall - self.own_delay):
            return  # late by our own doing, as far as anybody can tell
        if self._window.starting and queued <= target:
            self._open = self.open * OPENING
            return
        self._limit = self._used()
        if queued <= target:
            self._bases.vary(latency.answers)
        if ratio < 1:
            lower = ratio < min(LOWER, 1 - 2 * short.noise, 1 - BEYOND_DOUBT * error)
            self._bases.learn(0.5 if lower else 0.02)
            if lower:
                trial.mistrust()
        exploring, verdict = trial.exploring, trial.judge(ratio, error)
        if exploring and verdict in {"in vain", "unclear"}:
            trial.confirm(now)
            if verdict == "in vain":
                # So many less took as long each: there was no queue to shorten, and this is the base.
                self._bases.learn(0.7)
            self._limit = trial.limit  # it cost throughput and found nothing: taken back
        elif verdict == "in vain" and (queued > TOLERANCE or trial.depth < DEEP):
            if queued > TOLERANCE and trial.depth > ENOUGH and self._limit > self._min:
                self._limit = max(self._limit * CUT, float(self._min))
                trial.deepen(self._limit)
            else:
                # Cuts so deep, and no shorter a queue: there was none, and the upstream has become slower.
                trial.confirm(now)
                self._bases.learn(1.0)
                self._limit = trial.limit  # they cost throughput and found nothing: taken back
        elif queued > max(TOLERANCE, 1 + 2 * short.noise, 1 + BEYOND_DOUBT * error):
            self._cut(max(DEEPEST_CUT if queued > LONG_QUEUE else CUT, DRAIN / queued), ratio, error)
        elif exploring or self._look(now, latency):
            self._cut(EXPLORE_CUT, ratio, error, exploring=True)
        elif queued > target:
            self._limit, believed = short.let_down(self._limit, queued / target)
            if believed:
                self._bases.learn(0.7)
            return
        else:
            self._limit = short.grow(self._limit, (target - queued) / (target - 1))
            return
        short.over()

    def _look(self, now: float, latency: Latency) -> bool:
        """Whether it is time to look for a queue that nobody sees."""
        return (
            self._was_saturated  # else the queue was still filling, and no latency to compare with
            and self._trial.due(now, latency.expected / latency.answers)
            and latency.actual / latency.answers > EXPLORE_ABOVE + 4 * self.own_delay
        )

    def _cut(self, depth: float, ratio: float, error: float, *, exploring: bool = False) -> None:
        after = max(self._limit * depth, float(self._min))
        if after < self._limit:
            self._trial.begin(self._limit, after, ratio, error, exploring=exploring)
        else:  # nothing left to cut: it gets no quicker
            self._trial.confirm(self._clock())
            self._bases.learn(0.5)
        self._limit = after

    def _learn_at_rest(self, now: float, latency: Latency) -> None:
        """The limit holds nobody back, so latency is the upstream's own: follow it down fast, up slowly."""
        ratio = latency.ratio
        self.base_ratio = max(1.0, ratio)
        self._short.at_rest(ratio)
        self._bases.vary(latency.answers)
        self._trial.confirm(now)
        self._trial.end()
        if ratio > 1 - 2 * latency.error:  # what may be chance moves it as far down as up
            self._bases.learn(1 - math.exp((self._window.began - now) / DRIFT), young=True)
        else:
            self._bases.learn(0.3 if ratio < LOWER else 0.05, young=True)
