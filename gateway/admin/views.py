"""What operators see: the state of every switch as plain values."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from gateway.metrics import BREAKER_STATES
from gateway.pressure import SIGNALS
from gateway.state.pins import Pin

if TYPE_CHECKING:
    from gateway.master import Master

Json = dict[str, Any]


def _pinned(pin: Pin | None) -> Json:
    if pin is None:
        return {}
    left = None if pin.until is None else max(0, round(pin.until - time.time()))
    return {
        "by": pin.by,
        "reason": pin.reason,
        "since": pin.at / 1000,
        "until": pin.until,
        "seconds_left": left,
    }


def feature(master: Master, name: str) -> Json:
    """One feature: what it is told to be, and whether it is on."""
    settings = master.config.features[name]
    pin = master.pins.get("feature", name)
    return {
        "name": name,
        "state": pin.value if pin is not None else settings.state,
        "on": name not in master.switches.off,
        "fallback": settings.fallback is not None,
        "pin": _pinned(pin),
    }


def step(master: Master) -> Json:
    """The ladder: where it stands, and what each rung gives up."""
    pin = master.pins.get("step", "")
    rungs = [{"step": 0, "name": "normal", "off": [], "only": None}]
    for number, rung in enumerate(master.config.degradation.steps, 1):
        rungs.append({"step": number, "name": rung.name, "off": list(rung.off), "only": rung.only})
    return {
        "step": master.switches.step,
        "state": pin.value if pin is not None else "auto",
        "name": rungs[master.switches.step]["name"],
        "climbed": master.ladder.step,
        "steps": rungs,
        "pin": _pinned(pin),
    }


def breaker(master: Master, name: str) -> Json:
    """One breaker: what it is told to be, and the sickest state of any worker's."""
    pin = master.pins.get("breaker", name)
    gauges = master.totals.gauges()
    now = [s for s in BREAKER_STATES if gauges.get(("tidegate_breaker_state", (name, s)))]
    routes = {
        labels[1]: labels[2]
        for (metric, labels), value in gauges.items()
        if metric == "tidegate_route_breaker_state" and labels[0] == name and value
    }
    return {
        "upstream": name,
        "state": pin.value if pin is not None else "auto",
        "now": now[0] if now else "closed",
        "routes": routes,  # where each has its own
        "configured": master.config.upstreams[name].breaker is not None,
        "pin": _pinned(pin),
    }


def limit(master: Master, name: str) -> Json:
    """One limit: the rate that holds, and the configured one."""
    settings = master.config.limits[name]
    pin = master.pins.get("limit", name)
    counters = master.totals.checks()
    return {
        "name": name,
        "rate": pin.value if pin is not None else str(settings.rate),
        "configured": str(settings.rate),
        "state": "changed" if pin is not None else "auto",
        "per": list(settings.per),
        "mode": settings.mode,
        "checks": {decision: int(count) for (of, decision), count in counters.items() if of == name},
        "pin": _pinned(pin),
    }


def shut_offs(master: Master) -> list[Json]:
    """What the upstreams have shut off, the newest last."""
    now = master.shut_offs.clock()
    return [
        {
            "id": held.id,
            "route": held.key[0],
            "parameter": held.key[1],
            "value": held.key[2],
            "status": held.status,
            "seconds_left": round(held.until - now, 1),
        }
        for held in master.shut_offs.all()
    ]


def upstream(master: Master, name: str) -> Json:
    """One upstream: its servers and how full it is."""
    gauges = master.totals.gauges()
    return {
        "name": name,
        "servers": list(master.config.upstreams[name].servers),
        "in_flight": int(gauges.get(("tidegate_in_flight", (name,)), 0)),
        "concurrency_limit": gauges.get(("tidegate_concurrency_limit", (name,))),
    }


def status(master: Master) -> Json:
    """Everything on one page."""
    settings = master.config
    outcomes: dict[str, int] = {}
    for (_, _, _, outcome), count in master.totals.requests().items():
        outcomes[outcome] = outcomes.get(outcome, 0) + int(count)
    gauges = master.totals.gauges()
    return {
        "uptime_seconds": round(time.time() - master.started, 1),
        "workers": {
            "ready": master.crew.ready if master.crew else 0,
            "wanted": master.crew.size if master.crew else 0,
        },
        "draining": master.draining,
        "pressure": round(gauges.get(("tidegate_pressure", ()), 0.0), 4),
        "signals": {s: round(gauges.get(("tidegate_pressure_signal", (s,)), 0.0), 4) for s in SIGNALS},
        "limit_store": {
            "shared": settings.redis is not None,
            "up": bool(gauges.get(("tidegate_limit_store_up", ()), 0)),
        },
        "requests": outcomes,
        "step": step(master),
        "features": [feature(master, name) for name in settings.features],
        "breakers": [breaker(master, name) for name in settings.upstreams],
        "limits": [limit(master, name) for name in settings.limits],
        "upstreams": [upstream(master, name) for name in settings.upstreams],
        "config": {
            "file": str(master.file.path),
            "version": master.file.version,
            "mistakes": master.file.mistakes,
        },
    }


def config(master: Master) -> Json:
    """The settings that hold, without secrets."""
    shown: Json = master.config.model_dump(mode="json", by_alias=True)
    if shown.get("redis"):
        shown["redis"]["url"] = _without_password(shown["redis"]["url"])
    return {
        "file": str(master.file.path),
        "version": master.file.version,
        "mistakes": master.file.mistakes,
        "config": shown,
    }


def _without_password(url: str) -> str:
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user = "***@" if "@" in parts.netloc else ""
    return urlunsplit((parts.scheme, user + host, parts.path, "", ""))
