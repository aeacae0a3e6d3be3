"""The trail of changes on the console's page, for who reads it later and on a phone."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import httpx
import pytest
from playwright.sync_api import Browser, Page, expect

from tests.e2e.console.lone_gateway import TOKEN, LoneGateway
from tests.e2e.console.operating import log_in
from tests.waiting import PATIENCE

pytestmark = pytest.mark.browser

# Words that are shorter than their box and stand on two lines, though.
TORN = r"""section => {
    const torn = [];
    const texts = document.createTreeWalker(section, NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const box = texts.currentNode.parentElement.closest("th, td, summary, h2, p");
        if (!box) continue; // a caption, which only screen readers see
        for (const word of texts.currentNode.data.matchAll(/\S+/g)) {
            const range = document.createRange();
            range.setStart(texts.currentNode, word.index);
            range.setEnd(texts.currentNode, word.index + word[0].length);
            const parts = [...range.getClientRects()].filter(part => part.width > 0);
            const width = parts.reduce((sum, part) => sum + part.width, 0);
            // At a hyphen a line may end.
            const rows = new Set(parts.map(part => Math.round(part.top))).size;
            const fits = width < box.parentElement.clientWidth;
            if (rows > 1 && fits && !/[-–]./.test(word[0])) torn.push(word[0]);
        }
    }
    return torn;
}"""


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, free_port: object) -> Iterator[LoneGateway]:
    """A gateway with a history: of switches, an edit, and refusals."""
    assert callable(free_port)
    running = LoneGateway(tmp_path_factory.mktemp("trail"), free_port())
    headers = {"authorization": f"Bearer {TOKEN}"}
    with httpx.Client(base_url=running.admin_url, headers=headers, trust_env=False) as http:
        pin = {"state": "off", "for": "10m", "reason": "the recommendations' database is hot"}
        http.put("/api/features/recommendations", json=pin).raise_for_status()
        assert http.put("/api/limits/checkout", json={"rate": "quick"}).status_code == 422
        token = {"name": "vera", "role": "viewer", "token_sha256": "a" * 64}
        running.edit(admin={"port": running.port, "tokens": [token]})
        http.post("/api/config/reload").raise_for_status()
    yield running
    running.kill()


@pytest.fixture(params=[320, 390, 1280])
def page(request: pytest.FixtureRequest, browser: Browser, gateway: LoneGateway) -> Iterator[Page]:
    """Its console, on a small phone, a phone and a desk, with the trail unfolded."""
    with contextlib.closing(browser.new_context(viewport={"width": request.param, "height": 844})) as context:
        page = context.new_page()
        page.set_default_timeout(PATIENCE * 1000)
        page.goto(gateway.admin_url)
        log_in(page, TOKEN)
        page.get_by_role("link", name="Trail").click()
        expect(page.locator("#trail > table")).to_contain_text("vera")
        for summary in page.locator("#trail summary").all():
            summary.click()
        yield page


def test_no_word_is_torn_apart(page: Page) -> None:
    """A line ends between words: /api/limits/checkout and recommendations are read as they are written."""
    expect(page.locator("#trail")).to_contain_text("/api/limits/checkout")

    assert page.locator("#s-trail").evaluate(TORN) == []


def test_each_entry_says_when_with_its_day_and_until_when(page: Page) -> None:
    """A trail is read days later: a time of the day says little then, nor does a pin without its end."""
    day = r"[A-Z][a-z]{2} \d{1,2} \d{2}:\d{2}:\d{2}"
    for when in page.locator("#trail time").all():
        assert re.fullmatch(day, when.inner_text())
    expect(page.locator("#trail tr", has_text="is hot")).to_contain_text(re.compile(f"off.* until {day}"))


def test_who_is_named_once_and_what_changed_is_written_as_in_the_file(page: Page) -> None:
    """No "operator operator", and nothing of the language that the gateway happens to be written in."""
    said = page.locator("#trail").inner_text()

    assert "{name: vera, role: viewer" in " ".join(said.split())
    assert "{'" not in said
    assert not re.search(r"operator\s+operator", said)
