"""A gateway that answers no more, seen from the console."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, Route, expect

from tests.e2e.console.lone_gateway import TOKEN, LoneGateway
from tests.e2e.console.operating import log_in, row
from tests.waiting import PATIENCE, wait_until

pytestmark = pytest.mark.browser


@pytest.fixture
def page(browser: Browser, lone_gateway: LoneGateway) -> Iterator[Page]:
    """Its console, live."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    page = context.new_page()
    page.set_default_timeout(PATIENCE * 1000)
    page.goto(lone_gateway.admin_url)
    log_in(page, TOKEN)
    expect(page.locator("#link")).to_have_text("live")
    expect(page.locator("#health")).to_contain_text("All is well")
    yield page
    context.close()


def lost(page: Page) -> None:
    """The page says that the gateway is lost and since when; what is old is dimmed, and changes nothing."""
    expect(page.locator("#link")).to_contain_text("no answer since ")
    expect(page.locator("#health")).to_contain_text("The gateway has not answered since ")
    expect(page.locator("#health")).not_to_contain_text("All is well")
    expect(page.locator("#enter")).to_be_hidden()
    expect(page.locator("#s-traffic")).to_have_css("opacity", "0.6")
    expect(row(page, "features", "recommendations").get_by_role("button", name="off")).to_be_disabled()
    expect(page).to_have_title("(!) Tidegate")


def test_a_gateway_that_stands_still_is_said_to_be_lost(page: Page, lone_gateway: LoneGateway) -> None:
    """No call ends, none is refused; once it goes on, so does the page, by itself."""
    lone_gateway.signal(signal.SIGSTOP)
    try:
        lost(page)
    finally:
        lone_gateway.signal(signal.SIGCONT)

    expect(page.locator("#link")).to_have_text("live")
    expect(page.locator("#health")).to_contain_text("All is well")
    expect(page.locator("#s-traffic")).to_have_css("opacity", "1")
    expect(row(page, "features", "recommendations").get_by_role("button", name="off")).to_be_enabled()
    expect(page).to_have_title("Tidegate")


def test_a_gateway_that_is_gone_is_lost_and_its_successor_says_why_it_asks(
    page: Page, lone_gateway: LoneGateway
) -> None:
    """Killed: the page stays and says so. The next knows no session: only then is the form shown, and why."""
    lone_gateway.kill()
    lost(page)

    lone_gateway.start()
    expect(page.locator("#enter").get_by_role("alert")).to_contain_text("the gateway was started anew")
    expect(page.locator("main")).to_be_hidden()
    log_in(page, TOKEN)
    expect(page.locator("#link")).to_have_text("live")
    expect(page.locator("#s-traffic")).to_have_css("opacity", "1")


def test_a_page_that_is_opened_as_nobody_answers_waits(page: Page) -> None:
    """A session is not given up because the answer to who has it does not come."""
    page.route("**/api/session", lambda route: route.abort())
    page.reload()
    expect(page.locator("#link")).to_contain_text("no answer since ")
    expect(page.locator("#enter")).to_be_hidden()

    page.unroute("**/api/session")
    expect(page.locator("#link")).to_have_text("live")
    expect(page.locator("#traffic svg")).to_be_visible()


def test_curves_are_there_before_the_page_was(browser: Browser, lone_gateway: LoneGateway) -> None:
    """One status is all that the page is told; what it draws is what the gateway remembers."""
    headers = {"authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=lone_gateway.admin_url, headers=headers, trust_env=False) as http:
        wait_until(lambda: len(http.get("/api/history").json()["points"]) > 2, what="three points")
    told: list[str] = []

    def once(route: Route) -> None:
        told.append(route.request.url)
        route.continue_() if len(told) == 1 else route.abort()

    with contextlib.closing(browser.new_context()) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.route("**/api/events", lambda route: route.abort())
        page.route("**/api/status", once)
        page.goto(lone_gateway.admin_url)
        log_in(page, TOKEN)

        page.wait_for_function(
            "document.querySelector('#latency .l-p99').getAttribute('points').split(' ').length > 6"
        )
