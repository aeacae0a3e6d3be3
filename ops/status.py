"""`tidegate status`: one screen made of the admin API's and the shop's own words."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from urllib.parse import urlsplit

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from ops.admin_client import Json

SHOP_FAMILIES = {  # metric → heading of the shop's table
    "shop_stock": "stock",
    "shop_orders_total": "orders",
    "shop_stream_depth": "queue depth",
    "shop_stream_lag_seconds": "queue lag, s",
    "shop_outbox_pending": "outbox",
    "shop_db_pool_connections": "database pool",
}


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


def shop_rows(pages: list[str]) -> Iterator[tuple[str, str, float]]:
    """(heading, labels, value) of the shop's families, summed over pages."""
    from prometheus_client.parser import text_string_to_metric_families

    sums: dict[tuple[str, str], float] = {}
    for page in pages:
        for family in text_string_to_metric_families(page):
            for sample in family.samples:
                heading = SHOP_FAMILIES.get(sample.name)
                if heading is not None:
                    labels = " ".join(str(value) for _, value in sorted(sample.labels.items()))
                    sums[heading, labels] = sums.get((heading, labels), 0.0) + sample.value
    for (heading, labels), value in sorted(sums.items()):
        yield heading, labels, value


_EMPTY: tuple[Json, ...] = (None, {}, [])


def _scalar(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    return "-" if value is None else str(value)


def _inline(value: Json) -> str:
    if isinstance(value, dict):
        return "  ".join(
            f"{key} {_inline(item)}" for key, item in value.items() if item not in (None, {}, [])
        )
    if isinstance(value, list):
        return ", ".join(_inline(item) for item in value)
    return _scalar(value)


def _section(name: str, value: Json) -> RenderableType:
    table = Table.grid(padding=(0, 2))
    rows: list[tuple[str, str]]
    if isinstance(value, dict):
        rows = [(str(key), _inline(item)) for key, item in value.items()]
    elif isinstance(value, list):
        rows = [
            (str(item.get("name", "")) if isinstance(item, dict) else "", _inline(item)) for item in value
        ]
    else:
        rows = [("", _scalar(value))]
    for key, text in rows or [("", "none")]:
        table.add_row(Text(key, style="bold"), Text(text))
    return Panel(table, title=name, title_align="left", expand=True)


def show(status: Json, pages: list[str], console: Console | None = None) -> None:
    """Print the screen.

    Args:
        status: the answer of GET /api/status.
        pages: the shop's /metrics pages.
        console: where to; standard output when None.
    """
    sections = status if isinstance(status, dict) else {"gateway": status}
    plain = {key: value for key, value in sections.items() if not isinstance(value, dict | list)}
    parts: list[RenderableType] = []
    if plain:
        parts.append(_section("gateway", plain))
    parts += [_section(key, value) for key, value in sections.items() if key not in plain]
    table = Table.grid(padding=(0, 2))
    for heading, labels, value in shop_rows(pages):
        table.add_row(Text(heading, style="bold"), Text(labels), f"{value:g}")
    if table.row_count:
        parts.append(Panel(table, title="shop", title_align="left", expand=True))
    (console or Console()).print(Group(*parts))
