"""What became of requests of late: rates and percentiles over a sliding window of readings."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping
from itertools import accumulate

from gateway.admin import shapes
from gateway.exchange import Clock
from gateway.metrics import BUCKETS, Labels
from gateway.totals import Reading

WINDOW = 15.0  # seconds; short enough to see a switch take effect, long enough for a steady p99
APART = 0.5  # seconds between the first and last of three readings that are kept; so there are 60 at most
MOST_ROUTES = 50
REQUESTS, DURATIONS = "tidegate_requests_total", "tidegate_request_duration_seconds"
UPSTREAM = "tidegate_upstream_duration_seconds"


class Window:
    """Readings of the last seconds; the oldest is what the newest is compared with.

    Args:
        clock: seconds, monotonic.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._readings: deque[tuple[float, Reading]] = deque()
        self._rates: dict[str, dict[str, shapes.Outcomes]] = {}  # by metric; worked out once a reading
        self._cells: dict[str, dict[Labels, list[float]]] = {}

    def add(self, reading: Reading) -> None:
        """Take the newest."""
        now = self._clock()
        readings = self._readings
        while len(readings) > 1 and readings[1][0] <= now - WINDOW:
            readings.popleft()
        if len(readings) > 1 and now - readings[-2][0] < APART:
            readings.pop()  # whoever asks again and again leaves no more behind
        readings.append((now, reading))
        self._rates.clear()
        self._cells.clear()

    def __len__(self) -> int:
        return len(self._readings)

    @property
    def seconds(self) -> float:
        """From the oldest to the newest."""
        return self._readings[-1][0] - self._readings[0][0] if self._readings else 0.0

    def grown(self, metric: str) -> dict[Labels, float]:
        """By how much each of a metric's counters has grown."""
        if not self._readings:
            return {}
        old, new = (at[1].counters.get(metric, {}) for at in (self._readings[0], self._readings[-1]))
        return {labels: value - old.get(labels, 0.0) for labels, value in new.items()}

    def rate(self, growth: float) -> float:
        """So much growth, by the second."""
        return round(growth / self.seconds, 2) if self.seconds > 0 else 0.0

    def rates(self, metric: str) -> dict[str, shapes.Outcomes]:
        """By the second, of each limit or route (the first label), by what became of it (the last)."""
        if (known := self._rates.get(metric)) is None:
            grown: dict[str, dict[str, float]] = {}
            for labels, growth in self.grown(metric).items():
                of = grown.setdefault(labels[0], {})
                of[labels[-1]] = of.get(labels[-1], 0.0) + growth
            known = self._rates[metric] = {
                first: {last: self.rate(growth) for last, growth in of.items()} for first, of in grown.items()
            }
        return known

    def cells(self, metric: str) -> dict[Labels, list[float]]:
        """By how much each cell of a metric's histograms has grown."""
        if not self._readings:
            return {}
        if (known := self._cells.get(metric)) is None:
            old, new = (at[1].histograms.get(metric, {}) for at in (self._readings[0], self._readings[-1]))
            known = self._cells[metric] = {
                labels: [
                    now - was for now, was in zip(cells, old.get(labels) or [0.0] * len(cells), strict=True)
                ]
                for labels, cells in new.items()
            }
        return known


def traffic(window: Window, total: Mapping[Labels, float]) -> shapes.Traffic:
    """What became of requests, in all and by route.

    Args:
        window: of late.
        total: since the start, by route, method, code and outcome.
    """
    growth = window.grown(REQUESTS)
    cells = {labels[0]: rows for labels, rows in window.cells(DURATIONS).items()}
    routes: dict[str, shapes.RouteTraffic] = {}
    for labels, number in total.items():
        route, outcome = labels[0], labels[3]
        if (seen := routes.get(route)) is None:
            times = latency([cells.get(route, [])])
            seen = routes[route] = {"route": route, "per_second": {}, "total": {}, "latency_ms": times}
        seen["total"][outcome] = seen["total"].get(outcome, 0.0) + number
        rate = window.rate(growth.get(labels, 0.0))
        seen["per_second"][outcome] = round(seen["per_second"].get(outcome, 0.0) + rate, 2)
    busiest = sorted(
        routes.values(),
        key=lambda one: (-sum(one["per_second"].values()), -sum(one["total"].values()), one["route"]),
    )
    in_all: shapes.Outcomes = {}
    for labels, number in growth.items():
        in_all[labels[3]] = in_all.get(labels[3], 0.0) + number
    return {
        "window_seconds": round(window.seconds, 2),
        "per_second": {outcome: window.rate(number) for outcome, number in in_all.items()},
        "latency_ms": latency(cells.values()),
        "routes": busiest[:MOST_ROUTES],
        "routes_left_out": max(0, len(busiest) - MOST_ROUTES),
    }


def latency(histograms: Iterable[list[float]]) -> shapes.Latency:
    """Percentiles of histograms together, by interpolation; what is beyond the last bound counts as it."""
    summed = [0.0] * (len(BUCKETS) + 2)
    for cells in histograms:
        if cells:
            summed = [a + b for a, b in zip(summed, cells, strict=True)]
    counts = list(accumulate(summed[:-1]))
    total = counts[-1]
    if total <= 0:
        return {"p50": None, "p90": None, "p99": None, "mean": None}

    def at(share: float) -> float:
        rank = share * total
        place = bisect_left(counts, rank)
        if place >= len(BUCKETS):
            return BUCKETS[-1] * 1000
        low, high = (BUCKETS[place - 1] if place else 0.0), BUCKETS[place]
        before = counts[place - 1] if place else 0.0
        within = (rank - before) / max(counts[place] - before, 1e-9)
        return round((low + (high - low) * within) * 1000, 2)

    return {"p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "mean": round(summed[-1] / total * 1000, 2)}
