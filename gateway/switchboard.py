"""The switches of one host: what operators pinned and pressure says, worked out and told to the workers."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from gateway.channel import Message
from gateway.config import Config
from gateway.ladder import Ladder
from gateway.metrics import WorkerMetrics
from gateway.pressure import Pressures, on_ladder
from gateway.state.pins import Pin, Pins
from gateway.state.switches import Switches, work_out

_log = logging.getLogger("gateway")
_TICK = 0.25  # seconds between two looks at pressure and at pins that end


class Switchboard:
    """Holds pins and ladder, and works out the switches whenever one of them moves.

    Args:
        config: the settings that hold.
        tell: says something to every worker.
        metrics: where the switches are shown.

    Attributes:
        pins: what operators have pinned.
        ladder: where pressure would have the ladder stand.
        now: the switches that hold.
        serial: their number; grows with each change.
    """

    def __init__(
        self, config: Callable[[], Config], tell: Callable[[Message], None], metrics: WorkerMetrics
    ) -> None:
        self._config = config
        self._tell = tell
        self._metrics = metrics
        self.pins = Pins(config().admin.state_file, time.time)
        self.ladder = Ladder(config().degradation)
        self.now = self._work_out()
        self.serial = 1
        self.pins.on_change = self.recompute
        self._count()

    def pin(self, kind: str, name: str, value: str, *, lasts: float | None, reason: str, by: str) -> Pin:
        """Do an operator's will; `serial` is then that of switches that have it."""
        pin = self.pins.put(kind, name, value, lasts=lasts, reason=reason, by=by)
        _log.warning(
            "switch: %s %s -> %s by %s: %s",
            *(f"{kind} {name}".rstrip(), pin.old, value, by, reason or "(no reason)"),
        )
        return pin

    def adopt(self, before: Config) -> None:
        """Go by new settings from now on."""
        settings = self._config().degradation
        if before.degradation != settings:
            self.ladder = Ladder(settings, step=min(self.ladder.step, len(settings.steps)))
        self.recompute()

    def recompute(self) -> None:
        """Work the switches out anew; tell the workers when they changed."""
        switches = self._work_out()
        if switches == self.now:
            return
        self.now = switches
        self.serial += 1
        self._count()
        self._tell({"type": "switches", "serial": self.serial, "switches": switches.to_json()})

    async def keep(self, pressures: Callable[[], Pressures]) -> None:
        """Forever: climb or descend by pressure, and notice pins that end."""
        while True:
            await asyncio.sleep(_TICK)
            before, signals = self.ladder.step, pressures()
            pressure = on_ladder(signals, self.ladder.settings, before)
            if self.ladder.observe(pressure) != before:
                told = ", ".join(f"{name} {value:.2f}" for name, value in signals.items())
                _log.warning("degradation step %d -> %d at pressure: %s", before, self.ladder.step, told)
            self._metrics.gauge("tidegate_pressure", pressure)
            for name, value in signals.items():
                self._metrics.gauge("tidegate_pressure_signal", value, name)
            self.recompute()

    def _work_out(self) -> Switches:
        return work_out(self._config(), self.ladder.step, self.pins.value)

    def _count(self) -> None:
        for name in self._config().features:
            self._metrics.gauge("tidegate_feature_on", float(name not in self.now.off), name)
        self._metrics.gauge("tidegate_degradation_step", self.now.step)
