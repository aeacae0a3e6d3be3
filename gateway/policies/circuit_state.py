"""In which state a circuit is, and who is told when it changes. pybreaker holds both."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import pybreaker

State = Literal["closed", "open", "half-open"]
Cause = Literal["failures", "slowness", "probes", "hint", "forced"]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Change:
    """A transition of one circuit.

    Attributes:
        upstream: the circuit's name.
        route: the pattern of the one route that it judges; empty for all of the upstream.
        before: the state it left.
        after: the state it entered.
        cause: why; "hint" and "forced" come from outside and are not to be published again.
        seconds: how long it stays open; 0 unless `after` is "open".
    """

    upstream: str
    route: str
    before: State
    after: State
    cause: Cause
    seconds: float


class _Relay(pybreaker.CircuitBreakerListener):
    """Carries the machine's transitions to those who asked for them."""

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


class CircuitState:
    """The state of one circuit. pybreaker is asked only at transitions, never on a request's way.

    Attributes:
        now: the state.

    Args:
        upstream: its name.
        route: the pattern of the one route that the circuit judges; empty for all.
    """

    __slots__ = ("_callbacks", "_change", "_machine", "_route", "_upstream", "now")

    def __init__(self, upstream: str, route: str) -> None:
        self.now: State = "closed"
        self._upstream = upstream
        self._route = route
        self._callbacks: list[Callable[[Change], None]] = []
        self._change = Change(upstream, route, "closed", "closed", "forced", 0.0)  # the last one
        self._machine = pybreaker.CircuitBreaker(
            name=upstream,
            state_storage=pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED),
            listeners=[_Relay(self._tell)],
        )

    def on_change(self, callback: Callable[[Change], None]) -> None:
        """Call back after each transition, in the caller's task; must not block."""
        self._callbacks.append(callback)

    def enter(self, state: State, cause: Cause, seconds: float) -> None:
        """Be in a state; nothing is told when that is no other.

        Args:
            state: which.
            cause: why.
            seconds: how long it stays open.
        """
        before = self.now
        if state == before:
            return
        # Set before the machine moves: those whom its listener calls may look at us.
        self.now = state
        lasts = seconds if state == "open" else 0.0
        self._change = Change(self._upstream, self._route, before, state, cause, lasts)
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
                log.exception("breaker %s: a listener failed", self._upstream)
