"""What operators see: the state of every switch and of what passes, as plain values."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from gateway.admin import shapes
from gateway.admin.traffic import UPSTREAM, Window, latency
from gateway.metrics import BREAKER_STATES, QueueState, ServerState
from gateway.state.pins import Pin
from gateway.totals import Reading

if TYPE_CHECKING:
    from gateway.effect import Effect
    from gateway.master import Master

MOST_KEYS = 10  # of a limit
_PEPPER = secrets.token_bytes(16)  # a new one each start: pseudonyms can't be looked up elsewhere


def pinned(pin: Pin | None) -> shapes.Pinned | None:
    """An operator's word, if there is one."""
    if pin is None:
        return None
    left = None if pin.until is None else max(0, round(pin.until - time.time()))
    return {
        "by": pin.by,
        "reason": pin.reason,
        "since": pin.at / 1000,
        "until": pin.until,
        "seconds_left": left,
    }


def effect(effect: Effect) -> shapes.Changed:
    """What a change came to."""
    ms = round(effect.seconds * 1000, 1)
    each: list[shapes.WorkerEffect] = [
        {"pid": pid, "ms": None if seconds is None else round(seconds * 1000, 1)}
        for pid, seconds in effect.each
    ]
    hosts: list[shapes.HostEffect] = [
        {"host": host, "ms": None if seconds is None else round(seconds * 1000, 1)}
        for host, seconds in effect.hosts
    ]
    told: shapes.Effect = {
        "applied": effect.applied,
        "workers": effect.workers,
        "ms": ms,
        "each": each,
        "hosts": hosts,
    }
    return {"applied": effect.applied, "workers": effect.workers, "ms": ms, "effect": told}


def feature(master: Master, name: str) -> shapes.Feature:
    """One feature."""
    settings = master.config.features[name]
    pin = master.board.pins.get("feature", name)
    return {
        "name": name,
        "state": pin.value if pin is not None else settings.state,
        "on": name not in master.board.now.off,
        "fallback": settings.fallback is not None,
        "routes": [route.match for route in master.config.routes if route.feature == name],
        "pin": pinned(pin),
    }


def step(master: Master) -> shapes.Step:
    """The ladder."""
    board = master.board
    pin = board.pins.get("step", "")
    rungs: list[shapes.Rung] = [{"step": 0, "name": "normal", "off": [], "only": None}]
    for number, rung in enumerate(master.config.degradation.steps, 1):
        rungs.append({"step": number, "name": rung.name, "off": list(rung.off), "only": rung.only})
    return {
        "step": board.now.step,
        "state": pin.value if pin is not None else "auto",
        "name": rungs[board.now.step]["name"],
        "climbed": board.ladder.step,
        "steps": rungs,
        "pin": pinned(pin),
    }


def breaker(master: Master, reading: Reading, name: str) -> shapes.Breaker:
    """One breaker."""
    pin = master.board.pins.get("breaker", name)
    now = [s for s in BREAKER_STATES if reading.gauge("tidegate_breaker_state", name, s)]
    routes = {
        labels[1]: labels[2]
        for labels, value in reading.gauges.get("tidegate_route_breaker_state", {}).items()
        if labels[0] == name and value
    }
    return {
        "upstream": name,
        "state": pin.value if pin is not None else "auto",
        "now": now[0] if now else "closed",
        "routes": routes,
        "configured": master.config.upstreams[name].breaker is not None,
        "pin": pinned(pin),
    }


def limit(master: Master, window: Window, reading: Reading, name: str, role: str) -> shapes.Limit:
    """One limit."""
    settings = master.config.limits[name]
    pin = master.board.pins.get("limit", name)
    checks = reading.counters.get("tidegate_limit_checks_total", {})
    return {
        "name": name,
        "rate": pin.value if pin is not None else str(settings.rate),
        "configured": str(settings.rate),
        "state": "changed" if pin is not None else "auto",
        "per": list(settings.per),
        "mode": settings.mode,
        "checks": {labels[1]: int(count) for labels, count in checks.items() if labels[0] == name},
        "per_second": window.rates("tidegate_limit_checks_total").get(name, {}),
        "busiest": busiest(reading, name, role),
        "pin": pinned(pin),
    }


def busiest(reading: Reading, limit: str, role: str) -> list[shapes.BusyKey]:
    """Who is at a limit or near it, over all workers; by name for operators only."""
    summed: dict[str, list[int]] = {}
    for detail in reading.details.values():
        for of, key, count, error in detail.get("busiest", ()):
            if of == limit:
                row = summed.setdefault(key, [0, 0])
                row[0] += count
                row[1] += error
    best = sorted(summed.items(), key=lambda item: (-item[1][0], item[0]))[:MOST_KEYS]
    return [
        {"key": key if role == "operator" else _pseudonym(key), "count": count, "error": error}
        for key, (count, error) in best
    ]


def _pseudonym(key: str) -> str:
    return "#" + hashlib.blake2b(key.encode(), key=_PEPPER, digest_size=6).hexdigest()


def shut_offs(master: Master) -> list[shapes.ShutOff]:
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


def upstream(master: Master, window: Window, reading: Reading, name: str) -> shapes.Upstream:
    """One upstream: its servers, how full it is, and who waits."""
    queues = [
        QueueState(*row) for detail in reading.details.values() for row in detail["queues"] if row[0] == name
    ]
    limit = reading.gauges.get("tidegate_concurrency_limit", {}).get((name,))
    delay = reading.gauge("tidegate_queue_delay_seconds", name)
    return {
        "name": name,
        "servers": [server(reading, name, url) for url in master.config.upstreams[name].servers],
        "in_flight": int(reading.gauge("tidegate_in_flight", name)),
        "concurrency_limit": limit,
        "queue": _summed((queue.priority, queue.waiting) for queue in queues),
        "queue_delay_ms": round(delay * 1000, 2),
        "shed": _summed((queue.priority, queue.refused) for queue in queues),
        "latency_ms": latency([window.cells(UPSTREAM).get((name,), [])]),
    }


def server(reading: Reading, upstream: str, url: str) -> shapes.Server:
    """One server, as all workers see it."""
    seen = [
        ServerState(*row)
        for detail in reading.details.values()
        for row in detail["servers"]
        if row[:2] == [upstream, url]
    ]
    return {
        "url": url,
        "well": sum(one.healthy for one in seen),
        "ejected": sum(one.seconds_left > 0 for one in seen),
        "seconds_left": round(max((one.seconds_left for one in seen), default=0.0), 1),
        "failures": max((one.failures for one in seen), default=0),
        "in_flight": sum(one.in_flight for one in seen),
        "idle": sum(one.idle for one in seen),
    }


def workers(master: Master) -> shapes.Workers:
    """Those of this host."""
    crew = master.crew
    each: list[shapes.Worker] = []
    if crew is not None:
        each = [
            {
                "pid": member.process.pid,
                "ready": member.ready,
                "seconds": round(member.age, 1),
                "switches": member.serial,
                "config": member.version,
                "pressure": {name: round(value, 4) for name, value in member.pressures.items()},
            }
            for member in crew.members.values()
        ]
    return {
        "ready": crew.ready if crew is not None else 0,
        "wanted": crew.size if crew is not None else 0,
        "restarts": crew.restarts if crew is not None else 0,
        "each": each,
    }


def hosts(master: Master) -> list[shapes.Host]:
    """This one, and those that share its Redis."""
    now = time.monotonic()
    here: shapes.Host = {**master.describe(), "here": True, "seen": 0.0}  # type: ignore[typeddict-item]  # as it is said
    return [here] + [
        {
            "name": seen.name,
            "here": False,
            "workers": seen.workers,
            "step": seen.step,
            "off": list(seen.off),
            "seen": round(now - seen.at, 1),
        }
        for seen in master.hosts.others()
    ]


def config_state(master: Master) -> shapes.ConfigState:
    """Which configuration holds."""
    file = master.file
    return {
        "file": str(file.path),
        "version": file.version,
        "since": file.since,
        "mistakes": file.mistakes,
        "restart": [one for one in file.pending if one["path"] not in master.overrides.words],
    }


def _summed(pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for name, number in pairs:
        total[name] = total.get(name, 0) + number
    return total
