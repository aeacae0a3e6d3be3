"""The workers' numbers summed in the master: what /metrics tells and operators see."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from gateway.metrics import BREAKER_STATES, METRICS, Labels, Snapshot, WorkerMetrics

# Between workers and master only: the index of a state, and the metric that it becomes.
_LEVELS = {
    "breaker_level": "tidegate_breaker_state",
    "route_breaker_level": "tidegate_route_breaker_state",
}
Numbers = dict[str, dict[Labels, float]]  # by metric, by labels
Cells = dict[str, dict[Labels, list[float]]]  # a count per bucket, then the sum


@dataclass(frozen=True, slots=True)
class Reading:
    """All workers' numbers at one moment.

    Attributes:
        counters: of all workers that ever lived.
        gauges: of those that live, merged as each metric says.
        histograms: as counters.
        details: what is no metric, by worker; see `WorkerMetrics.snapshot`.
    """

    counters: Numbers
    gauges: Numbers
    histograms: Cells
    details: dict[int, dict[str, Any]]

    def gauge(self, name: str, *labels: str, default: float = 0.0) -> float:
        """One gauge."""
        return self.gauges.get(name, {}).get(labels, default)


class Totals:
    """The sum over all workers, living and dead.

    Counters of workers that died stay, their gauges vanish.

    Attributes:
        own: what the master itself counts.
    """

    def __init__(self) -> None:
        self._live: dict[int, Snapshot] = {}  # by worker id, its newest
        self._retired_counters: Numbers = {}
        self._retired_histograms: Cells = {}
        self.own = WorkerMetrics()

    def update(self, worker: int, snapshot: Snapshot) -> None:
        """Take a living worker's newest snapshot."""
        self._live[worker] = snapshot

    def retire(self, worker: int) -> None:
        """A worker died: keep its counters, forget its gauges."""
        snapshot = self._live.pop(worker, None)
        if snapshot is not None:
            _add_counters(self._retired_counters, snapshot)
            _add_histograms(self._retired_histograms, snapshot)

    def read(self) -> Reading:
        """Everything, added up."""
        counters = {name: dict(rows) for name, rows in self._retired_counters.items()}
        histograms = {name: dict(rows) for name, rows in self._retired_histograms.items()}
        merged: dict[str, dict[Labels, float]] = {}
        own = json.loads(json.dumps(self.own.snapshot()))
        for snapshot in (*self._live.values(), own):
            _add_counters(counters, snapshot)
            _add_histograms(histograms, snapshot)
            _merge_gauges(merged, snapshot)
        for level, name in _LEVELS.items():
            states = {
                (*labels, state): float(index == number)
                for labels, number in merged.pop(level, {}).items()
                for index, state in enumerate(BREAKER_STATES)
            }
            if states:
                merged[name] = states
        details = {worker: snapshot.get("details", {}) for worker, snapshot in self._live.items()}
        return Reading(counters, merged, histograms, details)


def _add_counters(total: Numbers, snapshot: Snapshot) -> None:
    for name, labels, value in snapshot["counters"]:
        rows = total.setdefault(name, {})
        key = tuple(labels)
        rows[key] = rows.get(key, 0.0) + value


def _add_histograms(total: Cells, snapshot: Snapshot) -> None:
    for name, labels, cells in snapshot["histograms"]:
        rows = total.setdefault(name, {})
        key = tuple(labels)
        before = rows.get(key)
        # Never in place: a reading must not change what was retired.
        rows[key] = list(cells) if before is None else [a + b for a, b in zip(before, cells, strict=True)]


def _merge_gauges(merged: Numbers, snapshot: Snapshot) -> None:
    for name, labels, value in snapshot["gauges"]:
        rows = merged.setdefault(name, {})
        key = tuple(labels)
        before = rows.get(key)
        if before is None:
            rows[key] = value
            continue
        merge = METRICS[name].merge if name in METRICS else "max"
        rows[key] = (
            before + value if merge == "sum" else min(before, value) if merge == "min" else max(before, value)
        )
