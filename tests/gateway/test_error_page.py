"""What a browser is shown when the gateway itself answers, and that nobody else gets it."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import httpx
import pytest

from gateway import error_page
from gateway.error_words import WORDS
from gateway.errors import BadRequest, GatewayError, NotFound, Overloaded, RateLimited, UpstreamError
from gateway.field import Block
from tests.gateway.exchanges import plain

CHROME = (
    "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,image/apng,*/*;q=0.8,"
    "application/signed-exchange;v=b3;q=0.7"
)
FIREFOX = "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"
EDGE = "text/html, application/xhtml+xml, image/jxr, */*"
BROWSER = {"accept": CHROME}


def shown(
    accept: str | None = CHROME,
    error: type[GatewayError] = Overloaded,
    wait: int | None = 10,
    method: str = "GET",
    spread: int = 0,
    language: str = "",
) -> error_page.Page | None:
    """What a request with this Accept is shown."""
    headers = [] if accept is None else [(b"accept", line.encode()) for line in accept.split("\n")]
    headers.append((b"accept-language", language.encode()))
    found = error_page.page(plain(method=method, headers=headers), error, wait, spread)
    kept = Block(headers)  # as the fields of one who sends them again and again
    for _ in range(2):
        again = error_page.page(plain(method=method, headers=kept), error, wait)
        assert (again is None) is (found is None)
    return found


@pytest.mark.parametrize(
    "accept", [CHROME, FIREFOX, EDGE, "TEXT/HTML", "image/png\ntext/html", "text/html;q=0.1"]
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_browser_on_its_way_to_a_page_is_shown_one(accept: str, method: str) -> None:
    """Whoever names HTML and no JSON that it likes as well."""
    assert shown(accept, method=method) is not None


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "",
        "*/*",
        "text/*",
        "application/json",
        "application/json, text/html",
        "text/html;q=0.5, application/json;q=0.5",
        "text/html;q=0.5, application/problem+json;q=0.9",
        "text/html, application/*",
        "text/html;q=0, */*",
        "text/html;q=none",
        "text/htmlx, xtext/html",
        "image/avif,image/webp,*/*;q=0.8",
        "text/html," + "x" * 1100,
    ],
)
def test_all_others_get_problem_json(accept: str | None) -> None:
    """JSON, anything, or what no browser says."""
    assert shown(accept) is None


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", ""])
def test_only_what_is_read_may_load_itself_anew(method: str) -> None:
    """A form is never sent twice by us."""
    assert shown(method=method) is None


class Read(HTMLParser):
    """A page, read: its elements must be closed in order, and what it fetches is noted."""

    def __init__(self, page: error_page.Page) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.links: list[str] = []
        self.meta: dict[str, str] = {}
        self.text: dict[str, str] = {}
        self.language = ""
        self.feed(page.body.decode())
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "meta":
            self.meta[given.get("http-equiv") or given.get("name") or "charset"] = given.get("content", "")
        elif tag != "link":
            self.open.append(tag)
        if tag == "html":
            self.language = given["lang"]
        self.fetched += [given[name] for name in ("src", "srcset", "data", "poster") if name in given]
        if "href" in given:
            (self.links if tag == "a" else self.fetched).append(given["href"])
        assert "style" not in given
        assert not any(name.startswith("on") for name in given)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open:
            self.text[self.open[-1]] = self.text.get(self.open[-1], "") + data


@pytest.mark.parametrize("language", ["en", "zh-CN"])
@pytest.mark.parametrize("error", [RateLimited, UpstreamError, NotFound, BadRequest])
def test_a_page_is_whole_in_itself(error: type[GatewayError], language: str) -> None:
    """It fetches nothing, and its policy allows its own style only."""
    page = shown(error=error, language=language, wait=7)
    assert page is not None
    read, fields = Read(page), dict(page.fields)

    assert read.fetched == ["data:,"]  # no icon
    assert "url(" not in read.text["style"]
    assert "@import" not in read.text["style"]
    digest = base64.b64encode(hashlib.sha256(read.text["style"].encode()).digest())
    assert b"default-src 'none'; style-src 'sha256-%b';" % digest in fields[b"content-security-policy"]
    assert read.links == ["" if error in {RateLimited, UpstreamError} else "/"]
    assert read.language == fields[b"content-language"].decode() == language
    assert fields[b"vary"] == b"accept, accept-language"
    assert fields[b"cache-control"] == b"no-store"
    assert int(fields[b"content-length"]) == len(page.body) < 4096
    assert str(error.status) in page.body.decode()
    assert len(fields) == len(page.fields)


@pytest.mark.parametrize(
    ("wait", "spread", "most", "says"),
    [(3, 0, 3, "in 3 s"), (10, 5, 15, "in 1"), (600, 0, 600, "10 minutes"), (40000, 0, 40000, "11 hours")],
)
def test_it_loads_itself_anew(wait: int, spread: int, most: int, says: str) -> None:
    """Not before Retry-After, nor all of a crowd in the same second."""
    pages = [shown(wait=wait, spread=spread) for _ in range(200)]
    drawn = {int(Read(page).meta["refresh"]) for page in pages if page is not None}

    assert drawn == set(range(wait, most + 1))
    for page in pages:
        assert page is not None
        assert dict(page.fields)[b"retry-after"] == b"%d" % wait
        assert says in page.body.decode()


def test_without_retry_after_it_stays() -> None:
    """Nobody knows when; the button asks again."""
    page = shown(error=UpstreamError, wait=None)
    assert page is not None
    assert "refresh" not in Read(page).meta
    assert b"retry-after" not in dict(page.fields)


def test_all_that_passes_is_said_in_every_language() -> None:
    """Each failure that is not the request's has words of its own, and no language lacks one."""
    said, *others = [set(words.errors) for words in WORDS.values()]
    assert all(each == said for each in others)

    def all_of(error: type[GatewayError]) -> set[type[GatewayError]]:
        return {error}.union(*map(all_of, error.__subclasses__()))

    passing = {e for e in all_of(GatewayError) - {GatewayError} if e.status in {500, 502, 503, 504}}
    admin = {"urn:tidegate:too-many-listeners"}  # of the admin port, which has a console
    assert {error.type for error in passing if error.__module__ == "gateway.errors"} - admin <= said


def test_what_is_remembered_is_bounded() -> None:
    """Clients choose their fields, limits their waits."""
    for number in range(1000):
        shown(f"text/html;q=0.{number % 1000:03}, x/{number}", wait=number, language=f"zh;q=0.5, x-{number}")
    for memory in (error_page._prefers_html, error_page._language, error_page._ready):
        assert memory.cache_info().currsize <= 256


# ---- over sockets ----------------------------------------------------------------------------


@pytest.fixture
async def gateway(start_gateway: Any) -> Any:
    """One of one worker, with a limit that is soon full and a feature without fallback."""
    return await start_gateway(
        "--workers",
        "1",
        features={"search": {}},
        limits={"few": {"rate": "1/hour", "per": "global"}, "fewer": {"rate": "1/day", "per": "global"}},
        degradation={"steps": [{"name": "emergency", "only": "critical"}]},
        routes=[
            {"match": "/few", "upstream": "shop", "limits": ["few"]},
            {"match": "/both", "upstream": "shop", "limits": ["few", "fewer"]},
            {"match": "/search", "upstream": "shop", "feature": "search"},
            {"match": "/posted", "methods": ["POST"], "upstream": "shop"},
            {"match": "/", "upstream": "shop"},
        ],
    )


SAME = ("ratelimit-policy", "allow", "connection", "cache-control")
DRAWN = ("ratelimit", "retry-after")  # anew for each, or for the moment: both have it, or none


async def both(gateway: Any, path: str, method: str = "GET") -> tuple[httpx.Response, httpx.Response]:
    """A refusal as a browser sees it, and as everybody else does."""
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        page = await client.request(method, path, headers=BROWSER)
        problem = await client.request(method, path)
    assert page.status_code == problem.status_code
    assert [page.headers.get(name) for name in SAME] == [problem.headers.get(name) for name in SAME]
    assert [name in page.headers for name in DRAWN] == [name in problem.headers for name in DRAWN]
    assert "x-request-id" in page.headers
    return page, problem


async def test_every_refusal_is_a_page_for_a_browser(gateway: Any, shop: Any) -> None:
    """Limits, switches, an emergency, a shop that is gone, no route: by one rule."""
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        assert (await client.get("/both", headers=BROWSER)).json() == {"ok": True}  # as the shop says it
    assert (await gateway.admin("PUT", "/api/features/search", {"state": "off"})).status_code == 200
    titles: dict[str, str] = {}

    async def look(path: str, status: int) -> None:
        page, problem = await both(gateway, path)
        assert page.status_code == status
        assert page.headers["content-type"] == "text/html; charset=utf-8"
        assert page.headers["vary"] == "accept, accept-language"
        assert problem.headers["content-type"] == "application/problem+json"
        assert problem.json()["status"] == status
        assert "vary" not in problem.headers
        found = re.search("<h1>(.*)</h1>", page.text)
        assert found is not None
        titles[path] = found[1]
        if (after := page.headers.get("retry-after")) is not None:
            reload = re.search(r'http-equiv="refresh" content="(\d+)"', page.text)
            assert reload is not None
            assert int(reload[1]) >= int(after) >= 1

    await look("/few", 429)
    await look("/both", 429)
    await look("/search", 503)
    await look("/nowhere", 404)
    await look("/posted", 405)
    await look("/%zz", 400)
    await gateway.admin("PUT", "/api/step", {"step": 1})
    await look("/", 503)
    await gateway.admin("PUT", "/api/step", {"step": 0})
    await shop.stop()
    emergency = titles["/"]
    await look("/", 502)
    assert (titles["/few"], titles["/search"], titles["/nowhere"], emergency, titles["/"]) == (
        *("One moment, please", "Switched off for now", "Nothing here"),
        *("It is very busy just now", "No answer"),
    )


async def test_a_form_is_answered_as_ever(gateway: Any, shop: Any) -> None:
    """A browser's POST gets problem+json, to the letter."""
    await shop.stop()
    page, problem = await both(gateway, "/", "POST")

    assert page.content == problem.content
    assert page.headers["content-type"] == "application/problem+json"


async def test_head_is_the_page_without_its_body(gateway: Any) -> None:
    """Length and fields as for GET; the connection goes on."""
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        got = await client.get("/nowhere", headers=BROWSER | {"accept-language": "zh-CN"})
        head = await client.head("/nowhere", headers=BROWSER | {"accept-language": "zh-CN"})
        again = await client.get("/nowhere", headers=BROWSER | {"accept-language": "zh-CN"})

    assert got.content == again.content
    assert got.headers["content-language"] == "zh-CN"
    assert (head.status_code, head.content) == (404, b"")
    assert head.headers["content-length"] == str(len(got.content))
