"""The cart: quantities on the session Redis, prices from the catalogue, sums made here."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from pydantic import Field
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shop_backend.catalog import Catalog
from shop_backend.errors import NotFound, Unavailable, Unprocessable
from shop_backend.requests import Body, parse, read
from shop_backend.sections import SessionSettings

if TYPE_CHECKING:
    from shop_backend.context import Context  # wiring; nothing here needs it at run time

_SCRIPT = Path(__file__).with_name("put_line.lua")


class LineBody(Body):
    """`PUT /api/cart/{sku}`; 0 takes the line away."""

    quantity: Annotated[int, Field(ge=0, le=1000)]


class Carts:
    """Every user's cart."""

    def __init__(self, redis: Redis, catalog: Catalog, settings: SessionSettings) -> None:
        self._redis = redis
        self._catalog = catalog
        self._settings = settings
        self._put_line = redis.register_script(_SCRIPT.read_text(encoding="utf-8"))

    async def show(self, user: str | None) -> dict[str, Any]:
        """The lines, priced and summed; what is no longer sold is left out.

        Raises:
            Unavailable: Redis or SQL is away.
        """
        quantities = await self._quantities(user) if user else {}
        lines = []
        totals: dict[str, int] = {}
        for sku, quantity in sorted(quantities.items()):
            product = await self._catalog.product(sku)
            if product is None:
                continue
            amount = product.price_cents * quantity
            totals[product.currency] = totals.get(product.currency, 0) + amount
            lines.append(
                {
                    "sku": sku,
                    "name": product.name,
                    "quantity": quantity,
                    "per_user_cap": product.per_user_cap,
                    "unit_cents": product.price_cents,
                    "amount_cents": amount,
                    "currency": product.currency,
                }
            )
        sums = [{"currency": currency, "amount_cents": cents} for currency, cents in sorted(totals.items())]
        return {"lines": lines, "totals": sums}

    async def put(self, user: str, sku: str, quantity: int) -> None:
        """Set a line's quantity; 0 takes it away.

        Raises:
            NotFound: nothing is sold under this SKU.
            Unprocessable: more than the product's cap, or too many lines.
            Unavailable: Redis or SQL is away.
        """
        product = await self._catalog.product(sku)
        if product is None:
            raise NotFound("there is no such product; GET /api/products lists them")
        if quantity > product.per_user_cap:
            raise Unprocessable(f"at most {product.per_user_cap} of {product.name} for one buyer")
        if not await self._write(user, sku, quantity):
            raise Unprocessable(f"a cart has at most {self._settings.cart_lines} lines")

    async def remove(self, user: str, sku: str) -> None:
        """Take a line away, if it is there.

        Raises:
            Unavailable: Redis is away.
        """
        await self._write(user, sku, 0)

    async def _quantities(self, user: str) -> dict[str, int]:
        try:
            found = await cast("Awaitable[dict[str, str]]", self._redis.hgetall(f"cart:{user}"))
        except RedisError as error:
            raise Unavailable("the cart can't be read just now; try again", retry_after=1) from error
        return {sku: int(quantity) for sku, quantity in found.items()}

    async def _write(self, user: str, sku: str, quantity: int) -> bool:
        """Set a line; False when the cart has no room for it."""
        words: list[str | int] = [sku, quantity, self._settings.cart_lines, int(self._settings.cart_lifetime)]
        try:
            put: Any = await self._put_line(keys=[f"cart:{user}"], args=words)
        except RedisError as error:
            raise Unavailable("the cart can't be changed just now; try again", retry_after=1) from error
        return bool(put)


def routes(context: Context) -> list[Route]:
    """GET /api/cart, PUT and DELETE /api/cart/{sku}."""
    settings, sessions = context.settings, context.sessions
    carts = Carts(context.redis_volatile, context.catalog, settings.sessions)

    async def answer(user: str | None) -> Response:
        return JSONResponse(await carts.show(user), headers={"cache-control": "no-store"})

    async def show(request: Request) -> Response:
        return await answer(sessions.user(request))

    async def put(request: Request) -> Response:
        user = sessions.require(request)
        body = parse(LineBody, await read(request, settings.max_body))
        await carts.put(user, request.path_params["sku"], body.quantity)
        return await answer(user)

    async def remove(request: Request) -> Response:
        user = sessions.require(request)
        await carts.remove(user, request.path_params["sku"])
        return await answer(user)

    return [
        Route("/api/cart", show, methods=["GET"]),
        Route("/api/cart/{sku}", put, methods=["PUT"]),
        Route("/api/cart/{sku}", remove, methods=["DELETE"]),
    ]
