"""What is sold: read from SQL, kept for a moment in each process, one query for any number of misses."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from pydantic import TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shop_backend.cache.shared_value import SharedValue
from shop_backend.cache.single_flight import Clock, SingleFlight
from shop_backend.errors import NotFound, Unavailable
from shop_backend.sections import CatalogSettings
from shop_backend.stock.ledger import StockLedger
from shop_backend.storage.database import Connection, Database

if TYPE_CHECKING:
    from shop_backend.context import Context  # it imports this file

_log = logging.getLogger(__name__)

StockHint = Literal["plenty", "low", "none", "unknown"]


@dataclass(frozen=True, slots=True)
class Product:
    """Something sold. Prices are in cents; a sale window without an end is open on that side.

    Attributes:
        listed: whether the shelf shows it; else it has its address, until its sale is over.
    """

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
    listed: bool = True

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


_PRODUCTS = TypeAdapter(list[Product])


class Catalog:
    """The products and how much is left of them, as of a moment ago.

    Products come from this process, else from Redis, else from SQL: whatever is changed there, by
    whomever, is seen after `fresh_for` and the second in which a worker notices (`watch`).

    Args:
        shared: the copy in Redis.
    """

    def __init__(
        self,
        database: Database,
        stock: StockLedger,
        shared: SharedValue,
        settings: CatalogSettings,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self._database = database
        self._stock = stock
        self._shared = shared
        self._settings = settings
        self._products = SingleFlight(self._load, settings.fresh_for, clock=clock, level="local")
        self._hints = SingleFlight(
            self._load_hints,
            settings.stock_fresh_for,
            clock=clock,
            level="stock",
            patience=settings.stock_timeout,
            stale_for=0.0,  # "plenty" of some minutes ago helps nobody
        )

    async def products(self) -> list[Product]:
        """All that were ever sold, in the catalogue's order.

        Raises:
            Unavailable: SQL is away.
        """
        return list((await self._products.get()).values())

    async def shelf(self) -> list[Product]:
        """Those that shoppers are shown, in the catalogue's order.

        Raises:
            Unavailable: SQL is away.
        """
        return [product for product in await self.products() if product.listed]

    async def product(self, sku: str) -> Product | None:
        """One that is shown or on sale, or None.

        Raises:
            Unavailable: SQL is away.
        """
        product = (await self._products.get()).get(sku)
        if product is None or product.listed:
            return product
        ends = product.sale_ends_at
        return None if ends is not None and ends <= datetime.now(tz=UTC) else product

    async def name(self, sku: str) -> str:
        """What a product is called, also one that is no longer shown; its SKU while nobody can say."""
        try:
            product = (await self._products.get()).get(sku)
        except Unavailable:
            return sku
        return sku if product is None else product.name

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

    async def warm(self) -> None:
        """Read the products before the first shopper asks."""
        try:
            await self.products()
        except Unavailable as error:
            _log.warning("the catalogue is not warm: %s", error)

    async def watch(self) -> int:
        """Keep the copy in Redis the newest: for a worker, every second.

        Returns:
            Always 0: there is never more to do at once.
        """
        async with self._database.primary() as connection:
            version = await _version(connection)
        if await self._shared.version() != version:
            # First nobody may read the old, or write it back; then the new comes.
            await self._shared.outdate(version)
            await self._fill(primary=True)
        return 0

    async def _load(self) -> dict[str, Product]:
        body = await self._shared.get()
        if body is not None:
            try:
                return _by_sku(_PRODUCTS.validate_json(body))
            except ValidationError:
                _log.warning("the catalogue in Redis is of another version of the shop; read from SQL")
        return await self._fill()

    async def _fill(self, *, primary: bool = False) -> dict[str, Product]:
        """From SQL to Redis; what another has made out of date since does not get there."""
        names = ", ".join(Product.__dataclass_fields__)
        database = self._database
        async with (
            database.latest() if primary else database.read() as connection,
            connection.transaction(),
        ):
            # One snapshot for both: the products are not newer than their version says.
            await connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            version = await _version(connection)
            cursor = await connection.execute(f"SELECT {names} FROM products ORDER BY position, sku")  # noqa: S608 - our own column names
            products = [Product(**row) for row in await cursor.fetchall()]
        await self._shared.put(version, _PRODUCTS.dump_json(products))
        return _by_sku(products)

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


def _by_sku(products: list[Product]) -> dict[str, Product]:
    return {product.sku: product for product in products}


async def _version(connection: Connection) -> int:
    """Of the products: a trigger raises it with every change, in the same transaction."""
    row = await (await connection.execute("SELECT version FROM catalog_version")).fetchone()
    return int(row["version"]) if row else 0


# ---- the API ---------------------------------------------------------------------------------


def routes(context: Context) -> list[Route]:
    """GET /api/products and /api/products/{sku}."""
    catalog = context.catalog
    max_age = int(context.settings.catalog.fresh_for)

    async def index(request: Request) -> Response:
        hints = await catalog.stock_hints()
        shelf = await catalog.shelf()
        shown = [product.public(hints.get(product.sku, "unknown")) for product in shelf]
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
