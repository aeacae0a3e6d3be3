"""What an operator does with the console's page."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, Page, expect


def log_in(page: Page, token: str) -> None:
    """By the form; ends with the first status on the page."""
    page.get_by_label("Admin token").or_(page.get_by_label("管理令牌")).fill(token)
    page.locator("#enter button").click()
    expect(page.locator("#traffic svg")).to_be_visible()


def row(page: Page, section: str, name: str) -> Locator:
    """A row of a section's table, by its first cell."""
    return page.locator(f"#{section} tr").filter(has=page.get_by_role("rowheader", name=name, exact=True))


def unfold(page: Page) -> None:
    """Have every section open; they fold on a phone only."""
    for button in page.locator(".fold[aria-expanded=false]").filter(visible=True).element_handles():
        button.click()
    expect(page.locator(".fold[aria-expanded=false]").filter(visible=True)).to_have_count(0)


def answer(page: Page, button: str, reason: str = "", lasting: str = "1 min") -> None:
    """Answer the question that is open."""
    question = page.get_by_role("dialog")
    expect(question).to_be_visible()
    if reason:
        question.get_by_text(lasting, exact=True).click()
        question.get_by_label("Why?").fill(reason)
    question.get_by_role("button", name=button, exact=True).click()
    expect(question).to_be_hidden()


def told(page: Page, text: str | re.Pattern[str]) -> None:
    """The newest message says so."""
    expect(page.locator("#toasts p").first).to_contain_text(text)


def blocks(page: Page) -> int:
    """How many recommendations a reload of the product's page shows."""
    page.reload(wait_until="networkidle")
    return page.locator("[data-recommendations] li").filter(visible=True).count()
