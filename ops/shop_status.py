"""The shop's part of `tidegate status`: its stock, queues, orders and connections."""

from __future__ import annotations

import http.client
from collections.abc import Collection, Iterable
from urllib.parse import urlsplit

from ops.screen import Block, Sheet
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


def summed(pages: Iterable[str]) -> Samples:
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


def blocks(pages: Collection[str], stock: Stock | None) -> list[Block]:
    """What there is to show.

    Args:
        pages: the /metrics pages of its processes, empty where one does not answer.
        stock: at this moment; None takes what the pages say.
    """
    samples = summed(pages)
    found: list[Block] = []
    if samples:
        found.append([_stock(samples, stock), [_queues(samples), _orders(samples), _database(samples)]])
    elif stock:
        found.append([_stock(samples, stock)])
    if pages and not all(pages):
        which = "all" if not any(pages) else "some"
        silent = f"the metrics do not answer ({which} of its processes)"
        found.append([Sheet("shop", [(silent,)], bad=True)])
    return found


def _queues(samples: Samples) -> Sheet:
    lags = samples.get("shop_stream_lag_seconds", {})
    rows: list[tuple[object, ...]] = [
        (labels[0], depth, lags.get(labels)) for labels, depth in samples.get("shop_stream_depth", {}).items()
    ]
    rows += [("outbox (to buyers)", count, None) for count in samples.get("shop_outbox_pending", {}).values()]
    return Sheet(f"queues{AGE}", rows, ("queue", "depth", "lag, s"))


def _stock(samples: Samples, fresh: Stock | None) -> Sheet:
    if fresh is not None:
        rows = [(sku, free, held) for sku, (free, held) in sorted(fresh.items())]
        return Sheet("stock now", rows, ("sku", "free", "held"))
    stock = samples.get("shop_stock", {})  # labels: sku, state
    skus = sorted({sku for sku, _ in stock})
    counted = [(sku, stock.get((sku, "free")), stock.get((sku, "held"))) for sku in skus]
    return Sheet(f"stock{AGE}", counted, ("sku", "free", "held"))


def _orders(samples: Samples) -> Sheet:
    """How many orders came into each state: an order delivered also was reserved and paid."""
    counted = samples.get("shop_orders_total", {})
    rows = [(f"were {state}", counted.get((state,), 0.0)) for state in STATES]
    return Sheet("orders, since the shop started", rows)


def _database(samples: Samples) -> Sheet:
    pool = samples.get("shop_db_pool_connections", {})  # labels: role, state
    rows = [(f"{role} {state}", count) for (role, state), count in sorted(pool.items())]
    return Sheet("database connections", rows)
