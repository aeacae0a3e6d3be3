"""The console's page: in two languages, by keyboard, on small screens, for everybody."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Locator, Page, expect

from gateway.admin import page as console_page
from tests.e2e.console.conftest import SKU
from tests.e2e.console.contrast import LEAST, contrast
from tests.e2e.console.operating import log_in, row, told, unfold

pytestmark = pytest.mark.browser


def test_it_is_chinese_for_who_reads_chinese(console: Callable[..., Page]) -> None:
    """Every heading and button; the language link keeps the other one, for the next visit too."""
    page = console(locale="zh-CN")
    chinese, english = (console_page.words(language) for language in ("zh", "en"))
    assert page.locator("html").get_attribute("lang") == "zh-CN"
    headings = page.locator("main h2").all_inner_texts()
    assert headings
    assert set(headings) <= set(chinese.values())
    page.locator("#features button[data-value=off]").first.click()
    expect(page.get_by_role("dialog")).to_contain_text(chinese["ask.for"])
    page.keyboard.press("Escape")

    page.get_by_role("link", name="English").click()
    expect(page.locator("#h-traffic")).to_have_text(re.compile(english["traffic.title"], re.IGNORECASE))
    page.goto(page.url.partition("?")[0])
    assert page.locator("html").get_attribute("lang") == "en"


def test_it_is_used_by_keyboard_alone(console: Callable[..., Page]) -> None:
    """Skip link, sections by digits, a switch thrown and freed without a mouse; focus comes back to it."""
    page = console()
    expect(page.locator("main")).to_be_focused()
    page.reload()
    expect(page.locator("#traffic svg")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("5")
    expect(page.locator("#s-features")).to_be_focused()
    page.keyboard.press("Tab")  # on
    page.keyboard.press("Tab")  # off
    off = row(page, "features", "recommendations").get_by_role("button", name="off", exact=True)
    expect(off).to_be_focused()
    page.keyboard.press("Enter")
    expect(page.get_by_label("Why?")).to_be_focused()
    page.keyboard.press("Escape")
    expect(off).to_be_focused()  # and so it stays while the page is drawn anew
    page.keyboard.press("Enter")
    page.keyboard.type("by keyboard")
    page.keyboard.press("Enter")
    told(page, "recommendations → off: holds in 2 of 2 workers")
    expect(off).to_be_focused()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")


def test_without_events_it_asks(browser: Browser, stack: Any) -> None:
    """Where a proxy swallows the stream, the status comes by asking; the page says so."""
    context = browser.new_context()
    page = context.new_page()
    page.route("**/api/events", lambda route: route.abort())
    page.goto(stack.admin_url)
    log_in(page, stack.admin_token)

    expect(page.locator("#link")).to_have_text("every 2 s")
    context.close()


@pytest.mark.parametrize("width", [320, 390, 768, 1440])
def test_nothing_is_wider_than_the_screen(console: Callable[..., Page], stack: Any, width: int) -> None:
    """No sideways scrolling, from a small phone to a desk; an edit in the trail breaks its line."""
    page = console(viewport={"width": width, "height": 800})
    expect(page.locator("#panels")).not_to_be_empty()
    unfold(page)
    before = stack.config.read_text(encoding="utf-8")
    edited = before.replace("rate: 1000/second", f"rate: {width}/second")
    stack.edit(edited)
    try:
        expect(page.locator("#trail td code").filter(has_text=f"-> {width}").first).to_be_visible()
    finally:
        stack.edit(before)

    wide = page.evaluate(
        "[...document.querySelectorAll('main *')]"
        ".filter(e => e.getBoundingClientRect().right > innerWidth + 1 && !e.closest('svg'))"
        ".map(e => e.outerHTML.slice(0, 120))"
    )
    assert wide == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("width", [320, 390])
def test_every_section_is_near_on_a_phone(console: Callable[..., Page], width: int) -> None:
    """All places of the navigation are on the screen; the last sections are folded, and unfold on the way."""
    page = console(viewport={"width": width, "height": 844})
    for link in page.locator(".places a").all():
        box = link.bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= width
    expect(page.locator("#trail")).to_be_hidden()
    page.get_by_role("link", name="Trail").click()
    expect(page.locator("#trail")).to_be_visible()
    expect(page.locator("#h-trail")).to_be_in_viewport()

    page.locator("#s-trail .fold").click()
    expect(page.locator("#trail")).to_be_hidden()
    page.locator("#h-trail").click()
    expect(page.locator("#trail")).to_be_visible()


@pytest.mark.parametrize("width", [320, 390, 1210, 1280, 1440])
def test_figures_keep_their_line_and_curves_their_labels(console: Callable[..., Page], width: int) -> None:
    """Percentiles as wide as they get stand side by side; no curve runs over what its axis says."""
    page = console(viewport={"width": width, "height": 900})
    figures, plots = page.evaluate(
        """() => {
            const values = [...document.querySelectorAll("#latency .value")];
            for (const value of values) value.textContent = "888 ms";
            const box = element => element.getBoundingClientRect();
            const lines = new Set(values.map(value => box(value).top)).size;
            const wide = values.filter(value => value.scrollWidth > value.parentElement.clientWidth).length;
            const plots = [...document.querySelectorAll(".plot")].map(plot =>
                [box(plot.querySelector(".top")).bottom, box(plot.querySelector("svg")).top]);
            return [[values.length, lines, wide], plots];
        }"""
    )

    assert figures == [3, 1, 0]
    assert len(plots) == 2
    assert all(label <= curve for label, curve in plots), plots


def violations(page: Page) -> list[Any]:
    """What axe finds: the rule, and where."""
    found = Axe().run(page).response["violations"]
    return [(one["id"], [node["html"][:160] for node in one["nodes"]]) for one in found]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_accessibility_has_no_violation(console: Callable[..., Page], scheme: str, width: int) -> None:
    """Axe finds nothing wrong: contrast, names, roles, order; with the question open, too."""
    page = console(viewport={"width": width, "height": 900}, color_scheme=scheme)
    assert violations(page) == []
    unfold(page)
    assert violations(page) == []
    page.locator("#features button[data-value=off]").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    assert violations(page) == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_button_under_the_mouse_can_be_read(console: Callable[..., Page], scheme: str) -> None:
    """Each kind of button, the one that holds among them; of a question that warns, too."""
    page = console(color_scheme=scheme, reduced_motion="reduce")  # colours change at once
    page.get_by_role("button", name=re.compile("^3 · emergency")).click()
    expect(page.get_by_role("dialog").locator(".danger")).to_be_visible()
    answers = page.locator("#ask button").all()
    pale = [(one.inner_text(), ratio) for one in answers if (ratio := hovered(one)) < LEAST]
    page.get_by_role("button", name="Cancel").click()
    buttons = page.locator("#ladder button, #features button, #upstreams button, #leave").all()
    assert page.locator("#s-features button[aria-pressed=true]").count() == 2
    pale += [(one.inner_text(), ratio) for one in buttons if (ratio := hovered(one)) < LEAST]

    assert pale == []


def hovered(button: Locator) -> float:
    """Its contrast under the mouse."""
    button.hover()
    return contrast(button)


def test_it_speaks_to_nobody_else(browser: Browser, stack: Any) -> None:
    """Every request of the page goes to the admin port."""
    context = browser.new_context()
    page = context.new_page()
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(stack.admin_url)
    log_in(page, stack.admin_token)
    expect(page.locator("#trail table").first).to_be_visible()

    assert len(asked) > 20
    assert all(url.startswith(f"{stack.admin_url}/") for url in asked), asked
    context.close()


def test_the_shop_stands_behind_the_gate(console: Callable[..., Page]) -> None:
    """Stock, orders and queues of the shop are there, as its own pages of metrics have them."""
    page = console()
    for title in ("Stock", "Orders, by the states they came to", "Queues", "Messages to buyers (outbox)"):
        panel = page.locator("#panels .panel").filter(has=page.get_by_role("heading", name=title))
        expect(panel.locator("tbody tr").first).to_be_visible()
    expect(page.locator("#panels")).to_contain_text(SKU)


@pytest.mark.parametrize(
    ("locale", "readable"), [("zh-CN", r"[\u4e00-\u9fff]"), ("en", r"^(?!role$|db pool)")]
)
def test_what_stands_behind_the_gate_is_named_for_its_reader(
    console: Callable[..., Page], locale: str, readable: str
) -> None:
    """Titles and columns in the reader's language, as the configuration has them; no metric's raw name."""
    page = console(locale=locale)
    title = {"zh-CN": "数据库连接", "en": "Database connections"}[locale]
    expect(page.locator("#panels h3").filter(has_text=title)).to_be_visible()
    expect(page.locator("#panels thead th").first).to_be_visible()

    names = page.locator("#panels :is(h3, thead th)").all_inner_texts()
    assert len(names) > 15
    assert [name for name in names if not re.search(readable, name)] == []


@pytest.mark.parametrize("locale", ["en", "zh-CN"])
def test_a_button_keeps_its_words_together(console: Callable[..., Page], locale: str) -> None:
    """What is written on a switch stands on one line, on the smallest phone too."""
    page = console(viewport={"width": 320, "height": 800}, locale=locale)
    unfold(page)
    heights = page.locator(".choices button").evaluate_all(
        "buttons => buttons.map(one => [one.innerText, one.scrollHeight, one.scrollWidth - one.clientWidth])"
    )

    assert len(heights) > 10
    assert [one for one in heights if one[1] > 45 or one[2] > 0] == []
