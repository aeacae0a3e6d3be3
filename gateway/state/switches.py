"""What is on and what is off right now, read from memory on every request."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.config import Config

PinOf = Callable[[str, str], "str | None"]  # (kind, name) to the pinned value, or None when left to itself


@dataclass(frozen=True, slots=True)
class Switches:
    """The state of every switch, worked out from configuration, ladder and the operators' pins.

    Attributes:
        step: rung of the ladder; 0 is normal.
        off: features that are off.
        critical_only: whether only routes of priority critical are served.
        breakers: upstreams whose breaker is forced, to "open" or "closed".
        rates: limits that are changed for a while, to a rate, "off" or "shadow".
    """

    step: int = 0
    off: frozenset[str] = frozenset()
    critical_only: bool = False
    breakers: Mapping[str, str] = field(default_factory=dict)
    rates: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def from_json(cls, message: Mapping[str, Any]) -> Switches:
        """The switches that `to_json` described."""
        return cls(
            step=message["step"],
            off=frozenset(message["off"]),
            critical_only=message["critical_only"],
            breakers=message["breakers"],
            rates=message["rates"],
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values, for the line to the workers."""
        return {
            "step": self.step,
            "off": sorted(self.off),
            "critical_only": self.critical_only,
            "breakers": dict(self.breakers),
            "rates": dict(self.rates),
        }


def work_out(config: Config, climbed: int, pinned: PinOf) -> Switches:
    """What holds: an operator's pin, else the configuration's word, else the ladder's.

    Args:
        config: names every feature, step, upstream and limit there is.
        climbed: the rung that the ladder stands on by itself.
        pinned: what an operator has pinned.
    """
    steps = config.degradation.steps
    pinned_step = pinned("step", "")
    step = min(climbed if pinned_step is None else int(pinned_step), len(steps))
    by_ladder = {feature for rung in steps[:step] for feature in rung.off}
    off = set()
    for name, feature in config.features.items():
        state = pinned("feature", name) or feature.state
        if state == "off" or (state == "auto" and name in by_ladder):
            off.add(name)
    breakers = {name: forced for name in config.upstreams if (forced := pinned("breaker", name))}
    rates = {name: rate for name in config.limits if (rate := pinned("limit", name))}
    return Switches(
        step=step,
        off=frozenset(off),
        critical_only=any(rung.only == "critical" for rung in steps[:step]),
        breakers=breakers,
        rates=rates,
    )


class LiveSwitches:
    """The switches as policies see them; one object for the life of a worker."""

    def __init__(self, now: Switches | None = None) -> None:
        self._now = now or Switches()
        self.degraded = ""  # names of the features that are off, for the upstream
        self.apply(self._now)

    @property
    def now(self) -> Switches:
        """All of them."""
        return self._now

    def apply(self, switches: Switches) -> None:
        """Let these hold from the next request on."""
        self._now = switches
        self.degraded = ", ".join(sorted(switches.off))

    def is_on(self, feature: str) -> bool:
        """Whether a feature is served."""
        return feature not in self._now.off

    def only_critical(self) -> bool:
        """Whether only routes of priority critical are served."""
        return self._now.critical_only

    def step(self) -> int:
        """Rung of the ladder; 0 is normal."""
        return self._now.step
