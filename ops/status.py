"""`tidegate status`: one screen made of the admin API's and the shop's own words."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from rich.console import Console
from rich.text import Text

from ops import change, screen, shop_status
from ops.admin_client import Json
from ops.logs import shorter
from ops.screen import Block, Sheet, said
from ops.stock import Stock


def show(
    status: Json,
    pages: Collection[str],
    stock: Stock | None = None,
    console: Console | None = None,
) -> None:
    """Print the screen.

    Args:
        status: the answer of GET /api/status.
        pages: the /metrics pages of the shop's processes, empty where one does not answer; none
            when the gateway stands before something else.
        stock: the shop's stock at this moment; None takes what the pages say.
        console: where to; standard output when None.
    """
    gate: Mapping[str, Any] = status if isinstance(status, dict) else {}
    blocks: list[Block] = [
        [[_gateway(gate), _traffic(gate)], _step(gate)],
        [_pinned(gate)],
        _mistakes(gate),
        _restart(gate),
        [_features(gate), _breakers(gate), *_servers(gate)],
        [_limits(gate)],
        _busiest(gate),
    ]
    blocks += shop_status.blocks(pages, stock)
    screen.show([block for block in blocks if block], console)


def _list(gate: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return [item for item in gate.get(name) or [] if isinstance(item, dict)]


def _pinned(gate: Mapping[str, Any]) -> Sheet:
    """What operators hold, who does, for how long yet, and why."""
    step = gate.get("step") or {}
    held: list[tuple[str, Mapping[str, Any], object]] = [("step", step, _step_name(step))]
    held += [(str(item.get("name")), item, item.get("state")) for item in _list(gate, "features")]
    held += [(f"breaker {item.get('upstream')}", item, item.get("state")) for item in _list(gate, "breakers")]
    held += [(f"limit {item.get('name')}", item, item.get("rate")) for item in _list(gate, "limits")]
    rows = []
    for what, item, value in held:
        if pin := item.get("pin"):
            left = pin.get("seconds_left")
            who = str(pin.get("by") or "?").partition(" at ")[0]
            lasts = "until changed" if left is None else _lasting(left)
            rows.append((what, value, who, lasts, pin.get("reason") or "-"))
    return Sheet("pinned by operators", rows, ("what", "set to", "by", "for", "why"), folds=True)


def _step_name(step: Mapping[str, Any]) -> str:
    name = step.get("name")
    return f"{step.get('state')} {name}" if name else said(step.get("state"))


def _gateway(gate: Mapping[str, Any]) -> Sheet:
    workers, store = gate.get("workers") or {}, gate.get("limit_store") or {}
    config = gate.get("config") or {}
    good = Text("good, restart pending", "yellow") if config.get("restart") else Text("good", "green")
    each = [one for one in _list(workers, "each") if one.get("ready")]
    if behind := [one for one in each if one.get("config") != config.get("version")]:
        good = Text(f"in {len(each) - len(behind)} of {len(each)} workers", "red")
    away = Text("away: local shares", style="red")
    shared = Text("up", style="green") if store.get("up") else away
    rows: list[tuple[object, ...]] = [
        ("up", _lasting(gate.get("uptime_seconds"))),
        ("workers", f"{workers.get('ready')} of {workers.get('wanted')}"),
        ("limit store", shared if store.get("shared") else "local"),
        ("config", Text("edit not used", "red") if config.get("mistakes") else good),
    ]
    if gate.get("draining"):
        rows.insert(0, ("draining", Text("takes no new requests", style="red")))
    if (hosts := len(_list(gate, "hosts"))) > 1:
        rows.append(("hosts", hosts))
    if held := gate.get("shut_offs"):
        rows.append(("shut off", held))  # named by `tidegate shut-offs list`
    return Sheet("gateway", rows)


def _lasting(seconds: object) -> str:
    """In days, hours, minutes and seconds, the largest two."""
    if not isinstance(seconds, int | float):
        return "-"
    left = int(seconds)
    parts = ((left // 86400, "d"), (left // 3600 % 24, "h"), (left // 60 % 60, "min"), (left % 60, "s"))
    first = next((at for at, (number, _) in enumerate(parts) if number), 3)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2])


def _traffic(gate: Mapping[str, Any]) -> Sheet:
    """How requests end: a second, of late, and since the start; how long they take."""
    late = gate.get("traffic") or {}
    rates, latency = late.get("per_second") or {}, late.get("latency_ms") or {}
    rows: list[tuple[object, ...]] = [
        (outcome, rates.get(outcome, 0.0), count) for outcome, count in (gate.get("requests") or {}).items()
    ]
    rows += [(name, _ms(latency[name]), "") for name in ("p50", "p90", "p99") if name in latency]
    return Sheet("traffic", rows, ("outcome", "now, /s", "in all"))


def _ms(value: object) -> str:
    return f"{value:.3g} ms" if isinstance(value, int | float) else "-"


def _mistakes(gate: Mapping[str, Any]) -> Block:
    config = gate.get("config") or {}
    mistakes, file = config.get("mistakes"), str(config.get("file") or "")
    if not isinstance(mistakes, list) or not mistakes:
        return []
    rows = [(str(line).replace(file, shorter(file)) if file else str(line),) for line in mistakes]
    return [Sheet("config: the edit is not used, the one before holds", rows, bad=True, folds=True)]


def _restart(gate: Mapping[str, Any]) -> Block:
    """What an edit has changed that holds only once the gateway is started again."""
    rows = [
        (one.get("path"), change.value(one.get("before")), change.value(one.get("after")))
        for one in _list(gate.get("config") or {}, "restart")
    ]
    head = ("key", "now", "after a restart")
    return [Sheet("config: the gateway has to be started again for this", rows, head)] if rows else []


def _good(good: object, yes: str, no: str) -> Text:
    return Text(yes, style="green") if good else Text(no, style="red")


def _step(gate: Mapping[str, Any]) -> Sheet:
    step = gate.get("step") or {}
    steps = [rung for rung in step.get("steps") or [] if isinstance(rung, dict)]
    rungs = []
    for rung in steps:
        here = rung.get("step") == step.get("step")
        name = Text(f"{rung.get('step')} {rung.get('name')}{' <' if here else ''}", "reverse" if here else "")
        gives_up = f"only {rung['only']}" if rung.get("only") else ", ".join(rung.get("off") or [])
        rungs.append((name, gives_up if rung.get("only") or not gives_up else f"off: {gives_up}"))
    signals = [(f"  {name.replace('_', ' ')}", value) for name, value in (gate.get("signals") or {}).items()]
    pressure = [("pressure", gate.get("pressure")), *signals]
    return Sheet("step", [*pressure, ("set to", step.get("state")), *rungs])


def _features(gate: Mapping[str, Any]) -> Sheet:
    rows = [
        (item.get("name"), _good(item.get("on"), "on", "off"), item.get("state"))
        for item in _list(gate, "features")
    ]
    return Sheet("features", rows, ("feature", "now", "set to"))


def _breakers(gate: Mapping[str, Any]) -> Sheet:
    loads = {item.get("name"): item for item in _list(gate, "upstreams")}
    rows = []
    for item in _list(gate, "breakers"):
        load = loads.get(item.get("upstream"), {})
        slots = f"{said(load.get('in_flight'))} / {said(load.get('concurrency_limit'))}"
        now = _good(item.get("now") == "closed", "closed", str(item.get("now")))
        rows.append((item.get("upstream"), now, item.get("state"), slots))
    return Sheet("breakers", rows, ("upstream", "now", "set to", "in flight"))


def _limits(gate: Mapping[str, Any]) -> Sheet:
    """Each on a line of 80 columns: counts in shadow and by local shares stand there if there are some."""
    limits = [(item, item.get("checks") or {}) for item in _list(gate, "limits")]
    rare = [name for name in ("shadow", "fallback") if any(checks.get(name) for _, checks in limits)]
    rows = []
    for item, checks in limits:
        per = item.get("per")
        per = ", ".join(map(str, per)) if isinstance(per, list) else per
        counts = [checks.get(name, 0) for name in ("allowed", "denied", *rare)]
        rows.append((item.get("name"), item.get("rate"), per, item.get("mode"), *counts))
    words = ("local" if name == "fallback" else name for name in rare)
    return Sheet("limits", rows, ("limit", "rate", "per", "mode", "allowed", "denied", *words))


def _servers(gate: Mapping[str, Any]) -> list[Sheet]:
    """Servers of upstreams, where there are several or one is left alone."""
    rows = []
    for upstream in _list(gate, "upstreams"):
        servers = [one for one in upstream.get("servers") or [] if isinstance(one, dict)]
        if len(servers) > 1 or any(one.get("ejected") for one in servers):
            for one in servers:
                left = f"left alone by {one.get('ejected')}, {said(one.get('seconds_left'))} s"
                state = _good(not one.get("ejected"), "well", left)
                rows.append((upstream.get("name"), one.get("url"), state, one.get("in_flight")))
    return [Sheet("servers", rows, ("upstream", "server", "now", "in flight"))] if rows else []


def _busiest(gate: Mapping[str, Any]) -> list[Sheet]:
    """Who is at a limit or near it, three of each."""
    rows = [
        (limit.get("name"), one.get("key"), one.get("count"))
        for limit in _list(gate, "limits")
        for one in (limit.get("busiest") or [])[:3]
    ]
    return [Sheet("who is at a limit", rows, ("limit", "key", "near or over, lately"))] if rows else []


def shut_offs(document: Json) -> Sheet:
    """What upstreams have shut off, the newest first; of GET /api/shut-offs."""
    held = _list(document if isinstance(document, dict) else {}, "shut_offs")
    rows = [
        (
            one.get("id"),
            f"{one.get('parameter')}={one.get('value')}",
            one.get("route"),
            one.get("status"),
            _lasting(one.get("seconds_left")),
        )
        for one in reversed(held)
    ]
    return Sheet("shut off by upstreams", rows, ("id", "what", "route", "answer", "for"))
