"""The /metrics pages of a stack that sells, held against the contract by name and label."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

GATEWAY = {
    "tidegate_requests_total": {"route", "method", "code", "outcome"},
    "tidegate_request_duration_seconds_bucket": {"route", "le"},
    "tidegate_upstream_duration_seconds_bucket": {"upstream", "le"},
    "tidegate_limit_checks_total": {"limit", "decision"},
    "tidegate_limit_store_up": set(),
    "tidegate_feature_on": {"feature"},
    "tidegate_degradation_step": set(),
    "tidegate_pressure": set(),
    "tidegate_breaker_state": {"upstream", "state"},
    "tidegate_concurrency_limit": {"upstream"},
    "tidegate_in_flight": {"upstream"},
    "tidegate_config_reloads_total": {"result"},
}
SHOP = {
    "shop_stock": {"sku", "state"},
    "shop_orders_total": {"state"},
    "shop_stream_depth": {"stream"},
    "shop_stream_lag_seconds": {"stream"},
    "shop_payment_callbacks_total": {"result"},
    "shop_db_pool_connections": {"role", "state"},
    "shop_outbox_pending": set(),
    "shop_cache_requests_total": {"level", "result"},
}
OUTCOMES = {"proxied", "cached", "limited", "shed", "degraded", "broken", "rejected", "failed"}


@pytest.fixture(scope="module")
def pages(stack: Any, trade: Callable[[Any], None]) -> dict[str, str]:
    """Gateway's, shop's and worker's page after some trade."""
    trade(stack)
    urls = stack.state()["urls"]
    where = {"gateway": stack.admin_url, "shop": urls["shop_metrics"], "worker": urls["worker_metrics"]}
    return {name: httpx.get(f"{url}/metrics").text for name, url in where.items()}


def samples(*pages: str) -> list[Any]:
    return [
        sample
        for page in pages
        for family in text_string_to_metric_families(page)
        for sample in family.samples
    ]


def test_every_metric_of_the_contract_is_served_with_its_labels(pages: dict[str, str]) -> None:
    """None is missing, none has a label more or less."""
    found: dict[str, set[frozenset[str]]] = {}
    for sample in samples(*pages.values()):
        found.setdefault(sample.name, set()).add(frozenset(sample.labels))

    wanted = {name: {frozenset(labels)} for name, labels in (GATEWAY | SHOP).items()}
    assert {name: found.get(name) for name in wanted} == wanted


def test_outcomes_are_those_of_the_contract(pages: dict[str, str]) -> None:
    """Each request has one of eight; trade shows five of them."""
    seen = {s.labels["outcome"] for s in samples(pages["gateway"]) if s.name == "tidegate_requests_total"}

    assert seen <= OUTCOMES
    assert {"proxied", "cached", "limited", "degraded"} <= seen


def test_routes_are_patterns_and_never_paths(pages: dict[str, str], stack: Any) -> None:
    """Whatever shoppers type, the number of series is that of the configuration."""
    routes = {s.labels["route"] for s in samples(pages["gateway"]) if s.name == "tidegate_requests_total"}

    text = stack.config.read_text(encoding="utf-8")
    assert routes
    assert not [route for route in routes if route != "(none)" and f'"{route}"' not in text]


def test_a_purchase_is_counted_once_at_each_of_its_steps(stack: Any, trade: Callable[[Any], None]) -> None:
    """Reserved by the shop, then pending, paid and delivered by the worker."""

    def orders() -> dict[str, float]:
        urls = stack.state()["urls"]
        now = samples(*(httpx.get(f"{urls[n]}/metrics").text for n in ("shop_metrics", "worker_metrics")))
        total: dict[str, float] = {}
        for s in now:
            if s.name == "shop_orders_total":
                total[s.labels["state"]] = total.get(s.labels["state"], 0) + s.value
        return total

    before = orders()
    trade(stack)
    after = orders()

    grown = {state: after[state] - before[state] for state in after if after[state] != before[state]}
    grown.pop("expired", None)  # what other tests have left unpaid
    assert grown == {"reserved": 1, "pending": 1, "paid": 1, "delivered": 1}


def test_promtool_finds_nothing_to_say(
    pages: dict[str, str], prometheus_program: Callable[[str], str]
) -> None:
    """`promtool check metrics`: names, units, help texts."""
    argv = [prometheus_program("promtool"), "check", "metrics"]
    for name, page in pages.items():
        done = subprocess.run(argv, input=page, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stdout + done.stderr) == (0, ""), name


def test_the_shop_says_which_server_is_away(stack: Any, wait_until: Callable[..., Any]) -> None:
    """Each server the shop stands on is asked at the scrape; one that was slow is well at the next."""
    url = f"{stack.state()['urls']['shop_metrics']}/metrics"

    def up() -> dict[str, float]:
        page = samples(httpx.get(url).text)
        return {s.labels["server"]: s.value for s in page if s.name == "shop_server_up"}

    wait_until(lambda: up() == {"database": 1, "stock": 1, "sessions": 1})
