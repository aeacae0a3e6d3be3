"""The console's page as the server makes it: its language, its headers, and nothing in it but ours."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from gateway.admin import page


@pytest_asyncio.fixture
async def browser() -> AsyncIterator[httpx.AsyncClient]:
    """A browser that is logged in when it has a cookie `in`."""
    shown = page.Page(lambda request: "in" in request.cookies)
    app = Starlette(routes=[Route("/", shown.show), Mount("/static", page.Static(directory=page.CONSOLE))])
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://console") as client:
        yield client


async def test_a_language_that_was_chosen_is_kept(browser: httpx.AsyncClient) -> None:
    """`?lang=` wins over the browser's own, now and later; one that we don't have changes nothing."""
    chinese = {"accept-language": "zh"}
    assert '<html lang="en"' in (await browser.get("/?lang=en", headers=chinese)).text
    assert '<html lang="en"' in (await browser.get("/", headers=chinese)).text
    assert '<html lang="en"' in (await browser.get("/?lang=%3Cscript%3E", headers=chinese)).text
    answer = await browser.get("/?lang=zh")
    assert '<html lang="zh-CN"' in answer.text
    assert answer.headers["content-language"] == "zh-CN"
    assert "httponly" in answer.headers["set-cookie"].lower()


@pytest.mark.parametrize("language", page.LANGUAGES)
def test_every_text_is_filled_in(language: str) -> None:
    """No mark of the template is left; the other language is offered by its own name."""
    text = page.render(language, logged_in=False)

    assert not re.search(r"\{[a-z.]+\}", text)
    assert page.words(language)["enter.title"] in text
    assert "<code>tidegate up</code>" in text
    assert ("中文" if language == "en" else "English") in text


async def test_the_page_says_whether_there_is_a_session(browser: httpx.AsyncClient) -> None:
    """So the script needs not ask in vain."""
    assert 'data-session="no"' in (await browser.get("/")).text
    browser.cookies.set("in", "1")
    assert 'data-session="yes"' in (await browser.get("/")).text


async def test_nothing_inline_may_run(browser: httpx.AsyncClient) -> None:
    """A strict policy: own scripts and styles, no frame around it, nothing stored, nothing sniffed."""
    headers = (await browser.get("/")).headers
    policy = dict(part.strip().partition(" ")[::2] for part in headers["content-security-policy"].split(";"))

    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "img-src", "connect-src")} == {"'self'"}
    assert {policy[name] for name in ("base-uri", "form-action", "frame-ancestors")} == {"'none'"}
    assert headers["cache-control"] == "no-store"
    for answer in (await browser.get("/"), await browser.get("/static/script/main.js")):
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_static_files_are_asked_for_anew(browser: httpx.AsyncClient) -> None:
    """An update of the gateway must not meet scripts of yesterday; unchanged ones cost a 304."""
    first = await browser.get("/static/script/main.js")
    again = await browser.get("/static/script/main.js", headers={"if-none-match": first.headers["etag"]})

    assert first.headers["cache-control"] == "no-cache"
    assert again.status_code == 304
    assert (await browser.get("/static/../page.py")).status_code == 404
    assert (await browser.get("/static/%2e%2e/page.py")).status_code == 404
