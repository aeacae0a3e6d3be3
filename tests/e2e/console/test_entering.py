"""Who comes in to the console, and what they may."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.console.operating import log_in

pytestmark = pytest.mark.browser


def test_a_wrong_token_is_told_and_nothing_is_shown(browser: Browser, stack: Any) -> None:
    """No data without a session; who signs out leaves none there; the token is nowhere in the browser."""
    context = browser.new_context()
    page = context.new_page()
    page.goto(stack.admin_url)
    page.get_by_label("Admin token").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.locator("#enter").get_by_role("alert")).to_contain_text("token")
    expect(page.locator("main")).to_be_hidden()

    log_in(page, stack.admin_token)
    page.reload()
    expect(page.locator("#traffic svg")).to_be_visible()  # the session goes on
    kept = page.evaluate("JSON.stringify([{...localStorage}, {...sessionStorage}, document.cookie])")
    assert stack.admin_token not in kept
    assert stack.admin_token not in json.dumps(context.cookies())
    page.get_by_role("button", name="Sign out").click()
    expect(page.locator("main")).to_be_hidden()
    expect(page.get_by_label("Admin token")).to_be_focused()
    context.close()


def test_a_wrong_token_is_told_in_the_language_of_the_page(browser: Browser, stack: Any) -> None:
    """A Chinese page says it in Chinese."""
    context = browser.new_context(locale="zh-CN")
    page = context.new_page()
    page.goto(stack.admin_url)
    page.locator("#token").fill("wrong")
    page.locator("#enter button").click()
    expect(page.locator("#enter").get_by_role("alert")).to_contain_text("令牌不正确")
    context.close()


def test_viewers_see_and_can_not_touch(
    console: Callable[..., Page], stack: Any, wait_until: Callable[..., Any]
) -> None:
    """A viewer's token: every switch is there and can't be pressed."""
    token = "a-viewers-token-of-enough-length"
    digest = hashlib.sha256(token.encode()).hexdigest()
    before = stack.config.read_text(encoding="utf-8")
    tokens = f"tokens: [{{name: visitor, role: viewer, token_sha256: {digest}}}]"
    assert "tokens: []" in before
    page = console(token="")
    try:
        stack.edit(before.replace("tokens: []", tokens, 1))
        probe = {"authorization": f"Bearer {token}"}
        with httpx.Client(base_url=stack.admin_url, headers=probe, trust_env=False) as http:
            wait_until(lambda: http.get("/api/session").status_code == 200, what="the viewer's token holds")
        log_in(page, token)
        expect(page.locator("#who")).to_have_text("visitor · viewer")
        switches = page.locator("main button[data-act]")
        assert switches.count() > 15
        assert all(switches.nth(n).is_disabled() for n in range(switches.count()))
    finally:
        stack.edit(before)
    expect(page.get_by_label("Admin token")).to_be_visible()  # the token went, and the session with it
