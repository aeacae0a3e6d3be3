"""Everything on one page: the status, for who asks once and for who listens."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from gateway.admin import documents, shapes, views
from gateway.admin.history import STEP, History
from gateway.admin.panels import Panels
from gateway.admin.traffic import DURATIONS, REQUESTS, UPSTREAM, Window, latency, traffic
from gateway.pressure import SIGNALS
from gateway.totals import Reading

if TYPE_CHECKING:
    from gateway.master import Master


class Overview:
    """Reads the workers' numbers, and keeps those of the last seconds to tell rates by.

    Args:
        master: whose.
    """

    def __init__(self, master: Master) -> None:
        self._master = master
        self.window = Window()
        self.history = History()
        self.panels = Panels(lambda: master.config.admin)

    async def keep(self) -> None:
        """Forever: have readings while nobody looks, so that the first who does sees rates and curves."""
        while True:
            await asyncio.sleep(STEP)
            await self.read()

    async def read(self) -> Reading:
        """The newest numbers of all workers."""
        await self._master.fresh()
        reading = self._master.totals.read()
        self.window.add(reading)
        self.history.take(lambda: self._point(reading))
        return reading

    def _point(self, reading: Reading) -> shapes.Point:
        checks = reading.counters.get("tidegate_limit_checks_total", {})
        cells = self.window.cells(UPSTREAM)
        return {
            "at": time.time(),
            "requests": _outcomes(reading),
            "denied": {name: int(checks.get((name, "denied"), 0)) for name in self._master.config.limits},
            "latency_ms": latency(self.window.cells(DURATIONS).values()),
            "pressure": round(reading.gauge("tidegate_pressure"), 4),
            "step": self._master.board.now.step,
            "upstreams": {
                name: {
                    "in_flight": int(reading.gauge("tidegate_in_flight", name)),
                    "latency_ms": latency([cells.get((name,), [])]),
                }
                for name in self._master.config.upstreams
            },
        }

    async def snapshot(self, roles: set[str]) -> dict[str, Any]:
        """The status for each of these roles, from one reading."""
        reading, _ = await asyncio.gather(self.read(), self.panels.fresh())
        return {role: self.status(reading, role) for role in roles}

    def status(self, reading: Reading, role: str) -> documents.Status:
        """The page for one role."""
        master, window = self._master, self.window
        settings = master.config
        totals = reading.counters.get(REQUESTS, {})
        return {
            "at": time.time(),
            "role": role,
            "uptime_seconds": round(time.time() - master.started, 1),
            "draining": master.draining,
            "workers": views.workers(master),
            "hosts": views.hosts(master),
            "pressure": round(reading.gauge("tidegate_pressure"), 4),
            "signals": {s: round(reading.gauge("tidegate_pressure_signal", s), 4) for s in SIGNALS},
            "limit_store": {
                "shared": settings.redis is not None,
                "up": bool(reading.gauge("tidegate_limit_store_up")),
            },
            "requests": _outcomes(reading),
            "traffic": traffic(window, totals),
            "step": views.step(master),
            "features": [views.feature(master, name) for name in settings.features],
            "breakers": [views.breaker(master, reading, name) for name in settings.upstreams],
            "limits": [views.limit(master, window, reading, name, role) for name in settings.limits],
            "upstreams": [views.upstream(master, window, reading, name) for name in settings.upstreams],
            "shut_offs": len(master.shut_offs.all()),
            "cache": self._cache(reading),
            "panels": self.panels.shown(),
            "config": views.config_state(master),
            "trail": master.trail.serial,
        }

    def _cache(self, reading: Reading) -> shapes.CacheState:
        per_second: shapes.Outcomes = {}
        for of_route in self.window.rates("tidegate_cache_requests_total").values():
            for result, rate in of_route.items():
                per_second[result] = round(per_second.get(result, 0.0) + rate, 2)
        return {
            "bytes": int(reading.gauge("tidegate_cache_bytes")),
            "entries": int(reading.gauge("tidegate_cache_entries")),
            "per_second": per_second,
        }


def _outcomes(reading: Reading) -> dict[str, int]:
    """How many requests ended how, since the start."""
    outcomes: dict[str, int] = {}
    for labels, count in reading.counters.get(REQUESTS, {}).items():
        outcomes[labels[3]] = outcomes.get(labels[3], 0) + int(count)
    return outcomes
