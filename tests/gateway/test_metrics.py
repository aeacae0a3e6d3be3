"""Counting in workers and summing in the master."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_open_metrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open_metrics
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry

from gateway.exposition import render, wants_open_metrics
from gateway.metrics import BUCKETS, METRICS, WorkerMetrics
from gateway.totals import Reading, Totals

events = st.lists(
    st.tuples(
        st.integers(0, 2),  # worker
        st.sampled_from(["/a", "/b", "(none)"]),
        st.sampled_from(["GET", "POST", "BREW"]),
        st.sampled_from([200, 429]),
        st.floats(0, 20),
    ),
    max_size=40,
)


def _samples(totals: Totals) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = render(totals.read()).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@given(events, st.sets(st.integers(0, 2)))
def test_totals_are_the_sum_over_workers_living_and_dead(
    events: list[tuple[int, str, str, int, float]], dead: set[int]
) -> None:
    """Each request is counted once, in its own labels, whichever worker died since."""
    workers = [WorkerMetrics() for _ in range(3)]
    for worker, route, method, code, seconds in events:
        workers[worker].request(route, method, code, "proxied", seconds)
    totals = Totals()
    for number, worker in enumerate(workers):
        worker.gauge("tidegate_in_flight", 1, "shop")
        totals.update(number, json.loads(json.dumps(worker.snapshot())))
    for number in dead:
        totals.retire(number)

    samples = _samples(totals)

    counted = sum(value for (name, _), value in samples.items() if name == "tidegate_requests_total")
    timed = sum(v for (name, _), v in samples.items() if name == "tidegate_request_duration_seconds_count")
    assert counted == timed == len(events)
    assert samples.get(("tidegate_in_flight", (("upstream", "shop"),)), 0) == 3 - len(dead)
    brewed = sum(
        v
        for (n, labels), v in samples.items()
        if n == "tidegate_requests_total" and ("method", "other") in labels
    )
    assert brewed == sum(method == "BREW" for _, _, method, _, _ in events)


def test_buckets_are_cumulative() -> None:
    """A bucket holds what is at or below its bound; the last holds all."""
    worker, totals = WorkerMetrics(), Totals()
    for seconds in (0.001, 0.0011, 60.0):
        worker.request("/", "GET", 200, "proxied", seconds)
    totals.update(1, worker.snapshot())

    samples = _samples(totals)

    def bucket(bound: str) -> float:
        return samples["tidegate_request_duration_seconds_bucket", (("le", bound), ("route", "/"))]

    assert (bucket("0.001"), bucket("0.0025"), bucket("10.0"), bucket("+Inf")) == (1, 2, 2, 3)


def test_a_store_that_is_down_for_one_worker_is_down() -> None:
    """Gauges that report health take the worst; a breaker shows the sickest state of any worker."""
    totals = Totals()
    for number, (up, state) in enumerate([(1.0, "closed"), (0.0, "open")]):
        worker = WorkerMetrics()
        worker.gauge("tidegate_limit_store_up", up)
        worker.breaker("shop", state)
        totals.update(number, worker.snapshot())

    samples = _samples(totals)

    assert samples["tidegate_limit_store_up", ()] == 0
    states = {labels[0][1]: v for (name, labels), v in samples.items() if name == "tidegate_breaker_state"}
    assert states == {"open": 1, "half-open": 0, "closed": 0}


def test_every_metric_of_the_contract_is_there() -> None:
    """Names and labels are what dashboards rely on."""
    contract = {
        "tidegate_requests_total": ("route", "method", "code", "outcome"),
        "tidegate_request_duration_seconds": ("route",),
        "tidegate_upstream_duration_seconds": ("upstream",),
        "tidegate_limit_checks_total": ("limit", "decision"),
        "tidegate_limit_store_up": (),
        "tidegate_feature_on": ("feature",),
        "tidegate_degradation_step": (),
        "tidegate_pressure": (),
        "tidegate_breaker_state": ("upstream", "state"),
        "tidegate_concurrency_limit": ("upstream",),
        "tidegate_in_flight": ("upstream",),
        "tidegate_config_reloads_total": ("result",),
    }
    assert {name: METRICS[name].labels for name in contract} == contract


class Collected:
    """A reading as prometheus-client's own objects."""

    def __init__(self, reading: Reading) -> None:
        self.reading = reading

    def describe(self) -> list[Metric]:
        return []

    def collect(self) -> Iterator[Metric]:
        kinds = {
            "counter": CounterMetricFamily,
            "gauge": GaugeMetricFamily,
            "histogram": HistogramMetricFamily,
        }
        for name, spec in METRICS.items():
            family = kinds[spec.kind](name, spec.help, labels=spec.labels)
            rows = self.reading.counters if spec.kind == "counter" else self.reading.gauges
            bare = {} if spec.labels or spec.kind != "counter" else {(): 0.0}
            for labels, value in (rows.get(name) or bare).items():
                family.add_metric(labels, value)
            for labels, cells in self.reading.histograms.get(name, {}).items():
                bounds = (*map(str, BUCKETS), "+Inf")
                buckets = list(zip(bounds, accumulate(cells[:-1]), strict=True))
                family.add_metric(labels, buckets, sum_value=cells[-1])
            yield family


labels = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from('"\\\n{},= '), max_size=8)


@given(
    st.lists(st.tuples(labels, st.floats(0, 20)), max_size=8),
    st.dictionaries(labels, st.floats(), max_size=4),
)
def test_it_is_written_as_prometheus_client_would(
    requests: list[tuple[str, float]], gauges: dict[str, float]
) -> None:
    """Both formats, whatever a route is called and a gauge says: read by its parsers, the same families."""
    worker, totals = WorkerMetrics(), Totals()
    for route, seconds in requests:
        worker.request(route, "GET", 200, "proxied", seconds)
    for upstream, value in gauges.items():
        worker.gauge("tidegate_in_flight", value, upstream)
    worker.count("tidegate_access_log_dropped_total", by=3)
    totals.update(1, json.loads(json.dumps(worker.snapshot())))
    reading = totals.read()
    registry = CollectorRegistry()
    registry.register(Collected(reading))

    def told(families: Iterator[Metric]) -> list[Any]:
        return [
            (
                f.name,
                f.type,
                f.documentation,
                sorted((s.name, sorted(s.labels.items()), repr(s.value)) for s in f.samples),
            )
            for f in families
        ]

    plain = render(reading).decode(), generate_latest(registry).decode()
    assert told(text_string_to_metric_families(plain[0])) == told(text_string_to_metric_families(plain[1]))
    openly = render(reading, open_metrics=True).decode(), generate_open_metrics(registry).decode()
    assert told(read_open_metrics(openly[0])) == told(read_open_metrics(openly[1]))


@pytest.mark.parametrize(
    ("accept", "openly"),
    [
        ("", False),
        ("*/*", False),
        ("text/plain", False),
        ("application/openmetrics-text", True),
        (
            "application/openmetrics-text;version=1.0.0;q=0.6,text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
            True,
        ),
        ("application/openmetrics-text;q=0.1,text/plain", False),
        ("application/openmetrics-text;q=nonsense", False),
    ],
)
def test_the_scraper_chooses(accept: str, openly: bool) -> None:
    """What it likes best of the two."""
    assert wants_open_metrics(accept) is openly
