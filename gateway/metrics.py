"""Every metric of the gateway, stated once; plain integers in the workers, summed in the master.

A worker counts into dicts (no lock, no object per label set on the request path) and hands a snapshot
over when a scrape asks. The master adds the snapshots up: counters of workers that died stay, their
gauges vanish.
"""

from __future__ import annotations

import json
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, NamedTuple

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector, CollectorRegistry

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # bounds the label
BREAKER_STATES = ("closed", "half-open", "open")  # from well to sick; a worker reports the index


class Spec(NamedTuple):
    """What a metric is. `merge` says how the workers' gauges become one."""

    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...] = ()
    merge: Literal["sum", "min", "max"] = "sum"


METRICS: Mapping[str, Spec] = {
    "tidegate_requests_total": Spec(
        "counter", "Requests answered, by how it ended.", ("route", "method", "code", "outcome")
    ),
    "tidegate_request_duration_seconds": Spec(
        "histogram", "From the request's header to the last byte of its answer.", ("route",)
    ),
    "tidegate_upstream_duration_seconds": Spec(
        "histogram", "From asking the upstream to its answer's header.", ("upstream",)
    ),
    "tidegate_limit_checks_total": Spec(
        "counter", "Limits checked, by what was decided.", ("limit", "decision")
    ),
    "tidegate_limit_near_total": Spec(
        "counter", "Requests admitted with 80 % of a limit used, or more.", ("limit",)
    ),
    "tidegate_limit_store_up": Spec(
        "gauge", "1 while limits are shared through Redis (or local by choice).", (), "min"
    ),
    "tidegate_feature_on": Spec("gauge", "1 while a feature is served.", ("feature",)),
    "tidegate_degradation_step": Spec("gauge", "Rung of the degradation ladder; 0 is normal."),
    "tidegate_pressure": Spec("gauge", "The pressure that the ladder goes by; 1 is full."),
    "tidegate_pressure_signal": Spec(
        "gauge", "Each signal of pressure as a share of what alone is full.", ("signal",)
    ),
    "tidegate_breaker_state": Spec(
        "gauge", "1 for the state the breaker is in, of several the sickest.", ("upstream", "state")
    ),
    "tidegate_route_breaker_state": Spec(
        "gauge", "1 for the state the breaker of one route is in.", ("upstream", "route", "state")
    ),
    "tidegate_concurrency_limit": Spec(
        "gauge", "Requests that the upstream may hold at once, over all workers.", ("upstream",)
    ),
    "tidegate_in_flight": Spec("gauge", "Requests that the upstream holds now.", ("upstream",)),
    "tidegate_queue_delay_seconds": Spec(
        "gauge", "What a request waits for a slot of the upstream, on average.", ("upstream",), "max"
    ),
    "tidegate_loop_lag_seconds": Spec(
        "gauge", "The longest turn of a worker's event loop of late, fading.", (), "max"
    ),
    "tidegate_cache_requests_total": Spec(
        "counter", "Requests on routes with a cache, by how they fared there.", ("route", "result")
    ),
    "tidegate_cache_bytes": Spec("gauge", "Bytes that the response caches of all workers hold."),
    "tidegate_cache_entries": Spec("gauge", "Answers that the response caches of all workers hold."),
    "tidegate_shut_offs": Spec("gauge", "What upstreams have shut off for now."),
    "tidegate_config_reloads_total": Spec("counter", "Changes of the configuration, by result.", ("result",)),
    "tidegate_access_log_dropped_total": Spec("counter", "Access log lines lost to a slow disk."),
    "tidegate_worker_restarts_total": Spec("counter", "Workers that died and were started anew."),
    "tidegate_workers": Spec("gauge", "Workers serving."),
}
# Between workers and master only: the index of a state, and the metric that it becomes.
_LEVELS = {
    "breaker_level": "tidegate_breaker_state",
    "route_breaker_level": "tidegate_route_breaker_state",
}

Labels = tuple[str, ...]
Snapshot = dict[str, Any]  # JSON: counters, histograms and gauges, each a list of rows


class LimitTally:
    """What became of the checks of one limit; the policy adds to it."""

    __slots__ = ("allowed", "denied", "fallback", "near", "shadow")

    def __init__(self) -> None:
        self.allowed = self.denied = self.shadow = self.fallback = self.near = 0


class WorkerMetrics:
    """What one worker has counted since it started."""

    def __init__(self) -> None:
        self.counters: dict[str, dict[Labels, int]] = {
            name: {} for name, spec in METRICS.items() if spec.kind == "counter"
        }
        self._requests = self.counters["tidegate_requests_total"]
        self._cached = self.counters["tidegate_cache_requests_total"]
        self._limits: dict[str, LimitTally] = {}
        self._durations: dict[str, list[float]] = {}  # by route: a count per bucket, then the sum
        self._upstream_durations: dict[str, list[float]] = {}
        self._gauges: dict[str, dict[Labels, float]] = {}

    def request(self, route: str, method: str, code: int, outcome: str, seconds: float) -> None:
        """Count an answered request."""
        labels = (route, method if method in _METHODS else "other", str(code), outcome)
        requests = self._requests
        requests[labels] = requests.get(labels, 0) + 1
        _observe(self._durations, route, seconds)

    def upstream(self, upstream: str, seconds: float) -> None:
        """Count the time an upstream took to answer."""
        _observe(self._upstream_durations, upstream, seconds)

    def limit_tally(self, limit: str) -> LimitTally:
        """Where a limit's decisions are counted; the same one for as long as the worker lives."""
        return self._limits.setdefault(limit, LimitTally())

    def cached(self, route: str, result: str) -> None:
        """Count how a request fared in the cache: hit, stale, miss, revalidated, collapsed or bypass."""
        labels = (route, result)
        self._cached[labels] = self._cached.get(labels, 0) + 1

    def count(self, name: str, *labels: str, by: int = 1) -> None:
        """Count anything else that is rare."""
        rows = self.counters[name]
        rows[labels] = rows.get(labels, 0) + by

    def gauge(self, name: str, value: float, *labels: str) -> None:
        """Set a gauge; done when a snapshot is due, not per request."""
        self._gauges.setdefault(name, {})[labels] = value

    def breaker(self, upstream: str, state: str) -> None:
        """Set an upstream's breaker state."""
        self.gauge("breaker_level", BREAKER_STATES.index(state), upstream)

    def route_breaker(self, upstream: str, route: str, state: str) -> None:
        """Set the state of the breaker that one route has to itself."""
        self.gauge("route_breaker_level", BREAKER_STATES.index(state), upstream, route)

    def snapshot(self) -> Snapshot:
        """All of it, as plain JSON values."""
        for limit, tally in self._limits.items():
            for decision in ("allowed", "denied", "shadow", "fallback"):
                if number := getattr(tally, decision):
                    self.counters["tidegate_limit_checks_total"][limit, decision] = number
            if tally.near:
                self.counters["tidegate_limit_near_total"][(limit,)] = tally.near
        return {
            "counters": _rows(self.counters),
            "histograms": _rows(
                {
                    "tidegate_request_duration_seconds": {(k,): v for k, v in self._durations.items()},
                    "tidegate_upstream_duration_seconds": {
                        (k,): v for k, v in self._upstream_durations.items()
                    },
                }
            ),
            "gauges": _rows(self._gauges),
        }


def _observe(histograms: dict[str, list[float]], key: str, seconds: float) -> None:
    cells = histograms.get(key)
    if cells is None:
        cells = histograms[key] = [0.0] * (len(BUCKETS) + 2)
    cells[bisect_left(BUCKETS, seconds)] += 1
    cells[-1] += seconds


def _rows(table: Mapping[str, Mapping[Labels, Any]]) -> list[list[Any]]:
    return [
        [name, list(labels), list(value) if isinstance(value, list) else value]
        for name, rows in table.items()
        for labels, value in rows.items()
    ]


class Totals(Collector):
    """The sum over all workers, living and dead, in the form that prometheus-client renders."""

    def __init__(self) -> None:
        self._live: dict[int, Snapshot] = {}  # by worker id, its newest
        self._retired_counters: dict[tuple[str, Labels], float] = {}
        self._retired_histograms: dict[tuple[str, Labels], list[float]] = {}
        self.own = WorkerMetrics()  # what the master itself counts
        self.registry = CollectorRegistry()
        self.registry.register(self)

    def update(self, worker: int, snapshot: Snapshot) -> None:
        """Take a living worker's newest snapshot."""
        self._live[worker] = snapshot

    def retire(self, worker: int) -> None:
        """A worker died: keep its counters, forget its gauges."""
        snapshot = self._live.pop(worker, None)
        if snapshot is not None:
            _add_counters(self._retired_counters, snapshot)
            _add_histograms(self._retired_histograms, snapshot)

    def requests(self) -> dict[Labels, float]:
        """Answered requests by route, method, code and outcome."""
        counters = self._sum_counters()
        return {
            labels: value for (name, labels), value in counters.items() if name == "tidegate_requests_total"
        }

    def checks(self) -> dict[Labels, float]:
        """Limit checks by limit and decision."""
        counters = self._sum_counters()
        return {labels: n for (name, labels), n in counters.items() if name == "tidegate_limit_checks_total"}

    def gauges(self) -> dict[tuple[str, Labels], float]:
        """Every gauge, merged over workers."""
        merged: dict[tuple[str, Labels], float] = {}
        for snapshot in self._snapshots():
            for name, labels, value in snapshot["gauges"]:
                key = (name, tuple(labels))
                merge = METRICS[name].merge if name in METRICS else "max"
                if key not in merged:
                    merged[key] = value
                else:
                    before = merged[key]
                    merged[key] = {
                        "sum": before + value,
                        "min": min(before, value),
                        "max": max(before, value),
                    }[merge]
        for (name, labels), level in list(merged.items()):
            if name in _LEVELS:
                del merged[name, labels]
                for index, state in enumerate(BREAKER_STATES):
                    merged[_LEVELS[name], (*labels, state)] = float(index == level)
        return merged

    def describe(self) -> Iterable[Metric]:
        """Nothing to check names against; the registry is this collector's own."""
        return []

    def collect(self) -> Iterator[Metric]:
        """All families, for prometheus-client."""
        counters, gauges = self._sum_counters(), self.gauges()
        histograms = dict(self._retired_histograms)
        for key in histograms:
            histograms[key] = list(histograms[key])
        for snapshot in self._snapshots():
            _add_histograms(histograms, snapshot)
        for name, spec in METRICS.items():
            if spec.kind == "counter":
                family: Metric = CounterMetricFamily(name, spec.help, labels=spec.labels)
                for labels, number in _of(counters, name, bare=not spec.labels):
                    family.add_metric(labels, number)  # type: ignore[attr-defined]  # Metric is the common base
            elif spec.kind == "gauge":
                family = GaugeMetricFamily(name, spec.help, labels=spec.labels)
                for labels, number in _of(gauges, name):
                    family.add_metric(labels, number)
            else:
                family = HistogramMetricFamily(name, spec.help, labels=spec.labels)
                for (of, labels), cells in histograms.items():
                    if of == name:
                        family.add_metric(labels, _cumulative(cells), sum_value=cells[-1])
            yield family

    def _snapshots(self) -> Iterator[Snapshot]:
        yield from self._live.values()
        yield json.loads(json.dumps(self.own.snapshot()))

    def _sum_counters(self) -> dict[tuple[str, Labels], float]:
        total = dict(self._retired_counters)
        for snapshot in self._snapshots():
            _add_counters(total, snapshot)
        return total


def _of(
    table: Mapping[tuple[str, Labels], float], name: str, *, bare: bool = False
) -> Iterator[tuple[Labels, float]]:
    rows = [(labels, number) for (of, labels), number in table.items() if of == name]
    return iter(rows or ([((), 0.0)] if bare else []))  # a counter without labels is there from the start


def _add_counters(total: dict[tuple[str, Labels], float], snapshot: Snapshot) -> None:
    for name, labels, value in snapshot["counters"]:
        key = (name, tuple(labels))
        total[key] = total.get(key, 0) + value


def _add_histograms(total: dict[tuple[str, Labels], list[float]], snapshot: Snapshot) -> None:
    for name, labels, cells in snapshot["histograms"]:
        key = (name, tuple(labels))
        total[key] = [a + b for a, b in zip(total.get(key, [0.0] * len(cells)), cells, strict=True)]


def _cumulative(cells: list[float]) -> list[tuple[str, float]]:
    running, buckets = 0.0, []
    for bound, count in zip((*map(str, BUCKETS), "+Inf"), cells[:-1], strict=True):
        running += count
        buckets.append((bound, running))
    return buckets
