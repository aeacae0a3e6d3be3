"""`tidegate status`: one screen made of the admin API's and the shop's own words."""

from __future__ import annotations

import http.client
from collections.abc import Collection, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from rich.columns import Columns
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ops.admin_client import Json
from ops.logs import shorter
from ops.stock import Stock

STATES = ("reserved", "pending", "paid", "delivered", "expired", "refunding", "refunded")  # an order's way
AGE = ", up to 2 s ago"  # the worker counts that often
Samples = dict[str, dict[tuple[str, ...], float]]  # metric → label values in the labels' order → value


def fetch_metrics(url: str, timeout: float = 2.0) -> str:
    """The text of a /metrics page; empty when it does not answer."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode("utf-8", "replace")
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def shop_samples(pages: Iterable[str]) -> Samples:
    """The shop's metrics, summed over its processes' pages."""
    from prometheus_client.parser import text_string_to_metric_families

    samples: Samples = {}
    for page in pages:
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                values = samples.setdefault(sample.name, {})
                labels = tuple(value for _, value in sorted(sample.labels.items()))
                values[labels] = values.get(labels, 0.0) + sample.value
    return samples


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
    samples = shop_samples(pages)
    parts: list[RenderableType] = [
        Columns([Group(_gateway(gate), _traffic(gate)), _step(gate)], padding=(0, 1)),
        *_mistakes(gate),
        Columns([_features(gate), _breakers(gate), *_servers(gate)], padding=(0, 1)),
        _limits(gate),
        *_busiest(gate),
    ]
    if samples or stock:
        tables = [_stock(samples, stock)]
        if samples:
            tables += [Group(_queues(samples), _orders(samples), _database(samples))]
        parts.append(Columns(tables, padding=(0, 1)))
    if pages and not all(pages):
        which = "all" if not any(pages) else "some"
        parts.append(Text(f"the shop's metrics do not answer ({which} of its processes)", style="red"))
    (console or Console()).print(Group(*parts))


# ---- the gate -----------------------------------------------------------------------------------


def _grid(title: str, rows: Iterable[tuple[object, ...]], head: tuple[str, ...] = ()) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=bool(head))
    for name in head:
        table.add_column(name, header_style="dim", no_wrap=True)
    filled = False
    for row in rows:
        table.add_row(*(cell if isinstance(cell, Text) else Text(_plain(cell)) for cell in row))
        filled = True
    return Panel(table if filled else Text("none"), title=title, title_align="left", expand=False)


def _plain(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
    return "-" if value is None else str(value)


def _list(gate: Mapping[str, Any], name: str) -> list[Mapping[str, Any]]:
    return [item for item in gate.get(name) or [] if isinstance(item, dict)]


def _pin(item: Mapping[str, Any]) -> str:
    pin = item.get("pin") or {}
    if not pin:
        return ""
    left = "" if pin.get("seconds_left") is None else f", {pin['seconds_left']} s left"
    reason = f" ({pin['reason']})" if pin.get("reason") else ""
    return f"by {pin.get('by', '?')}{left}{reason}"


def _gateway(gate: Mapping[str, Any]) -> RenderableType:
    workers, store = gate.get("workers") or {}, gate.get("limit_store") or {}
    mistakes = (gate.get("config") or {}).get("mistakes")
    away = Text("away: local shares", style="red")
    shared = Text("up", style="green") if store.get("up") else away
    rows: list[tuple[object, ...]] = [
        ("up", _uptime(gate.get("uptime_seconds"))),
        ("workers", f"{workers.get('ready')} of {workers.get('wanted')}"),
        ("limit store", shared if store.get("shared") else "local"),
        ("config", _good(not mistakes, "good", "edit not used")),
    ]
    return _grid("gateway", rows)


def _uptime(seconds: object) -> str:
    """In days, hours, minutes and seconds, the largest two."""
    if not isinstance(seconds, int | float):
        return "-"
    left = int(seconds)
    parts = ((left // 86400, "d"), (left // 3600 % 24, "h"), (left // 60 % 60, "min"), (left % 60, "s"))
    first = next((at for at, (number, _) in enumerate(parts) if number), 3)
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2])


def _traffic(gate: Mapping[str, Any]) -> RenderableType:
    """How requests end: a second, of late, and since the start; how long they take."""
    late = gate.get("traffic") or {}
    rates, latency = late.get("per_second") or {}, late.get("latency_ms") or {}
    rows: list[tuple[object, ...]] = [
        (outcome, rates.get(outcome, 0.0), count) for outcome, count in (gate.get("requests") or {}).items()
    ]
    rows += [(name, _ms(latency[name]), "") for name in ("p50", "p90", "p99") if name in latency]
    return _grid("traffic", rows, ("outcome", "now, /s", "in all"))


def _ms(value: object) -> str:
    return f"{value:.3g} ms" if isinstance(value, int | float) else "-"


def _mistakes(gate: Mapping[str, Any]) -> list[RenderableType]:
    config = gate.get("config") or {}
    mistakes, file = config.get("mistakes"), str(config.get("file") or "")
    if not isinstance(mistakes, list) or not mistakes:
        return []
    said = "\n".join(str(line).replace(file, shorter(file)) if file else str(line) for line in mistakes)
    title = "config: the edit is not used, the one before holds"
    return [Panel(Text(said), title=title, title_align="left", expand=False, border_style="red")]


def _good(good: object, yes: str, no: str) -> Text:
    return Text(yes, style="green") if good else Text(no, style="red")


def _step(gate: Mapping[str, Any]) -> RenderableType:
    step = gate.get("step") or {}
    steps = [rung for rung in step.get("steps") or [] if isinstance(rung, dict)]
    rungs = []
    for rung in steps:
        name = Text(f"{rung.get('step')} {rung.get('name')}")
        if rung.get("step") == step.get("step"):
            name.stylize("reverse")
        gives_up = f"only {rung['only']}" if rung.get("only") else ", ".join(rung.get("off") or [])
        rungs.append((name, gives_up if rung.get("only") or not gives_up else f"off: {gives_up}"))
    signals = [(f"  {name.replace('_', ' ')}", value) for name, value in (gate.get("signals") or {}).items()]
    pressure = [("pressure", gate.get("pressure")), *signals]
    return _grid("step", [*pressure, ("set to", step.get("state")), *rungs])


def _features(gate: Mapping[str, Any]) -> RenderableType:
    rows = [
        (item.get("name"), _good(item.get("on"), "on", "off"), item.get("state"), _pin(item))
        for item in _list(gate, "features")
    ]
    return _grid("features", rows, ("feature", "now", "set to", ""))


def _breakers(gate: Mapping[str, Any]) -> RenderableType:
    loads = {item.get("name"): item for item in _list(gate, "upstreams")}
    rows = []
    for item in _list(gate, "breakers"):
        load = loads.get(item.get("upstream"), {})
        slots = f"{_plain(load.get('in_flight'))} / {_plain(load.get('concurrency_limit'))}"
        now = _good(item.get("now") == "closed", "closed", str(item.get("now")))
        rows.append((item.get("upstream"), now, item.get("state"), slots, _pin(item)))
    return _grid("breakers", rows, ("upstream", "now", "set to", "in flight", ""))


def _limits(gate: Mapping[str, Any]) -> RenderableType:
    rows = []
    for item in _list(gate, "limits"):
        checks = item.get("checks") or {}
        per = item.get("per")
        per = ", ".join(map(str, per)) if isinstance(per, list) else per
        counts = (checks.get(name, 0) for name in ("allowed", "denied", "shadow", "fallback"))
        rows.append((item.get("name"), item.get("rate"), per, item.get("mode"), *counts, _pin(item)))
    return _grid("limits", rows, ("limit", "rate", "per", "mode", "allowed", "denied", "shadow", "local", ""))


def _servers(gate: Mapping[str, Any]) -> list[RenderableType]:
    """Servers of upstreams, where there are several or one is left alone."""
    rows = []
    for upstream in _list(gate, "upstreams"):
        servers = [one for one in upstream.get("servers") or [] if isinstance(one, dict)]
        if len(servers) > 1 or any(one.get("ejected") for one in servers):
            for one in servers:
                left = f"left alone by {one.get('ejected')}, {_plain(one.get('seconds_left'))} s"
                state = _good(not one.get("ejected"), "well", left)
                rows.append((upstream.get("name"), one.get("url"), state, one.get("in_flight")))
    return [_grid("servers", rows, ("upstream", "server", "now", "in flight"))] if rows else []


def _busiest(gate: Mapping[str, Any]) -> list[RenderableType]:
    """Who is at a limit or near it, three of each."""
    rows = [
        (limit.get("name"), one.get("key"), one.get("count"))
        for limit in _list(gate, "limits")
        for one in (limit.get("busiest") or [])[:3]
    ]
    return [_grid("who is at a limit", rows, ("limit", "key", "near or over, lately"))] if rows else []


# ---- the shop -----------------------------------------------------------------------------------


def _queues(samples: Samples) -> RenderableType:
    lags = samples.get("shop_stream_lag_seconds", {})
    rows: list[tuple[object, ...]] = [
        (labels[0], depth, lags.get(labels)) for labels, depth in samples.get("shop_stream_depth", {}).items()
    ]
    rows += [("outbox", count, None) for count in samples.get("shop_outbox_pending", {}).values()]
    return _grid(f"queues{AGE}", rows, ("queue", "depth", "lag, s"))


def _stock(samples: Samples, fresh: Stock | None) -> RenderableType:
    if fresh is not None:
        rows = [(sku, free, held) for sku, (free, held) in sorted(fresh.items())]
        return _grid("stock now", rows, ("sku", "free", "held"))
    stock = samples.get("shop_stock", {})  # labels: sku, state
    skus = sorted({sku for sku, _ in stock})
    counted = [(sku, stock.get((sku, "free")), stock.get((sku, "held"))) for sku in skus]
    return _grid(f"stock{AGE}", counted, ("sku", "free", "held"))


def _orders(samples: Samples) -> RenderableType:
    """How many orders came into each state: an order delivered also was reserved and paid."""
    counted = samples.get("shop_orders_total", {})
    rows = [(f"were {state}", counted.get((state,), 0.0)) for state in STATES]
    return _grid("orders, since the shop started", rows)


def _database(samples: Samples) -> RenderableType:
    pool = samples.get("shop_db_pool_connections", {})  # labels: role, state
    return _grid(
        "database connections", ((f"{role} {state}", n) for (role, state), n in sorted(pool.items()))
    )
