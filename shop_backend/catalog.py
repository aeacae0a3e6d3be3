"""What is sold: read from SQL, kept for a moment in each process, one query for any number of misses."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shop_backend.config import CatalogSettings
from shop_backend.errors import NotFound, Unavailable
from shop_backend.metrics import CACHE
from shop_backend.stock.ledger import StockLedger
from shop_backend.storage.database import Database

if TYPE_CHECKING:
    from shop_backend.context import Context  # it imports this file

T = TypeVar("T")
Clock = Callable[[], float]  # seconds, monotonic
StockHint = Literal["plenty", "low", "none", "unknown"]

_STALE_FOR = 300.0  # seconds; while SQL is away, old answers are better than none
_HINT_PATIENCE = 0.2  # seconds; a page without a hint is better than no page


@dataclass(frozen=True, slots=True)
class Product:
    """Something sold. Prices are in cents; a sale window without an end is open on that side."""

    sku: str
    name: str
    kind: str
    brand: str
    description: str
    price_cents: int
    list_price_cents: int
    currency: str
    sale_starts_at: datetime | None
    sale_ends_at: datetime | None
    per_user_cap: int
    image: str
    featured: bool

    def public(self, hint: StockHint) -> dict[str, Any]:
        """As the API shows it."""
        return {
            "sku": self.sku,
            "name": self.name,
            "kind": self.kind,
            "brand": self.brand,
            "description": self.description,
            "price_cents": self.price_cents,
            "list_price_cents": self.list_price_cents,
            "currency": self.currency,
            "sale_starts_at": _iso(self.sale_starts_at),
            "sale_ends_at": _iso(self.sale_ends_at),
            "per_user_cap": self.per_user_cap,
            "image": self.image,
            "featured": self.featured,
            "stock": hint,
        }


class SingleFlight(Generic[T]):
    """One value, loaded by one caller for all who wait; kept for `fresh_for` seconds.

    The loading goes on when its caller is cancelled. When loading fails, the old value serves for
    some minutes more.

    Args:
        load: how the value comes.
        fresh_for: seconds it is kept.
        clock: monotonic seconds.
        level: the cache's name in the metrics.
        patience: seconds after which callers no longer wait for a loading; None for as long as it takes.
        stale_for: seconds an old value serves when loading fails.
    """

    def __init__(
        self,
        load: Callable[[], Awaitable[T]],
        fresh_for: float,
        *,
        clock: Clock,
        level: str,
        patience: float | None = None,
        stale_for: float = _STALE_FOR,
    ) -> None:
        self._load = load
        self._fresh_for = fresh_for
        self._clock = clock
        self._level = level
        self._patience = patience
        self._stale_for = stale_for
        self._loading_since = 0.0  # the event loop's time
        self._value: T | None = None
        self._loaded_at = float("-inf")
        self._loading: asyncio.Task[None] | None = None

    async def get(self) -> T:
        """The value.

        Raises:
            Unavailable: it can't be loaded and there is no old one.
        """
        if self._value is not None and self._clock() - self._loaded_at < self._fresh_for:
            CACHE.labels(self._level, "hit").inc()
            return self._value
        CACHE.labels(self._level, "miss" if self._loading is None else "joined").inc()
        if self._loading is None:
            self._loading = asyncio.create_task(self._fill())
            self._loading.add_done_callback(self._done)
            self._loading_since = asyncio.get_running_loop().time()
        try:
            until = None if self._patience is None else self._loading_since + self._patience
            async with asyncio.timeout_at(until):
                await asyncio.shield(self._loading)
        except Exception as error:
            if self._value is not None and self._clock() - self._loaded_at < self._stale_for:
                CACHE.labels(self._level, "stale").inc()
                return self._value
            raise Unavailable("the catalogue can't be read just now; try again", retry_after=2) from error
        if self._value is None:
            raise Unavailable("the catalogue can't be read just now; try again", retry_after=2)
        return self._value

    def forget(self) -> None:
        """Load anew at the next call."""
        self._loaded_at = float("-inf")

    async def _fill(self) -> None:
        asked_at = self._clock()  # a value is as old as its question
        self._value = await self._load()
        self._loaded_at = asked_at

    def _done(self, task: asyncio.Task[None]) -> None:
        self._loading = None
        with contextlib.suppress(asyncio.CancelledError):
            task.exception()  # the waiting ones got it; nobody waiting is no reason to complain


class Catalog:
    """The products and how much is left of them, as of a moment ago."""

    def __init__(
        self,
        database: Database,
        stock: StockLedger,
        settings: CatalogSettings,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self._database = database
        self._stock = stock
        self._settings = settings
        self._products = SingleFlight(self._load, settings.fresh_for, clock=clock, level="local")
        self._hints = SingleFlight(
            self._load_hints,
            settings.stock_fresh_for,
            clock=clock,
            level="stock",
            patience=_HINT_PATIENCE,
            stale_for=0.0,  # "plenty" of some minutes ago helps nobody
        )

    async def products(self) -> list[Product]:
        """All, in the catalogue's order.

        Raises:
            Unavailable: SQL is away.
        """
        return list((await self._products.get()).values())

    async def product(self, sku: str) -> Product | None:
        """One, or None.

        Raises:
            Unavailable: SQL is away.
        """
        return (await self._products.get()).get(sku)

    async def stock_hints(self) -> Mapping[str, StockHint]:
        """What to say about each product's stock; "unknown" while Redis is away or slow."""
        try:
            return await self._hints.get()
        except Unavailable:
            return dict.fromkeys(await self._products.get(), "unknown")

    def forget(self) -> None:
        """Read everything anew at the next call."""
        self._products.forget()
        self._hints.forget()

    async def _load(self) -> dict[str, Product]:
        names = ", ".join(Product.__dataclass_fields__)
        async with self._database.read() as connection:
            cursor = await connection.execute(f"SELECT {names} FROM products ORDER BY position, sku")  # noqa: S608 - our own column names
            return {row["sku"]: Product(**row) for row in await cursor.fetchall()}

    async def _load_hints(self) -> dict[str, StockHint]:
        products = await self._products.get()
        free = await self._stock.free(products)
        return {sku: self._hint(free.get(sku)) for sku in products}

    def _hint(self, free: int | None) -> StockHint:
        if free is None:
            return "unknown"
        if free <= 0:
            return "none"
        return "low" if free <= self._settings.low_stock else "plenty"


# ---- the API ---------------------------------------------------------------------------------


def routes(context: Context) -> list[Route]:
    """GET /api/products and /api/products/{sku}."""
    catalog = context.catalog
    max_age = int(context.settings.catalog.fresh_for)

    async def index(request: Request) -> Response:
        hints = await catalog.stock_hints()
        products = await catalog.products()
        shown = [product.public(hints.get(product.sku, "unknown")) for product in products]
        return _cacheable(request, {"products": shown}, max_age)

    async def show(request: Request) -> Response:
        product = await catalog.product(request.path_params["sku"])
        if product is None:
            raise NotFound("there is no such product; GET /api/products lists them")
        hints = await catalog.stock_hints()
        return _cacheable(request, product.public(hints.get(product.sku, "unknown")), max_age)

    return [
        Route("/api/products", index, methods=["GET"]),
        Route("/api/products/{sku}", show, methods=["GET"]),
    ]


def _cacheable(request: Request, value: dict[str, Any], max_age: int) -> Response:
    body = json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    tag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
    headers = {"etag": tag, "cache-control": f"public, max-age={max_age}"}
    if _matches(request.headers.getlist("if-none-match"), tag):
        return Response(status_code=304, headers=headers)
    return Response(body, headers=headers, media_type="application/json")


def _matches(fields: list[str], tag: str) -> bool:
    """If-None-Match compares weakly (RFC 9110, 13.1.2)."""
    given = {part.strip().removeprefix("W/") for part in ",".join(fields).split(",")}
    return tag in given or "*" in given


def _iso(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment else None
