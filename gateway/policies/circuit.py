"""The circuit of one upstream: closed while it is well, open while it is sick, half-open to find out.

pybreaker holds the state and tells its listeners (circuit_state.py). Its own gate is not used: it admits
everyone while half-open, counts consecutive failures only, and counts cancellations. So the ratio window,
the probes' permits and the rules of what counts as a failure are ours.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Final, Literal

from gateway import config
from gateway.exchange import Clock
from gateway.policies.circuit_state import Cause, Change, CircuitState, State
from gateway.policies.probes import Probes
from gateway.policies.ramp import Ramp
from gateway.policies.ratio_window import RatioWindow

REFUSED: Final = 0  # the ticket of those who may not pass; others are never 0
GROWTH: Final = 1.5  # each opening in a row lasts so much longer than the one before
MAX_GROWTH: Final = 6.0  # but at most so many times open_for
JITTER: Final = 0.1  # of the open time, either way: workers must not probe in step
RAMP_SECONDS: Final = 3.0  # over which traffic comes back after closing
# Seconds, up to twice as many: by so much who was told begins to probe after the other.
HEAD_START: Final = 0.25
LEASE_SECONDS: Final = 15.0  # after which the permit of a probe that hangs is given to another


class Circuit:
    """The health of one upstream, or of one route to it, as one worker sees it.

    Whoever enters gets a ticket, and gives it back with `record` or `release`. A ticket from before
    the last transition says nothing any more and is ignored.

    Args:
        name: the upstream's name.
        settings: thresholds.
        route: the pattern of the one route that it judges; empty for all.
        clock: seconds, monotonic.
        rng: the source of jitter.
        lease: seconds after which a probe that hangs loses its permit; more than the upstream's timeout.
        ramp: seconds over which traffic comes back after closing.
        others: workers of this host that judge the same upstream.
    """

    def __init__(
        self,
        name: str,
        settings: config.Breaker,
        *,
        route: str = "",
        clock: Clock = time.monotonic,
        rng: random.Random | None = None,
        lease: float = LEASE_SECONDS,
        ramp: float = RAMP_SECONDS,
        others: int = 0,
    ) -> None:
        self.name = name
        self.route = route
        self.settings = settings
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - jitter is no secret
        self._state = CircuitState(name, route)
        self._forced = False
        self._flowing = True  # closed and past the ramp: the hot path asks nothing else
        self._generation = 1  # of tickets given while closed
        self._window = RatioWindow(settings.window)
        # Beside the probes of whoever found it sick each other worker may have one under way, all together as
        # many as are configured. Where that can't be, they wait for its word as long as a probe may hang.
        crowded = others >= settings.probes
        self._patience = lease if crowded else 0.0
        self._probes = Probes(settings.probes, lease, left=0 if crowded else others)
        self._until = 0.0  # when an open circuit begins to probe
        self._follows = False  # another worker knows more: it probes first, and this one only beside it
        self._yields_until = 0.0  # until when that one is waited for
        self._remembers = max(settings.window, lease)  # seconds after that in which probes must have spoken
        self._streak = 0  # openings in a row, for growth
        self._ramp = Ramp(ramp)  # begins when it closes

    # ---- what others see ---------------------------------------------------------------------

    @property
    def state(self) -> State:
        """How it stands now; an open circuit whose time is over counts as half-open."""
        now = self._state.now
        if now == "open" and not self._forced and self._clock() >= self._until:
            return "half-open"
        return now

    @property
    def forced(self) -> bool:
        """Whether an operator holds it open or closed."""
        return self._forced

    @property
    def sick(self) -> bool:
        """Whether it has found the upstream unwell, not yet found it well again, and may soon know more.

        Once nobody asks the upstream any more nobody finds it well: that must hold no ladder up for ever.
        """
        if self._state.now == "closed" or self._forced:
            return False
        return self._clock() < self._until + self._remembers

    def on_change(self, callback: Callable[[Change], None]) -> None:
        """Call back after each transition, in the caller's task; must not block."""
        self._state.on_change(callback)

    def retry_after(self) -> float:
        """Seconds after which one who was refused may try again, 1 or more."""
        if self._state.now != "open":
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
        self._probes.answered(ticket, slow=slow)

    def record(self, ticket: int, *, failed: bool, slow: bool = False) -> None:
        """The upstream's own result."""
        if ticket < 0:
            if ticket in self._probes:
                self._judge_probe(ticket, failed, slow)
        elif ticket == self._generation:
            self._ramp.in_flight -= 1
            window = self._window
            window.add(self._clock(), failed=failed, slow=slow)
            if failed or slow:  # a success opens nothing, however much of what came before it went wrong
                self._judge_window(failed, slow)

    def release(self, ticket: int) -> None:
        """It came to nothing, and by no fault of the upstream's: give the permit back."""
        if ticket == self._generation:
            self._ramp.in_flight -= 1
        else:
            self._probes.release(ticket)

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
            if self._state.now == "open":
                self._ramp.begin(self._clock())
            self._move("closed", "forced", 0.0)

    def trip(self, seconds: float, *, doubt: bool = False) -> None:
        """Another found the upstream sick; believe it for so long.

        Args:
            seconds: how long the other leaves it alone.
            doubt: do not believe it against good evidence of our own: the other's network may be at fault.
        """
        if self._forced or not seconds > 0 or (doubt and self._knows_better()):
            return
        self._follows = True
        seconds = min(seconds, self.settings.open_for * MAX_GROWTH * (1 + JITTER))
        self._until = max(self._until, self._clock() + seconds)
        self._move("open", "hint", seconds)
        self._yield_from(self._until)

    def follow(self) -> None:
        """Another worker of this host has begun to probe; wait a moment for its word.

        Should none come, it may have too few requests to find out soon: those that come here help.
        """
        if self._state.now == "open" and not self._forced:
            self._follows = True
            self._yield_from(self._clock() + self._patience)

    def recover(self) -> None:
        """Another worker of this host found the upstream well by its probes; believe it.

        A worker that gets few requests would be long in finding out by itself.
        """
        if self._forced or self._state.now == "closed":
            return
        self._ramp.begin(self._clock())
        self._move("closed", "hint", 0.0)

    # ---- inside ------------------------------------------------------------------------------

    def _enter_carefully(self) -> int:
        now = self._clock()
        if self._forced:
            return REFUSED
        if self._state.now == "open":
            if now < self._until or (self._follows and now < self._yields_until):
                return REFUSED
            self._move("half-open", "probes", 0.0)
        if self._state.now == "half-open":
            self._reap(now)  # may close or open it
        if self._state.now == "closed":
            if self._ramp.over(now):
                self._flowing = True
            elif not self._ramp.admits(now):
                return REFUSED
            return self._generation
        if self._state.now == "open":
            return REFUSED
        return self._probes.permit(now, alone=self._follows) or REFUSED

    def _yield_from(self, now: float) -> None:
        """Let another worker probe first: together they would be twice as many."""
        self._yields_until = now + HEAD_START * self._rng.uniform(1, 2)

    def _reap(self, now: float) -> None:
        for ticket, slow in self._probes.overdue(now):
            if slow is None:
                self.release(ticket)
            else:
                self.record(ticket, failed=False, slow=slow)  # ignored once one of them has decided

    def _knows_better(self) -> bool:
        """Whether enough of late was answered here, and half as bad as it may be at most."""
        window, settings = self._window, self.settings
        window.forget(self._clock())
        return (
            self._state.now == "closed"
            and window.total >= settings.min_requests
            and window.failed <= settings.failure_ratio * window.total / 2
            and window.slow <= settings.slow_ratio * window.total / 2
        )

    def _judge_window(self, failed: bool, slow: bool) -> None:
        """Open it if that is one too many of what the newest result was."""
        window, settings = self._window, self.settings
        if self._forced or window.total < settings.min_requests:
            return
        if failed and window.failed >= settings.failure_ratio * window.total:
            self._open("failures")
        elif slow and window.slow >= settings.slow_ratio * window.total:
            self._open("slowness")

    def _judge_probe(self, ticket: int, failed: bool, slow: bool) -> None:
        probes, settings = self._probes, self.settings
        probes.judge(ticket, failed=failed, slow=slow)
        # The same ratios as in the window: whatever was well enough to stay closed is so to close again.
        if (
            probes.failed >= settings.failure_ratio * settings.probes
            or probes.slow >= settings.slow_ratio * settings.probes
        ):
            self._open("probes")
        elif probes.judged >= settings.probes:
            self._ramp.begin(self._clock())
            self._move("closed", "probes", 0.0)

    def _open(self, cause: Cause) -> None:
        now = self._clock()
        self._follows = False
        relapse = self._state.now == "half-open" or now - self._ramp.began <= self.settings.window
        self._streak = self._streak + 1 if relapse else 0
        # GROWTH ** 8 is already beyond MAX_GROWTH; a year of outage must not overflow.
        growth = min(GROWTH ** min(self._streak, 8), MAX_GROWTH)
        seconds = self.settings.open_for * growth * self._rng.uniform(1 - JITTER, 1 + JITTER)
        self._until = now + seconds
        self._move("open", cause, seconds)

    def _move(self, state: State, cause: Cause, seconds: float) -> None:
        self._restart()
        self._state.enter(state, cause, seconds)

    def _restart(self) -> None:
        """Tickets of before are void, counts begin anew."""
        self._generation += 1
        self._flowing = False
        self._ramp.in_flight = 0
        self._probes.restart()
        self._window.clear()
