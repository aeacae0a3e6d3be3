"""The degradation ladder: under pressure climb one step at a time, and come down slowly."""

from __future__ import annotations

import time

from gateway.config import Degradation
from gateway.exchange import Clock


class Ladder:
    """Turns pressure into a step. Step 0 is normal; step n has the first n of `settings.steps` in force.

    It climbs when the pressure has stayed at or above `climb.pressure` for `climb.after`, and comes down
    when it has stayed below `descend.pressure` for `descend.after`. Each further step takes as long again.
    Between the two it stays where it is.

    Args:
        settings: the steps and when to take them.
        clock: seconds, monotonic.
        step: where to begin; a ladder that replaces another goes on from its step.
    """

    def __init__(self, settings: Degradation, clock: Clock = time.monotonic, *, step: int = 0) -> None:
        self.settings = settings
        self._clock = clock
        self._step = min(max(step, 0), len(settings.steps))
        self._high_since: float | None = None
        self._low_since: float | None = None

    @property
    def step(self) -> int:
        """The step in force."""
        return self._step

    def observe(self, pressure: float) -> int:
        """Take note of the pressure now (1 is full), and return the step in force."""
        now = self._clock()
        climb, descend = self.settings.climb, self.settings.descend
        if pressure >= climb.pressure:
            self._low_since = None
            since = self._high_since = now if self._high_since is None else self._high_since
            if now - since >= climb.after and self._step < len(self.settings.steps):
                self._step += 1
                self._high_since = now
        elif pressure < descend.pressure:
            self._high_since = None
            since = self._low_since = now if self._low_since is None else self._low_since
            if now - since >= descend.after and self._step > 0:
                self._step -= 1
                self._low_since = now
        else:
            self._high_since = self._low_since = None
        return self._step
