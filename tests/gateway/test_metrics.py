"""Counting in workers and summing in the master."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from gateway.metrics import METRICS, WorkerMetrics
from gateway.totals import Totals

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
    text = generate_latest(totals.registry).decode()
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
