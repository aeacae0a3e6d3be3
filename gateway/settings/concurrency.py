"""How much an upstream may hold at once, and who comes first."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from gateway.settings.base import Settings
from gateway.units import Duration


class Shares(Settings):
    """How full an upstream may be, as a share of its slots, for a priority to be let in; critical: all."""

    normal: float = Field(0.85, gt=0, le=1)
    """For priority normal."""
    optional: float = Field(0.60, gt=0, le=1)
    """For priority optional."""


class Floors(Settings):
    """The share of the slots that a priority keeps, whatever those above it ask for."""

    normal: float = Field(0.05, ge=0, lt=0.5)
    """For priority normal."""
    optional: float = Field(0.02, ge=0, lt=0.5)
    """For priority optional."""


class Queue(Settings):
    """Who may wait for a slot, and how long. The words are CoDel's (RFC 8289)."""

    size: int = Field(64, ge=0)
    """Waiters of one priority, and never more than slots; 0: nobody waits. Users take turns. Of the critical
    sixteen times as many, while others hold slots."""
    interval: Duration = Field(0.1, gt=0, le=10)
    """Patience while the queue is short-lived; ten times as long of the critical, while others hold slots."""
    target: Duration = Field(0.005, gt=0, le=10)
    """Patience once it has stood for an interval; never shorter than two slots take to come back."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.target > self.interval:
            raise ValueError("target is longer than interval")
        return self


class Concurrency(Settings):
    """How many requests an upstream may hold at once, over one worker. Where min is max, it is fixed.

    After a calm a part of it opens at once and the rest with the answers: a rush must not fill at once what
    was never tried.
    Bodies up to 64 KiB are read before a request takes a slot. Longer ones come while it holds one, as slowly
    as the client likes: half of the slots at most are held so, then 503.
    """

    min: int = Field(4, ge=1)
    """The limit never falls below this."""
    max: int = Field(400, ge=1)
    """The limit never grows above this."""
    initial: int | None = Field(None, ge=1)
    """The limit to begin with; left out: 100, or the bound nearest to it."""
    shares: Shares = Shares()
    """How full the upstream may be for each priority to be let in."""
    floors: Floors = Floors()
    """What each priority keeps for itself."""
    queue: Queue = Queue()
    """Who may wait for a slot."""

    @property
    def start(self) -> int:
        """The limit to begin with."""
        return min(max(100 if self.initial is None else self.initial, self.min), self.max)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max})")
        if self.initial is not None and not self.min <= self.initial <= self.max:
            raise ValueError(f"initial ({self.initial}) is not between min ({self.min}) and max ({self.max})")
        return self
