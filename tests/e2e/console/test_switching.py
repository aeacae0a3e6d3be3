"""An operator sees what is wrong, switches something, and a shopper notices just that."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tests.e2e.console.conftest import SKU
from tests.e2e.console.operating import answer, blocks, row, told

pytestmark = pytest.mark.browser


def test_recommendations_go_off_under_load_and_a_shopper_loses_just_that(
    console: Callable[..., Page],
    shopper: Page,
    load: Counter[int],
    wait_until: Callable[..., Any],
) -> None:
    """Off for a minute, with a reason: the block goes, the rest of the page and everybody's answers stay."""
    wait_until(lambda: blocks(shopper) > 0, what="recommendations are there")
    page = console()
    feature = row(page, "features", "recommendations")
    feature.get_by_role("button", name="off", exact=True).click()
    answer(page, "Switch off", reason="database is hot")

    told(page, re.compile(r"recommendations → off: holds in 2 of 2 workers after [\d.]+ ms"))
    expect(feature.locator(".mark")).to_have_text("fallback")
    expect(feature.locator(".pin")).to_contain_text("database is hot")
    expect(page.locator("#health")).to_contain_text("Switched off: recommendations")
    assert blocks(shopper) == 0
    expect(shopper.get_by_role("button", name="Buy now")).to_be_enabled()
    expect(page.locator("#traffic .legend li").filter(has_text="degraded").locator("b")).not_to_have_text("0")
    entry = page.locator("#trail tr").filter(has_text="database is hot").first
    expect(entry).to_contain_text("2 of 2 in")
    assert set(load) == {200}

    feature.get_by_role("button", name="auto", exact=True).click()
    told(page, "recommendations → auto: holds in 2 of 2 workers")
    wait_until(lambda: blocks(shopper) > 0, what="recommendations are back")


def test_a_breaker_is_held_open_and_freed(
    console: Callable[..., Page], stack: Any, wait_until: Callable[..., Any]
) -> None:
    """It is asked once, with what will come of it; then nobody reaches the shop; auto lets them in again."""

    def session() -> httpx.Response:
        return httpx.post(f"{stack.url}/api/session", json={}, trust_env=False)

    page = console()
    breaker = page.get_by_role("group", name="Breaker of shop")
    breaker.get_by_role("button", name="hold open").click()
    expect(page.get_by_role("dialog")).to_contain_text("Nothing reaches shop")
    page.get_by_role("button", name="Cancel").click()
    assert session().status_code == 201

    breaker.get_by_role("button", name="hold open").click()
    answer(page, "Hold open", reason="failover")
    told(page, re.compile("shop: hold open: holds in 2 of 2 workers"))
    expect(page.locator("#upstreams .breaker .mark")).to_have_text("open")
    expect(page.locator("#health")).to_contain_text("Breaker of shop is open")
    refused = session()
    assert refused.status_code == 503
    assert refused.json()["type"] == "urn:tidegate:upstream-unavailable"

    breaker.get_by_role("button", name="auto").click()
    told(page, "shop: auto: holds in 2 of 2 workers")
    wait_until(lambda: session().status_code == 201, what="the shop is reached again")
    expect(page.locator("#upstreams .breaker .mark")).to_have_text("closed")


def test_a_limit_is_changed_for_one_minute(
    console: Callable[..., Page], stack: Any, admin: httpx.Client
) -> None:
    """One order a minute: the second is refused; the page tells until when, and what is configured."""
    page = console()
    limit = row(page, "limits", "checkout")
    limit.get_by_role("button", name="change…").click()
    page.get_by_role("dialog").get_by_label("Rate").fill("one per hour or so")
    page.get_by_role("dialog").get_by_text("1 min", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Change").click()
    expect(page.get_by_role("dialog").get_by_role("alert")).to_contain_text(
        "rate"
    )  # why not; nothing changed
    page.get_by_role("dialog").get_by_label("Rate").fill("1/minute")
    answer(page, "Change", reason="bots")

    told(page, "checkout → 1/minute: holds in 2 of 2 workers")
    expect(limit).to_contain_text("configured 5/10 seconds")
    expect(limit.locator(".pin .left")).to_contain_text(re.compile(r"\d+ s left|1 min left"))
    pin = admin.get("/api/limits/checkout").json()["pin"]
    assert round(pin["until"] - pin["since"]) == 60
    body = {"sku": SKU, "quantity": 1, "email": "ann@example.org"}
    with httpx.Client(base_url=stack.url, trust_env=False) as buyer:
        buyer.post("/api/session", json={})
        answers = [buyer.post("/api/orders", json=body, headers={"Idempotency-Key": key}) for key in "abc"]
    assert [one.status_code for one in answers] == [202, 429, 429]
    expect(page.locator("#limits .keys h3").filter(has_text="checkout")).to_contain_text("requests, fading")

    limit.get_by_role("button", name="auto").click()
    told(page, "checkout → auto: holds in 2 of 2 workers")
    expect(limit).not_to_contain_text("configured")


def test_a_wrong_edit_of_the_config_is_seen_with_its_line(console: Callable[..., Page], stack: Any) -> None:
    """What is wrong, and where; that the one before holds; and that it is over once the file is good."""
    page = console()
    before = stack.config.read_text(encoding="utf-8")
    line = before.splitlines().index("limits:") + 1
    try:
        stack.edit(before.replace("limits:\n", "limitz:\n", 1))
        mistakes = page.locator("#config .mistakes")
        expect(mistakes).to_contain_text(f"{line}: limitz")
        expect(mistakes).to_contain_text("still holds")
        expect(page.locator("#health")).to_contain_text("The edited configuration is not used")
        page.get_by_role("button", name="Load the file").click()
        told(page, re.compile(f"{line}: limitz"))
    finally:
        stack.edit(before)
    expect(page.locator("#config .mistakes")).to_have_count(0)
    page.get_by_role("button", name="Compare with the file").click()
    expect(page.locator("#config")).to_contain_text("The file is the same as what is in use.")


def test_an_edit_of_the_config_is_told_by_what_it_changed(console: Callable[..., Page], stack: Any) -> None:
    """The trail names the key with its old and new value; what waits for a restart is said until undone."""
    page = console()
    before = stack.config.read_text(encoding="utf-8")
    edited = before.replace("${TIDEGATE_ADMIN_HOST:-127.0.0.1}", "127.0.0.2")
    try:
        stack.edit(edited)
        entry = page.locator("#trail tr").filter(has_text="127.0.0.2").first
        expect(entry).to_contain_text("admin.host: 127.0.0.1 -> 127.0.0.2 (after a restart)")
        expect(entry.locator("small")).to_contain_text(re.compile(r"\d+ → \d+"))
        expect(page.locator("#health")).to_contain_text("Waits for a restart of the gateway: admin.host")
        expect(page.locator("#config tbody tr")).to_have_text(
            re.compile(r"admin\.host.*127\.0\.0\.1.*127\.0\.0\.2")
        )
    finally:
        stack.edit(before)
    expect(page.locator("#health")).not_to_contain_text("restart")
    expect(page.locator("#config tbody tr")).to_have_count(0)


def test_an_emergency_is_asked_in_red(console: Callable[..., Page]) -> None:
    """The rung that turns shoppers away says so before it is held, and is counted in the title after it."""
    page = console()
    page.get_by_role("button", name=re.compile("^3 · emergency")).click()
    expect(page.get_by_role("dialog").locator(".danger")).to_contain_text("turned away")
    answer(page, "Hold it there", reason="test")
    told(page, "holds in 2 of 2 workers")
    expect(page.locator("#health")).to_contain_text("Ladder on step 3, emergency")
    expect(page).to_have_title("(3) Tidegate")
    auto = page.get_by_role("button", name=re.compile("^auto.* pressure decides"))
    auto.click()
    told(page, "the ladder follows pressure: holds in 2 of 2 workers")
    expect(auto).to_have_attribute("aria-pressed", "true")
