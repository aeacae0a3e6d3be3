"""The storefront's pages: what they say, what they let caches keep, and what they forbid."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis
from starlette.applications import Starlette

from shop_backend import pages
from shop_backend.cache.shared_value import SharedValue
from shop_backend.catalog import Catalog, Product
from shop_backend.config import Settings
from shop_backend.errors import ShopError, on_shop_error
from shop_backend.money import money
from shop_backend.pages.assets import Assets, folder, takes_gzip
from shop_backend.pages.views import view
from shop_backend.sections import DatabaseSettings
from shop_backend.seed import read_products
from shop_backend.stock.ledger import StockLedger
from shop_backend.storage.database import Database

ROOT = Path(__file__).resolve().parents[2]
CATALOGUE = read_products(ROOT / "config" / "catalog" / "products.csv")
ORDER = "7d444840-9dc0-51d1-b245-5ffdce74fad2"


@pytest.fixture
async def http(migrated_database_url: str, redis_durable_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """The pages of a shop with the seeded catalogue."""
    database = Database(migrated_database_url, DatabaseSettings())
    await database.open()
    columns = list(Product.__dataclass_fields__)
    marks = ", ".join(["%s"] * (len(columns) + 1))
    async with database.primary() as connection:
        for position, row in enumerate(CATALOGUE):
            values = [*(getattr(row, name) for name in columns), position]
            await connection.execute(
                f"INSERT INTO products ({', '.join(columns)}, position) VALUES ({marks})",  # noqa: S608 - names of our own
                values,
            )
    settings = Settings()
    async with Redis.from_url(redis_durable_url, decode_responses=True) as redis:
        stock = StockLedger(redis, settings.stock)
        shared = SharedValue(redis, "catalog", settings.catalog.shared_for)
        catalog = Catalog(database, stock, shared, settings.catalog)
        parts = SimpleNamespace(settings=settings, catalog=catalog)
        app = Starlette(
            routes=pages.routes(cast("Any", parts)),  # all they need of a Context
            exception_handlers={ShopError: on_shop_error},
        )
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop.example") as client:
            yield client
    await database.close()


# ---- pages -----------------------------------------------------------------------------------


async def test_the_shelf_shows_every_product(http: httpx.AsyncClient) -> None:
    """Each product has a link, a price and a picture that is really served."""
    page = await http.get("/")
    assert page.status_code == 200
    for product in CATALOGUE:
        assert f'href="/p/{product.sku}"' in page.text
    for picture in set(re.findall(r'src="(/static/[^"]+)"', page.text)):
        assert (await http.get(picture)).status_code == 200


async def test_a_product_can_be_bought_by_keyboard_and_reader(http: httpx.AsyncClient) -> None:
    """Every field has its label, the page its language, and a coming sale its countdown."""
    page = (await http.get("/p/steam-50")).text
    for name in re.findall(r'<input id="([^"]+)"', page):
        assert f'<label for="{name}">' in page
    assert '<html lang="en">' in page
    assert "<fieldset>" in page

    soon = (await http.get("/p/emberfall-deluxe")).text
    assert 'data-countdown="2027-03-01T18:00:00Z"' in soon
    assert "<fieldset disabled>" in soon


async def test_nothing_inline_and_nobody_else(http: httpx.AsyncClient) -> None:
    """No page holds a script, a style or a handler of its own, or an address of another host."""
    for path in ("/", "/p/flash-100", "/cart", "/orders", f"/orders/{ORDER}", "/p/nothing"):
        page = await http.get(path)
        assert "'unsafe" not in page.headers["content-security-policy"]
        assert "default-src 'none'" in page.headers["content-security-policy"]
        assert not re.search(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son[a-z]+=", page.text), path
        assert not re.search(r'(?:src|href|action)="(?!/|#)', page.text), path


async def test_pages_are_cached_by_what_they_hold(http: httpx.AsyncClient) -> None:
    """Public pages revalidate to 304, a buyer's own are never stored."""
    page = await http.get("/p/quill-pro")
    again = await http.get("/p/quill-pro", headers={"if-none-match": f'"x", W/{page.headers["etag"]}'})

    assert page.headers["cache-control"].startswith("public, max-age=")
    assert (again.status_code, again.content) == (304, b"")
    assert "set-cookie" not in page.headers
    for path in ("/cart", "/orders", f"/orders/{ORDER}"):
        assert (await http.get(path)).headers["cache-control"] == "private, no-store"


async def test_a_degraded_page_leaves_the_block_out(http: httpx.AsyncClient) -> None:
    """With recommendations off, neither block nor script is there; buying is."""
    whole = (await http.get("/p/steam-50")).text
    for value in ("recommendations", "profile, recommendations", "profile,recommendations"):
        page = (await http.get("/p/steam-50", headers={"tidegate-degraded": value})).text
        assert "recommendations" not in page
        assert 'data-buy="steam-50"' in page
    assert "data-recommendations" in whole


@pytest.mark.parametrize(
    "path", ["/p/nothing", "/p/%00", "/p/%ff", "/p/" + "x" * 300, "/p/<b>", "/orders/1", f"/orders/{ORDER}x"]
)
async def test_what_is_not_there_has_a_page(http: httpx.AsyncClient, path: str) -> None:
    """An address that leads nowhere is told as a page, with 404 and nothing of the address in it."""
    page = await http.get(path)
    assert page.status_code == 404
    assert page.headers["content-type"].startswith("text/html")
    assert page.headers["cache-control"] == "no-store"
    assert "<b>" not in page.text


async def test_a_lost_browser_gets_a_page_and_a_program_does_not(http: httpx.AsyncClient) -> None:
    """Unknown addresses are a page only where HTML is asked for, and never under the API."""
    html = {"accept": "text/html,application/xhtml+xml"}
    assert "no page at this address" in (await http.get("/nowhere/at/all", headers=html)).text
    for path, headers in (("/nowhere", {"accept": "*/*"}), ("/api/nowhere", html), ("/callbacks/x", html)):
        answer = await http.get(path, headers=headers)
        assert answer.status_code == 404
        assert "<html" not in answer.text
    assert (await http.post("/", headers=html)).status_code == 405


# ---- static files ----------------------------------------------------------------------------


async def test_static_files_are_kept_for_good(http: httpx.AsyncClient) -> None:
    """Hashed names are immutable; any other name is 404 for a moment, one answer for all who ask for it."""
    page = (await http.get("/")).text
    style = re.search(r"/static/style\.[0-9a-f]{12}\.css", page)
    assert style is not None
    found = await http.get(style[0])
    assert found.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert found.headers["content-type"] == "text/css; charset=utf-8"

    for name in ("style.css", "style.000000000000.css", "%2e%2e", "%00"):
        for accept in ("*/*", "text/html"):
            missing = await http.get(f"/static/{name}", headers={"accept": accept})
            assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
            assert missing.headers["cache-control"] == "public, max-age=2, stale-if-error=0"
            assert "vary" not in missing.headers


async def test_static_files_come_compressed(http: httpx.AsyncClient) -> None:
    """To whoever takes gzip, the same file, a third as long; caches keep both apart."""
    page = (await http.get("/")).text
    style = re.search(r"/static/style\.[0-9a-f]{12}\.css", page)
    assert style is not None
    plain = await http.get(style[0], headers={"accept-encoding": "identity"})
    packed = await http.get(style[0], headers={"accept-encoding": "br;q=1, gzip"})

    assert packed.headers["content-encoding"] == "gzip"
    assert "content-encoding" not in plain.headers
    assert packed.text == plain.text  # the client unpacks
    assert int(packed.headers["content-length"]) < len(plain.content) / 2
    assert plain.headers["vary"] == packed.headers["vary"] == "accept-encoding"
    assert packed.headers["cache-control"] == plain.headers["cache-control"]


@pytest.mark.parametrize(
    ("accept", "welcome"),
    [
        ("gzip", True),
        ("deflate, gzip;q=1.0, *;q=0.5", True),
        ("x-gzip", True),
        ("*", True),
        ("gzip;q=0.001", True),
        ("", False),
        ("identity", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("*;q=0", False),
        ("br, zstd", False),
        ("gzip;q=nonsense", False),
        ("GZIP ; Q=0.5", True),
    ],
)
def test_gzip_is_sent_to_who_takes_it(accept: str, welcome: bool) -> None:
    """As Accept-Encoding is written down, weights and wildcards too."""
    assert takes_gzip(accept) is welcome


def test_a_change_below_renames_what_stands_on_it(tmp_path: Path) -> None:
    """A module's name changes with what it imports, so no browser mixes old with new."""
    (tmp_path / "low.js").write_text("export const a = 1;")
    (tmp_path / "high.js").write_text('import { a } from "./low.js";')
    before = Assets(folder(tmp_path))
    (tmp_path / "low.js").write_text("export const a = 2;")
    after = Assets(folder(tmp_path))

    assert before.url("low.js") != after.url("low.js")
    assert before.url("high.js") != after.url("high.js")


def test_a_circle_of_modules_is_refused(tmp_path: Path) -> None:
    """Two modules that import each other have no hash; the mistake is named at start."""
    (tmp_path / "a.js").write_text('import "x"; import { b } from "./b.js";')
    (tmp_path / "b.js").write_text('import { a } from "./a.js";')
    with pytest.raises(ValueError, match=r"a\.js → b\.js → a\.js"):
        Assets(folder(tmp_path))


def test_every_picture_of_the_catalogue_is_there() -> None:
    """No product goes without its picture, and no picture holds a script."""
    assets = Assets(folder(pages.STATIC))
    for product in CATALOGUE:
        assert assets.has(product.image)
        assert "<script" not in (pages.STATIC / product.image).read_text()


# ---- views -----------------------------------------------------------------------------------

TIMES = st.datetimes(datetime(2020, 1, 1), datetime(2040, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - hypothesis adds the zone


@given(TIMES, st.none() | TIMES, st.none() | TIMES)
def test_a_sale_is_open_exactly_in_its_window(
    now: datetime, starts: datetime | None, ends: datetime | None
) -> None:
    """Open from its first instant up to, not including, its last."""
    row = CATALOGUE[0].model_copy(update={"sale_starts_at": starts, "sale_ends_at": ends})
    shown = view(Product(**row.model_dump()), "plenty", Assets(folder(pages.STATIC)), now)

    inside = (starts is None or starts <= now) and (ends is None or now < ends)
    assert (shown.phase == "open") is inside
    assert shown.ends_soon is (ends is not None and ends - now < timedelta(days=2))


@given(st.integers(1, 10**8))
def test_money_keeps_every_cent(cents: int) -> None:
    """The digits of the text are the cents."""
    assert int(re.sub(r"\D", "", money(cents, "EUR"))) == cents
    assert money(cents, "CHF").startswith("CHF ")


# ---- the catalogue ---------------------------------------------------------------------------


def test_the_catalogue_is_what_the_rehearsal_counts_on() -> None:
    """A flash sale of exactly a hundred keys, one a buyer, open for years; every key unique."""
    lines = (ROOT / "config" / "catalog" / "cards.csv").read_text().splitlines()
    keys = [line.split(",") for line in lines[1:]]
    flash = next(product for product in CATALOGUE if product.sku == "flash-100")

    assert lines[0] == "sku,secret"
    assert len({secret for _, secret in keys}) == len(keys) >= 6000
    assert sum(sku == "flash-100" for sku, _ in keys) == 100
    assert flash.per_user_cap == 1
    assert flash.sale_starts_at is not None
    assert flash.sale_starts_at < datetime(2026, 11, 1, tzinfo=UTC)
    assert flash.sale_ends_at is not None
    assert flash.sale_ends_at > datetime(2034, 1, 1, tzinfo=UTC)
    assert {sku for sku, _ in keys} == {product.sku for product in CATALOGUE}
    assert "steam-50" in {product.sku for product in CATALOGUE}
