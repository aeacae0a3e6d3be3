"""Storefront pages: rendered here, brought to life by small scripts that speak to the shop's API.

Pages say nothing about who looks at them, so any cache may keep them; who you are and what you
bought comes by the API. Features that the gateway lists in `Tidegate-Degraded` are left out.
"""

from __future__ import annotations

import functools
import hashlib
import json
import math
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Match, Route
from starlette.types import Scope

from shop_backend.context import Context
from shop_backend.errors import NotFound, ShopError
from shop_backend.own_orders import SHOWN
from shop_backend.pages.assets import Assets, folder
from shop_backend.pages.views import view

STATIC = Path(__file__).resolve().parent / "static"

SECURITY = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "referrer-policy": "same-origin",  # an order's link may carry its token
    "x-content-type-options": "nosniff",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}
_SKU = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_DEGRADED = "tidegate-degraded"  # features that the gateway has switched off
_ORDER = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

Page = Callable[[Request], Awaitable[Response]]


def routes(context: Context) -> list[Route]:
    """`/`, `/p/{sku}`, `/orders`, `/orders/{id}`, `/cart` and `/static/{file}`."""
    pages = Pages(context)
    return [
        Route("/", pages.guarded(pages.home), methods=["GET"]),
        Route("/p/{sku}", pages.guarded(pages.product), methods=["GET"]),
        Route("/orders", pages.guarded(pages.orders), methods=["GET"]),
        Route("/orders/{id}", pages.guarded(pages.order), methods=["GET"]),
        Route("/cart", pages.guarded(pages.cart), methods=["GET"]),
        Route("/static/{file}", pages.assets.serve, methods=["GET"]),
        Lost("/{path:path}", pages.guarded(pages.lost), methods=["GET"]),
    ]


class Lost(Route):
    """Every other address, for browsers; programs get their 404 and 405 as problem+json."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """Only what asks for HTML outside the API."""
        if scope["type"] != "http" or scope["path"].startswith(("/api/", "/callbacks/")):
            return Match.NONE, {}
        accept = b",".join(value for name, value in scope["headers"] if name == b"accept")
        return super().matches(scope) if b"text/html" in accept else (Match.NONE, {})


class Pages:
    """The pages of one shop.

    Args:
        context: where the catalogue comes from.
        now: the time, with its zone.
    """

    def __init__(
        self, context: Context, *, now: Callable[[], datetime] = lambda: datetime.now(tz=UTC)
    ) -> None:
        self.assets = Assets(folder(STATIC))
        self._catalog = context.catalog
        self._now = now
        self._max_age = max(1, int(context.settings.catalog.fresh_for))
        environment = Environment(
            loader=PackageLoader("shop_backend.pages"),
            autoescape=True,
            undefined=StrictUndefined,
            auto_reload=False,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.globals["assets"] = self.assets
        self._template = environment.get_template
        self._images = json.dumps(
            {path.name: self.assets.url(path.name) for path in folder(STATIC) if path.suffix == ".svg"}
        )

    async def home(self, request: Request) -> Response:
        """Everything on the shelf."""
        hints, now = await self._catalog.stock_hints(), self._now()
        shown = [
            view(product, hints.get(product.sku, "unknown"), self.assets, now)
            for product in await self._catalog.shelf()
        ]
        hero = next((product for product in shown if product.featured and product.phase == "open"), None)
        return self._public(request, "home.html", here="/", products=shown, hero=hero)

    async def product(self, request: Request) -> Response:
        """One product, and the form to buy it."""
        sku = request.path_params["sku"]
        product = await self._catalog.product(sku) if _SKU.fullmatch(sku) else None
        if product is None:
            raise NotFound("Nothing is sold under this address. It may have been mistyped, or long ago.")
        hints = await self._catalog.stock_hints()
        shown = view(product, hints.get(sku, "unknown"), self.assets, self._now())
        off = {name.strip() for name in request.headers.get(_DEGRADED, "").split(",")}
        return self._public(
            request,
            "product.html",
            vary=_DEGRADED,  # a switch holds for kept pages too
            here=f"/p/{sku}",
            product=shown,
            recommendations="recommendations" not in off,
            images=self._images,
        )

    async def order(self, request: Request) -> Response:
        """How an order stands; its script asks the API, which knows whose it is."""
        order_id = request.path_params["id"]
        if not _ORDER.fullmatch(order_id):
            raise NotFound("This is no order's address. Please open it from your mail.")
        return self._private("order.html", here="/orders", order_id=order_id)

    async def orders(self, _: Request) -> Response:
        """The visitor's own orders."""
        return self._private("orders.html", here="/orders", shown=SHOWN)

    async def cart(self, _: Request) -> Response:
        """The cart."""
        return self._private("cart.html", here="/cart")

    async def lost(self, _: Request) -> Response:
        """No page at all."""
        raise NotFound("There is no page at this address. It may have been mistyped, or moved.")

    # ---- answers -----------------------------------------------------------------------------

    def guarded(self, page: Page) -> Page:
        """The page; when it can't be had, a page that says so, with the same status."""

        @functools.wraps(page)
        async def answer(request: Request) -> Response:
            try:
                return await page(request)
            except ShopError as error:
                return self.error(error)

        return answer

    def error(self, error: ShopError) -> Response:
        """A refusal, for people."""
        title = {404: "Nothing here", 503: "Back in a moment"}.get(error.status, error.title)
        html = self._template("error.html").render(here="", title=title, text=error.detail)
        headers = {"cache-control": "no-store", **SECURITY}
        if error.retry_after is not None:
            headers["retry-after"] = str(max(1, math.ceil(error.retry_after)))
        return HTMLResponse(html, error.status, headers=headers)

    def _public(self, request: Request, template: str, *, vary: str = "", **values: object) -> Response:
        """The same for everyone: kept by any cache for a moment, revalidated by its tag.

        But for the request field `vary`, by which it differs.
        """
        body = self._template(template).render(**values).encode()
        tag = f'"{hashlib.sha256(body).hexdigest()[:24]}"'
        headers = {"etag": tag, "cache-control": f"public, max-age={self._max_age}", **SECURITY}
        if vary:
            headers["vary"] = vary
        given = ",".join(request.headers.getlist("if-none-match"))
        if tag in {each.strip().removeprefix("W/") for each in given.split(",")}:
            return Response(status_code=304, headers=headers)
        return HTMLResponse(body, headers=headers)

    def _private(self, template: str, **values: object) -> Response:
        html = self._template(template).render(**values)
        return HTMLResponse(html, headers={"cache-control": "private, no-store", **SECURITY})
