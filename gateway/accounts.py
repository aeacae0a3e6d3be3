"""What became of requests, counted and logged many at a time: code run once a request is found cold."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from gateway.access_log import AccessLog, record
from gateway.exchange import Exchange
from gateway.metrics import WorkerMetrics

TOGETHER: Final = 64  # requests
LATEST: Final = 0.1  # seconds until the last of them is in the log
UNROUTED: Final = "(none)"  # the label of requests that no route took


class Accounts:
    """Ended requests of one worker on their way to its metrics and its access log.

    Attributes:
        log: where their lines go; None: nowhere.

    Args:
        metrics: where they are counted. Whoever reads these calls `settle` first.
    """

    def __init__(self, metrics: WorkerMetrics) -> None:
        self.log: AccessLog | None = None
        self._metrics = metrics
        self._ended: list[tuple[Exchange, int, int, float]] = []  # and when, as `Exchange.started`

    def add(self, exchange: Exchange, status: int, sent: int) -> None:
        """Take in a request that has ended; see `record`."""
        ended = self._ended
        ended.append((exchange, status, sent, time.perf_counter()))
        if len(ended) >= TOGETHER:
            self.settle()
        elif len(ended) == 1:
            asyncio.get_running_loop().call_later(LATEST, self.settle)

    def settle(self) -> None:
        """Count and log all that have ended until now."""
        ended, self._ended = self._ended, []
        metrics, log = self._metrics, self.log
        epoch = time.time() - time.perf_counter()  # once for all: none ended more than LATEST ago
        for exchange, status, sent, at in ended:
            seconds = at - exchange.started
            metrics.request(exchange.route or UNROUTED, exchange.method, status, exchange.outcome, seconds)
            if exchange.upstream_seconds is not None:
                metrics.upstream(exchange.upstream, exchange.upstream_seconds)
            if log is not None:
                log.write(record(exchange, status, sent, seconds, epoch + at))
