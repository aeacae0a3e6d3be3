"""The shop's Prometheus metrics, on a port of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http.server import HTTPServer
from threading import Thread

from prometheus_client import CollectorRegistry, Counter, Gauge, start_http_server
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from shop_backend.errors import SetupError

REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

CACHE = Counter("shop_cache_requests", "Lookups in a cache.", ["level", "result"], registry=REGISTRY)
ORDERS = Counter("shop_orders", "Orders that came into a state.", ["state"], registry=REGISTRY)
CALLBACKS = Counter(
    "shop_payment_callbacks", "Payment callbacks, as received and as handled.", ["result"], registry=REGISTRY
)
STOCK = Gauge("shop_stock", "Stock in Redis.", ["sku", "state"], registry=REGISTRY)
DEPTH = Gauge("shop_stream_depth", "Entries of a stream still to do.", ["stream"], registry=REGISTRY)
LAG = Gauge("shop_stream_lag_seconds", "Age of a stream's oldest entry.", ["stream"], registry=REGISTRY)
OUTBOX = Gauge("shop_outbox_pending", "Mails still to send.", registry=None)  # the worker registers it
DEAD = Counter("shop_dead_letters", "Stream entries given up.", ["stream"], registry=REGISTRY)


class PoolCollector(Collector):
    """Asks the pools at the moment of the scrape."""

    def __init__(self, usage: Callable[[], dict[tuple[str, str], int]]) -> None:
        self._usage = usage

    def collect(self) -> Iterable[Metric]:
        """One gauge per role and state."""
        family = GaugeMetricFamily(
            "shop_db_pool_connections", "Database connections.", labels=["role", "state"]
        )
        for (role, state), count in self._usage().items():
            family.add_metric([role, state], count)
        yield family


def serve(host: str, port: int) -> tuple[HTTPServer, Thread]:
    """Answer GET /metrics from a thread of its own.

    Raises:
        SetupError: the port is taken.
    """
    try:
        server, thread = start_http_server(port, host, registry=REGISTRY)
    except OSError as error:
        raise SetupError(f"metrics: port {port} on {host}: {error.strerror}; use --metrics-port") from error
    return server, thread
