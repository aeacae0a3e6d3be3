"""The shop's Prometheus metrics, on a port of their own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from concurrent.futures import CancelledError
from http.server import HTTPServer
from threading import Thread

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from shop_backend.errors import SetupError

_PATIENCE = 2.0  # seconds for the servers to answer at a scrape

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for each, that nobody asks for
REGISTRY = CollectorRegistry()
ProcessCollector(registry=REGISTRY)

CACHE = Counter("shop_cache_requests", "Lookups in a cache.", ["level", "result"], registry=REGISTRY)
ORDERS = Counter("shop_orders", "Orders that came into a state.", ["state"], registry=REGISTRY)
COPIES = Counter("shop_order_copies", "Second copies of accepted orders.", ["result"], registry=REGISTRY)
CALLBACKS = Counter(
    "shop_payment_callbacks", "Payment callbacks, as received and as handled.", ["result"], registry=REGISTRY
)
STOCK = Gauge("shop_stock", "Stock in Redis.", ["sku", "state"], registry=REGISTRY)
DEPTH = Gauge("shop_stream_depth", "Entries of a stream still to do.", ["stream"], registry=REGISTRY)
LAG = Gauge("shop_stream_lag_seconds", "Age of a stream's oldest entry.", ["stream"], registry=REGISTRY)
# The worker registers these two.
OUTBOX = Gauge("shop_outbox_pending", "Mails and text messages still to send.", registry=None)
OUTBOX_DEAD = Gauge("shop_outbox_dead", "Mails and text messages given up.", registry=None)
MESSAGES = Counter(
    "shop_outbox_messages", "Tries to send: sent, failed, dead.", ["channel", "result"], registry=REGISTRY
)
REFUNDS = Gauge("shop_refunds", "Refunds that are not done.", ["state"], registry=None)  # as these two
DROPPED = Counter(
    "shop_dropped_requests",
    "Requests given up because nobody waited any more, by what they came to.",
    ["at"],
    registry=REGISTRY,
)
DEAD = Counter("shop_dead_letters", "Stream entries given up.", ["stream"], registry=REGISTRY)
LOG_DROPPED = Counter("shop_log_dropped", "Log lines lost to a slow or full disk.", registry=REGISTRY)


# There from the start, so that the first of each is a rise from nought and not a new line.
for _state in ("reserved", "pending", "paid", "delivered", "expired", "refunding", "refunded"):
    ORDERS.labels(_state)
for _result in ("queued", "forged", "stale", "malformed", "parked", "duplicate", "mismatch"):
    CALLBACKS.labels(_result)
for _result in ("kept", "sql", "failed"):
    COPIES.labels(_result)
for _at in ("arrival", "stock", "database"):
    DROPPED.labels(_at)
for _stream in ("orders", "callbacks"):
    DEAD.labels(_stream)


class PoolCollector(Collector):
    """Asks the pools at the moment of the scrape.

    Args:
        usage: connections and waiting callers by role and state.
        ceilings: how many connections each role may grow to.
        waits: by role callers that waited, seconds they waited, callers that got nothing.
    """

    def __init__(
        self,
        usage: Callable[[], dict[tuple[str, str], int]],
        ceilings: Callable[[], dict[str, int]],
        waits: Callable[[], dict[str, tuple[int, float, int]]],
    ) -> None:
        self._usage = usage
        self._ceilings = ceilings
        self._waits = waits

    def collect(self) -> Iterable[Metric]:
        """What is used and waited for, by role."""
        family = GaugeMetricFamily(
            "shop_db_pool_connections", "Database connections.", labels=["role", "state"]
        )
        for (role, state), count in self._usage().items():
            family.add_metric([role, state], count)
        yield family
        family = GaugeMetricFamily(
            "shop_db_pool_max_connections", "Database connections a pool may grow to.", labels=["role"]
        )
        for role, count in self._ceilings().items():
            family.add_metric([role], count)
        yield family
        waits = self._waits()
        for place, (name, says) in enumerate(
            (
                ("shop_db_pool_waits", "Callers that had to wait for a database connection."),
                ("shop_db_pool_wait_seconds", "How long they waited."),
                ("shop_db_pool_refused", "Callers that got no database connection in time."),
            )
        ):
            counter = CounterMetricFamily(name, says, labels=["role"])
            for role, figures in waits.items():
                counter.add_metric([role], figures[place])
            yield counter


class ServersCollector(Collector):
    """Asks at the moment of the scrape which servers answer the shop.

    Args:
        ask: by the server's name: "ok", or what is wrong; runs in the shop's event loop.
        names: every server asked, for when the loop itself does not answer.
        loop: the shop's event loop; the scrape is answered in another thread.
    """

    def __init__(
        self,
        ask: Callable[[], Coroutine[None, None, Mapping[str, str]]],
        names: Iterable[str],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._ask = ask
        self._names = tuple(names)
        self._loop = loop

    def collect(self) -> Iterable[Metric]:
        """One gauge per server."""
        family = GaugeMetricFamily(
            "shop_server_up", "1 while a server that the shop stands on answers it.", labels=["server"]
        )
        state: Mapping[str, str] = {}
        asking = asyncio.run_coroutine_threadsafe(self._ask(), self._loop)
        try:
            state = asking.result(_PATIENCE)
        except (TimeoutError, CancelledError):
            asking.cancel()
        for name in self._names:
            family.add_metric([name], float(state.get(name) == "ok"))
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
