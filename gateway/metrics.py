"""Every metric of the gateway, stated once, and how a worker counts: plain integers, no lock.

No object per label set on the request path: a worker counts into dicts, and hands a snapshot over when a
scrape asks. The master adds them up (totals.py).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, Literal, NamedTuple

from gateway.tally import LimitTally

BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
_BOUNDS: Final = list(BUCKETS)
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # bounds the label
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
    "tidegate_admin_refusals_total": Spec(
        "counter", "Changes and tokens that the admin API has refused, by its answer.", ("code",)
    ),
    "tidegate_access_log_dropped_total": Spec("counter", "Access log lines lost to a slow disk."),
    "tidegate_worker_restarts_total": Spec("counter", "Workers that died and were started anew."),
    "tidegate_workers": Spec("gauge", "Workers serving."),
}
TOP: Final = 20  # keys of each limit that a worker tells
HALF_LIFE: Final = 60.0  # seconds in which the count of a key that is not seen any more halves
Labels = tuple[str, ...]
# JSON: counters, histograms and gauges, each a list of rows; and details, which are no metrics.
Snapshot = dict[str, Any]


class ServerState(NamedTuple):
    """One server of an upstream, as one worker sees it."""

    upstream: str
    url: str
    healthy: bool
    seconds_left: float  # until it is used again after an ejection; 0 when it is not ejected
    failures: int  # in a row
    in_flight: int  # exchanges that hold a connection or wait for one
    idle: int


class QueueState(NamedTuple):
    """One priority's queue before an upstream, in one worker."""

    upstream: str
    priority: str
    waiting: int
    refused: int  # ever


class _Histogram:
    """Observations, by how large they were."""

    __slots__ = ("_counts", "_sum")

    def __init__(self) -> None:
        self._counts = [0] * (len(_BOUNDS) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one."""
        place = 0
        while place < len(_BOUNDS) and _BOUNDS[place] < value:  # most are small
            place += 1
        self._counts[place] += 1
        self._sum += value

    def cells(self) -> list[float]:
        """The counts, and after the last of them the sum."""
        return [*map(float, self._counts), self._sum]


class _Answers:
    """Requests of one route that ended alike.

    Attributes:
        labels: what they have in common.
        count: how many there were.
        durations: of all of that route.
    """

    __slots__ = ("count", "durations", "labels")

    def __init__(self, labels: Labels, durations: _Histogram) -> None:
        self.labels = labels
        self.durations = durations
        self.count = 0


class WorkerMetrics:
    """What one worker has counted since it started."""

    def __init__(self) -> None:
        self.counters: dict[str, dict[Labels, int]] = {
            name: {} for name, spec in METRICS.items() if spec.kind == "counter"
        }
        self._answers: dict[tuple[str, str, int, str], _Answers] = {}  # by route, method, code and outcome
        self._cached = self.counters["tidegate_cache_requests_total"]
        self._limits: dict[str, LimitTally] = {}
        self._durations: dict[str, _Histogram] = {}  # by route
        self._upstream_durations: dict[str, _Histogram] = {}
        self._gauges: dict[str, dict[Labels, float]] = {}
        self.servers: list[ServerState] = []  # what operators see besides
        self.queues: list[QueueState] = []
        self._halve_at = time.monotonic() + HALF_LIFE

    def request(self, route: str, method: str, code: int, outcome: str, seconds: float) -> None:
        """Count an answered request."""
        answers = self._answers.get((route, method, code, outcome))
        if answers is None:
            answers = self._like(route, method if method in _METHODS else "other", code, outcome)
        answers.count += 1
        answers.durations.observe(seconds)

    def _like(self, route: str, method: str, code: int, outcome: str) -> _Answers:
        known = self._answers.get((route, method, code, outcome))
        if known is None:
            durations = self._durations.setdefault(route, _Histogram())
            known = _Answers((route, method, str(code), outcome), durations)
            self._answers[route, method, code, outcome] = known
        return known

    def upstream(self, upstream: str, seconds: float) -> None:
        """Count the time an upstream took to answer."""
        durations = self._upstream_durations.get(upstream)
        if durations is None:
            durations = self._upstream_durations[upstream] = _Histogram()
        durations.observe(seconds)

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
        for answers in self._answers.values():
            self.counters["tidegate_requests_total"][answers.labels] = answers.count
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
                    "tidegate_request_duration_seconds": {
                        (route,): durations.cells() for route, durations in self._durations.items()
                    },
                    "tidegate_upstream_duration_seconds": {
                        (name,): durations.cells() for name, durations in self._upstream_durations.items()
                    },
                }
            ),
            "gauges": _rows(self._gauges),
            "details": {"servers": self.servers, "queues": self.queues, "busiest": self._busiest()},
        }

    def _busiest(self) -> list[tuple[str, str, int, int]]:
        now = time.monotonic()
        if fade := now >= self._halve_at:
            self._halve_at = now + HALF_LIFE
        told = []
        for limit, tally in self._limits.items():
            told += [(limit, *row) for row in tally.busiest.top(TOP)]
            if fade:
                tally.busiest.halve()
        return told


def _rows(table: Mapping[str, Mapping[Labels, Any]]) -> list[list[Any]]:
    return [
        [name, list(labels), list(value) if isinstance(value, list) else value]
        for name, rows in table.items()
        for labels, value in rows.items()
    ]
