"""How pressed a gateway is: each signal as a share of what is full, and what the ladder minds of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Final

from gateway.config import Degradation, Signals
from gateway.exchange import Clock

# Slots taken; waiting for one; the critical waiting for one; a late event loop; a busy processor; an upstream
# that is left alone.
IN_FLIGHT: Final = "in_flight"
QUEUE_DELAY: Final = "queue_delay"
CRITICAL_WAIT: Final = "critical_wait"
LOOP_LAG: Final = "loop_lag"
CPU: Final = "cpu"
BREAKERS: Final = "breakers"
SIGNALS: Final = (IN_FLIGHT, QUEUE_DELAY, CRITICAL_WAIT, LOOP_LAG, CPU, BREAKERS)

# These say that less should be offered, not that whole routes must be refused. Full slots are shared out by
# priority, so the critical come through and what is left serves others: refusing all others would only waste
# it. A breaker refuses by itself what would fail, and a busy processor still serves whoever finds a slot.
# More is asked only where that does not help: the critical find no slot, or the gateway itself is late.
_GENTLE: Final = frozenset({IN_FLIGHT, QUEUE_DELAY, CPU, BREAKERS})

Pressures = Mapping[str, float]  # by signal; 1 is full


class CpuShare:
    """How busy this process has been, in cores.

    Args:
        clock: seconds, monotonic.
        spent: seconds of processor time that this process has used.
    """

    def __init__(self, clock: Clock = time.monotonic, spent: Clock = time.process_time) -> None:
        self._clock = clock
        self._spent = spent
        self._before = clock(), spent()

    def read(self) -> float:
        """Since this was last asked."""
        at, spent = self._clock(), self._spent()
        (at_before, spent_before), self._before = self._before, (at, spent)
        return (spent - spent_before) / (at - at_before) if at > at_before else 0.0


def measured(
    settings: Signals,
    *,
    in_flight: float,
    queue_delay: float,
    critical_wait: float,
    lag: float,
    cpu: float,
    sick: bool,
) -> dict[str, float]:
    """The signals of one worker, those left out at 0.

    Args:
        settings: what counts as full.
        in_flight: share of the slots taken, of the fullest upstream.
        queue_delay: time waited for a slot, as a share of the queue's target.
        critical_wait: share of the critical requests that found no slot at once.
        lag: seconds that a turn of the event loop takes.
        cpu: cores used.
        sick: whether some upstream is left alone by its breaker.
    """
    return {
        IN_FLIGHT: min(1.0, in_flight),
        QUEUE_DELAY: min(1.0, queue_delay),
        CRITICAL_WAIT: min(1.0, critical_wait),
        LOOP_LAG: min(1.0, lag / settings.loop_lag) if settings.loop_lag else 0.0,
        CPU: min(1.0, cpu / settings.cpu) if settings.cpu else 0.0,
        BREAKERS: float(sick and settings.breakers),
    }


def highest(all_of: Iterable[Pressures]) -> dict[str, float]:
    """Each signal at its highest of any worker."""
    high = dict.fromkeys(SIGNALS, 0.0)
    for pressures in all_of:
        for signal, value in pressures.items():
            if signal in high:  # a worker of another version may know others
                high[signal] = max(high[signal], value)
    return high


def on_ladder(pressures: Pressures, settings: Degradation, step: int) -> float:
    """The pressure that counts for a ladder on this step.

    Those in `_GENTLE` lift it no further than the last of the rungs that only switch features off. There they
    hold it; above, they let it come down.
    """
    top = gentle_steps(settings)
    counted = [value for signal, value in pressures.items() if signal not in _GENTLE]
    for signal in _GENTLE & pressures.keys():
        if step < top:
            counted.append(pressures[signal])
        elif step == top:
            counted.append(min(pressures[signal], settings.descend.pressure))
    return max(counted, default=0.0)


def gentle_steps(settings: Degradation) -> int:
    """How many of the rungs, from the first, refuse no whole routes."""
    for number, rung in enumerate(settings.steps):
        if rung.only is not None:
            return number
    return len(settings.steps)
