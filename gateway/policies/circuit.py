"""The circuit of one upstream: closed while it is well, open while it is sick, half-open to find out.

pybreaker holds the state and tells its listeners; it is asked only at transitions. Its own gate is not
used: it admits everyone while half-open, counts consecutive failures only, and counts cancellations. So
the ratio window, the probes' permits and the rules of what counts as a failure are ours.
"""

from __future__ import annotations

import logging
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pybreaker

from gateway import config
from gateway.exchange import Clock

State = Literal["closed", "open", "half-open"]
Cause = Literal["failures", "slowness", "probes", "hint", "forced"]

REFUSED = 0  # the ticket of those who may not pass; others are never 0
BUCKETS = 10  # the window forgets a tenth of itself at a time
GROWTH = 1.5  # each opening in a row lasts so much longer than the one before
MAX_GROWTH = 6.0  # but at most so many times open_for
JITTER = 0.1  # of the open time, either way: workers must not probe in step
RAMP_SECONDS = 3.0  # over which traffic comes back after closing
RAMP_START = 16  # requests that may be in flight when it begins, one page's worth; a crowd may not
RAMP_DOUBLES = 0.5  # seconds in which that number doubles
LEASE_SECONDS = 15.0  # after which the permit of a probe that hangs is given to another

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """A transition of one circuit.

    Attributes:
        upstream: the circuit's name.
        before: the state it left.
        after: the state it entered.
        cause: why; "hint" and "forced" come from outside and are not to be published again.
        seconds: how long it stays open; 0 unless `after` is "open".
    """

    upstream: str
    before: State
    after: State
    cause: Cause
    seconds: float


class Window:
    """Requests, failures and slow answers of the last `seconds`, in buckets."""

    __slots__ = ("_counts", "_ends", "_epoch", "_width", "failed", "slow", "total")

    def __init__(self, seconds: float) -> None:
        self._width = seconds / BUCKETS
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._counts = [[0, 0, 0] for _ in range(BUCKETS)]
        self._epoch = -BUCKETS  # number of the newest bucket since the clock's zero
        self._ends = -math.inf  # when the newest bucket is full
        self.total = self.failed = self.slow = 0

    def add(self, now: float, *, failed: bool, slow: bool) -> None:
        """Count one result at `now`, seconds on a clock that never goes back."""
        if now >= self._ends:
            self._advance(now)
        bucket = self._counts[self._epoch % BUCKETS]
        bucket[0] += 1
        self.total += 1
        if failed:
            bucket[1] += 1
            self.failed += 1
        if slow:
            bucket[2] += 1
            self.slow += 1

    def _advance(self, now: float) -> None:
        epoch = int(now / self._width)
        for fresh in range(max(self._epoch, epoch - BUCKETS) + 1, epoch + 1):
            bucket = self._counts[fresh % BUCKETS]
            self.total -= bucket[0]
            self.failed -= bucket[1]
            self.slow -= bucket[2]
            bucket[:] = (0, 0, 0)
        self._epoch = max(epoch, self._epoch)
        self._ends = (self._epoch + 1) * self._width


class _Relay(pybreaker.CircuitBreakerListener):
    """Carries the machine's transitions to those who asked the circuit for them."""

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell

    def state_change(
        self,
        cb: pybreaker.CircuitBreaker,  # noqa: ARG002 - pybreaker's signature
        old_state: object,  # noqa: ARG002 - the same
        new_state: object,  # noqa: ARG002 - the same
    ) -> None:
        """Called by pybreaker after each transition."""
        self._tell()


class Circuit:
    """The health of one upstream as one worker sees it.

    Whoever enters gets a ticket, and gives it back with `record` or `release`. A ticket from before
    the last transition says nothing any more and is ignored.

    Args:
        name: the upstream's name.
        settings: thresholds.
        clock: seconds, monotonic.
        rng: the source of jitter.
        lease: seconds after which a probe that hangs loses its permit; more than the upstream's timeout.
        ramp: seconds over which traffic comes back after closing.
    """

    def __init__(
        self,
        name: str,
        settings: config.Breaker,
        *,
        clock: Clock = time.monotonic,
        rng: random.Random | None = None,
        lease: float = LEASE_SECONDS,
        ramp: float = RAMP_SECONDS,
    ) -> None:
        self.name = name
        self.settings = settings
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - jitter is no secret
        self._lease = lease
        self._ramp = ramp
        self._callbacks: list[Callable[[Change], None]] = []
        self._machine = pybreaker.CircuitBreaker(
            name=name,
            state_storage=pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED),
            listeners=[_Relay(self._tell)],
        )
        self._state: State = "closed"
        self._forced = False
        self._flowing = True  # closed and past the ramp: the hot path asks nothing else
        self._generation = 1  # of tickets given while closed
        self._window = Window(settings.window)
        self._until = 0.0  # when an open circuit begins to probe
        self._streak = 0  # openings in a row, for growth
        self._closed_at = -math.inf
        self._ramping = 0  # requests in flight since it closed, while the ramp lasts
        self._last_permit = 0  # permits count downwards, so that no ticket is ever given twice
        self._permits: dict[int, float] = {}  # a probe's ticket, and when its lease runs out
        self._answered: dict[int, bool] = {}  # probes whose header has come, and whether it was slow
        self._judged = self._failed = self._slow = 0  # probes of this half-open spell
        self._change = Change(name, "closed", "closed", "forced", 0.0)  # the last one

    # ---- what others see ---------------------------------------------------------------------

    @property
    def state(self) -> State:
        """How it stands now; an open circuit whose time is over counts as half-open."""
        if self._state == "open" and not self._forced and self._clock() >= self._until:
            return "half-open"
        return self._state

    @property
    def forced(self) -> bool:
        """Whether an operator holds it open or closed."""
        return self._forced

    @property
    def sick(self) -> bool:
        """Whether it has found the upstream unwell, and not yet found it well again."""
        return self._state != "closed" and not self._forced

    def on_change(self, callback: Callable[[Change], None]) -> None:
        """Call back after each transition, in the caller's task; must not block."""
        self._callbacks.append(callback)

    def retry_after(self) -> float:
        """Seconds after which one who was refused may try again, 1 or more."""
        if self._state != "open":
            return 1.0
        if self._forced:
            return max(1.0, self.settings.open_for)
        return max(1.0, self._until - self._clock())

    # ---- a request comes and goes ------------------------------------------------------------

    def enter(self) -> int:
        """A ticket, or REFUSED."""
        return self._generation if self._flowing else self._enter_carefully()

    def answered(self, ticket: int, *, slow: bool) -> None:
        """The header of a stream has come; a probe that flows on for its whole lease is well."""
        if ticket in self._permits:
            self._answered[ticket] = slow

    def record(self, ticket: int, *, failed: bool, slow: bool = False) -> None:
        """The upstream's own result."""
        if ticket < 0:
            if ticket in self._permits:
                self._judge_probe(ticket, failed, slow)
        elif ticket == self._generation:
            self._ramping -= 1
            window = self._window
            window.add(self._clock(), failed=failed, slow=slow)
            if window.failed or window.slow:
                self._judge_window()

    def release(self, ticket: int) -> None:
        """It came to nothing, and by no fault of the upstream's: give the permit back."""
        if ticket == self._generation:
            self._ramping -= 1
        elif self._permits.pop(ticket, None) is not None:
            self._answered.pop(ticket, None)

    # ---- orders from outside -----------------------------------------------------------------

    def force(self, state: Literal["open", "closed", "auto"]) -> None:
        """Hold it open or closed, or let it decide again.

        Freed, it is closed with an empty window: that it was held open says nothing of the upstream.

        Raises:
            ValueError: no such state.
        """
        if state not in {"open", "closed", "auto"}:
            raise ValueError(f"breaker {self.name}: no state {state!r}; use open, closed or auto")
        if state != "auto":
            self._forced = True
            self._move(state, "forced", self.settings.open_for)
            self._flowing = state == "closed"
        elif self._forced:
            self._forced = False
            self._streak = 0
            if self._state == "open":
                self._closed_at = self._clock()
            self._move("closed", "forced", 0.0)

    def trip(self, seconds: float) -> None:
        """Another worker found the upstream sick; believe it for so long."""
        if self._forced or not seconds > 0:
            return
        seconds = min(seconds, self.settings.open_for * MAX_GROWTH * (1 + JITTER))
        self._until = max(self._until, self._clock() + seconds)
        self._move("open", "hint", seconds)

    # ---- inside ------------------------------------------------------------------------------

    def _enter_carefully(self) -> int:
        now = self._clock()
        if self._forced:
            return REFUSED
        if self._state == "open":
            if now < self._until:
                return REFUSED
            self._move("half-open", "probes", 0.0)
        if self._state == "half-open":
            self._reap(now)  # may close or open it
        if self._state == "closed":
            return self._generation if self._ramp_admits(now) else REFUSED
        if self._state == "open" or len(self._permits) + self._judged >= self.settings.probes:
            return REFUSED
        self._last_permit -= 1
        self._permits[self._last_permit] = now + self._lease
        return self._last_permit

    def _ramp_admits(self, now: float) -> bool:
        """Whoever comes one after the other passes; a crowd is let in by and by."""
        elapsed = now - self._closed_at
        if elapsed >= self._ramp:
            self._flowing = True
        elif self._ramping >= RAMP_START * 2.0 ** (elapsed / RAMP_DOUBLES):
            return False
        self._ramping += 1
        return True

    def _reap(self, now: float) -> None:
        for ticket in [ticket for ticket, ends in self._permits.items() if now >= ends]:
            slow = self._answered.get(ticket)
            if slow is None:
                self.release(ticket)
            else:
                self.record(ticket, failed=False, slow=slow)  # ignored once one of them has decided

    def _judge_window(self) -> None:
        window, settings = self._window, self.settings
        if self._forced or window.total < settings.min_requests:
            return
        if window.failed >= settings.failure_ratio * window.total:
            self._open("failures")
        elif window.slow >= settings.slow_ratio * window.total:
            self._open("slowness")

    def _judge_probe(self, ticket: int, failed: bool, slow: bool) -> None:
        self.release(ticket)
        self._judged += 1
        self._failed += failed
        self._slow += slow
        settings = self.settings
        # The same ratios as in the window: whatever was well enough to stay closed is so to close again.
        if (
            self._failed >= settings.failure_ratio * settings.probes
            or self._slow >= settings.slow_ratio * settings.probes
        ):
            self._open("probes")
        elif self._judged >= settings.probes:
            self._closed_at = self._clock()
            self._move("closed", "probes", 0.0)

    def _open(self, cause: Cause) -> None:
        now = self._clock()
        relapse = self._state == "half-open" or now - self._closed_at <= self.settings.window
        self._streak = self._streak + 1 if relapse else 0
        # GROWTH ** 8 is already beyond MAX_GROWTH; a year of outage must not overflow.
        growth = min(GROWTH ** min(self._streak, 8), MAX_GROWTH)
        seconds = self.settings.open_for * growth * self._rng.uniform(1 - JITTER, 1 + JITTER)
        self._until = now + seconds
        self._move("open", cause, seconds)

    def _move(self, state: State, cause: Cause, seconds: float) -> None:
        before = self._state
        self._restart()
        if state == before:
            return
        # Set before the machine moves: those whom its listener calls may look at us.
        self._state = state
        self._change = Change(self.name, before, state, cause, seconds if state == "open" else 0.0)
        if state == "open":
            self._machine.open()
        elif state == "closed":
            self._machine.close()
        else:
            self._machine.half_open()

    def _tell(self) -> None:
        for callback in self._callbacks:
            try:
                callback(self._change)
            except Exception:
                # A listener's defect must not fail the shopper's request.
                log.exception("breaker %s: a listener failed", self.name)

    def _restart(self) -> None:
        """Tickets of before are void, counts begin anew."""
        self._generation += 1
        self._flowing = False
        self._permits.clear()
        self._answered.clear()
        self._judged = self._failed = self._slow = self._ramping = 0
        self._window.clear()
