"""The sandbox payment provider as an ASGI app: a merchant's API, a checkout page, and callbacks.

    POST /checkouts                      {order_id, amount_cents, currency, callback_url, return_url,
                                         description}: 201, or 200 when the order has one: {id, url, state, …}
    GET  /checkouts/{id}                 the page the buyer pays on; JSON when Accept prefers it
    GET  /checkouts/by-order/{order_id}  the same as JSON
    POST /checkouts/{id}/pay             {"outcome": "success" | "fail", "delay"?, "duplicates"?, "storm"?}
    GET  /payments?since=0&limit=1000    {payments: [{seq, id, …}], next}; `next` is the following `since`
    POST /refunds                        {payment_id, amount_cents}; the whole amount, once for each payment
    GET  /livez /readyz

Who may: a buyer knows the checkout's id, which is 122 random bits, so page, state and `pay` ask for nothing
more. The merchant's calls (`POST /checkouts`, by-order, `/payments`, `/refunds`) want `Authorization: Bearer
SECRET`, the secret callbacks are signed with; from the loopback address they work without, since the sandbox
is bound to it by default and is rehearsed against with curl. A wrong secret is refused from everywhere,
and so is what a browser sends for another site's page. Checkouts lead to the shop only.

Callbacks follow Standard Webhooks: {"type": "payment.succeeded" | "payment.failed" | "refund.succeeded",
"data": {payment_id, checkout_id, order_id, amount_cents, currency, channel: "sandbox"}}.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import random
import sqlite3
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from shop_backend.config import Settings
from shop_backend.errors import (
    ShopError,
    Unauthenticated,
    Unavailable,
    Unprocessable,
    on_crash,
    on_http_exception,
    on_shop_error,
    problem,
)
from shop_backend.money import money
from shop_backend.origin import SameOrigin
from shop_backend.pages.assets import Assets
from shop_backend.requests import parse, read
from shop_backend.sandbox.books import Row
from shop_backend.sandbox.callbacks import Sender
from shop_backend.sandbox.debts import Clock
from shop_backend.sandbox.ledger import Ledger, Order, Unknown
from shop_backend.sandbox.requests import MAX_BODY, CheckoutBody, RefundBody, is_under, parse_pay

log = logging.getLogger(__name__)

STORM = 3.0  # seconds over which a storm is spread
PAGE = 1000  # payments in one answer
SHOWN = 100  # the newest payments of a checkout; a capture is always the last
STATIC = Path(__file__).resolve().parent.parent / "pages" / "static"


def create_app(
    settings: Settings,
    *,
    clock: Clock = time.time,
) -> Starlette:
    """The provider, ready to be served.

    Args:
        settings: the shop's settings.
        clock: Unix time, seconds.

    Raises:
        SetupError: the signing secret is missing or malformed.
    """
    ledger = Ledger(Path(settings.data_dir) / "sandbox.sqlite3", clock=clock)
    sender = Sender(ledger.debts, settings.require("sandbox_secret"))
    provider = Provider(settings, ledger, sender)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        await ledger.open()
        sending = asyncio.create_task(sender.run(), name="sandbox-callbacks")
        try:
            yield
        finally:
            sending.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await sending
            await ledger.close()

    app = Starlette(
        routes=[
            Route("/checkouts", provider.create, methods=["POST"]),
            Route("/checkouts/by-order/{order_id}", provider.by_order, methods=["GET"]),
            Route("/checkouts/{id}", provider.show, methods=["GET"]),
            Route("/checkouts/{id}/pay", provider.pay, methods=["POST"]),
            Route("/payments", provider.payments, methods=["GET"]),
            Route("/refunds", provider.refund, methods=["POST"]),
            Route("/static/{file}", provider.assets.serve, methods=["GET"]),
            Route("/livez", provider.livez, methods=["GET"]),
            Route("/readyz", provider.readyz, methods=["GET"]),
        ],
        lifespan=lifespan,
        middleware=[Middleware(SameOrigin, public_url=settings.sandbox_url)],
        exception_handlers={
            ShopError: on_shop_error,
            HTTPException: on_http_exception,
            sqlite3.Error: _broken,
            Exception: on_crash,
        },
    )
    app.state.ledger = ledger
    return app


class Provider:
    """The answers. One instance serves every request."""

    def __init__(self, settings: Settings, ledger: Ledger, sender: Sender) -> None:
        self._settings = settings
        self._ledger = ledger
        self._sender = sender
        self.assets = Assets([STATIC / "style.css", STATIC / "icon.svg"])
        self._page = Environment(
            loader=PackageLoader("shop_backend.sandbox"), autoescape=True, undefined=StrictUndefined
        ).get_template("checkout.html")

    # ---- the merchant ------------------------------------------------------------------------

    async def create(self, request: Request) -> Response:
        """Open a checkout for an order."""
        self._merchant(request)
        body = parse(CheckoutBody, await read(request, MAX_BODY))
        shop, pages = self._settings.shop_url, self._settings.public_url
        callbacks = f"{shop.rstrip('/')}/callbacks"
        if not is_under(body.callback_url, callbacks) or is_under(callbacks, body.callback_url):
            raise Unprocessable(f"callback_url: must lie under {callbacks}/ (TIDEGATE_SHOP_URL)")
        if not (is_under(body.return_url, pages) or is_under(body.return_url, shop)):
            raise Unprocessable(f"return_url: must lie under {pages} (TIDEGATE_PUBLIC_URL)")
        checkout, new = await self._ledger.create_checkout(Order(**body.model_dump()))
        public = self._public(checkout)
        return _json(public, 201 if new else 200, location=public["url"])

    async def by_order(self, request: Request) -> Response:
        """What became of an order."""
        self._merchant(request)
        return _json(self._public(await self._ledger.checkout_of(request.path_params["order_id"])))

    async def payments(self, request: Request) -> Response:
        """The ledger, page by page."""
        self._merchant(request)
        since = _number(request, "since", default=0, low=0, high=2**62)
        limit = _number(request, "limit", default=PAGE, low=1, high=PAGE)
        found = await self._ledger.payments(since, limit)
        return _json({"payments": found, "next": found[-1]["seq"] if found else since})

    async def refund(self, request: Request) -> Response:
        """Give the money of one payment back."""
        self._merchant(request)
        body = parse(RefundBody, await read(request, MAX_BODY))
        refund, new = await self._ledger.refund(body.payment_id, body.amount_cents)
        self._sender.wake()
        return _json(refund, 201 if new else 200)

    def _merchant(self, request: Request) -> None:
        given = request.headers.get("authorization")
        if given is None:
            if _loopback(request):
                return
            raise Unauthenticated("send Authorization: Bearer with the sandbox secret")
        scheme, _, token = given.partition(" ")
        wanted = self._settings.require("sandbox_secret").encode()
        if scheme.lower() != "bearer" or not hmac.compare_digest(token.strip().encode(), wanted):
            raise Unauthenticated("this is not the sandbox secret")

    # ---- the buyer ---------------------------------------------------------------------------

    async def show(self, request: Request) -> Response:
        """The checkout page, or its state as JSON."""
        if _wants_json(request):
            return _json(self._public(await self._ledger.checkout(request.path_params["id"])))
        try:
            return self._html(await self._ledger.checkout(request.path_params["id"]))
        except Unknown:
            return self._html(None)

    async def pay(self, request: Request) -> Response:
        """Capture or decline; a form is led back to the shop, everyone else gets the payment."""
        raw = await read(request, MAX_BODY)
        body, is_form = parse_pay(raw, request.headers.get("content-type", ""))
        checkout_id = request.path_params["id"]
        payment = await self._ledger.pay(
            checkout_id,
            success=body.outcome == "success",
            delays=[body.delay] * (1 + body.duplicates),
            storm=[body.delay + random.uniform(0, STORM) for _ in range(body.storm)],  # noqa: S311 - arrival times
        )
        self._sender.wake()
        if is_form:
            checkout = await self._ledger.checkout(checkout_id)
            there = checkout["return_url"] if body.outcome == "success" else f"/checkouts/{checkout_id}"
            return RedirectResponse(there, 303, headers={"cache-control": "no-store"})
        return _json(payment)

    # ---- health ------------------------------------------------------------------------------

    async def livez(self, _: Request) -> Response:
        """200 while the process answers."""
        return PlainTextResponse("ok\n")

    async def readyz(self, _: Request) -> Response:
        """200 while the ledger can be read."""
        return PlainTextResponse(f"ok, {await self._ledger.debts.owed()} callbacks owed\n")

    # ---- looks -------------------------------------------------------------------------------

    def _public(self, checkout: Row) -> dict[str, Any]:
        url = f"{self._settings.sandbox_url.rstrip('/')}/checkouts/{checkout['id']}"
        shown = {key: value for key, value in checkout.items() if key != "callback_url"}
        return {"url": url, **shown, "payments": checkout["payments"][-SHOWN:]}

    def _html(self, checkout: Row | None) -> HTMLResponse:
        amount, home = "", ""
        if checkout is not None:
            amount = money(checkout["amount_cents"], checkout["currency"])
            parts = urlsplit(checkout["return_url"])
            # Browsers hold form-action against the redirect that follows, too.
            home = f" {parts.scheme}://{parts.netloc}" if _plain(parts.netloc) else ""
        page = self._page.render(checkout=checkout, amount=amount, assets=self.assets)
        return HTMLResponse(
            page,
            200 if checkout else 404,
            headers={
                "cache-control": "no-store",
                "content-security-policy": "default-src 'none'; style-src 'self'; img-src 'self'; "
                f"base-uri 'none'; frame-ancestors 'none'; form-action 'self'{home}",
                # With no-referrer, browsers send the page's own form as of Origin null.
                "referrer-policy": "same-origin",
                "x-content-type-options": "nosniff",
            },
        )


# ---- reading requests, writing answers -------------------------------------------------------


def _number(request: Request, name: str, *, default: int, low: int, high: int) -> int:
    text = request.query_params.get(name)
    if text is None or text == "":
        return default
    if not (text.isascii() and text.isdigit() and len(text) < 20 and low <= int(text) <= high):
        raise Unprocessable(f"{name}: must be a whole number from {low} to {high}")
    return int(text)


def _wants_json(request: Request) -> bool:
    accept = request.headers.get("accept", "*/*").lower()
    return "application/json" in accept and "text/html" not in accept


def _loopback(request: Request) -> bool:
    if request.client is None:
        return False
    try:
        return ipaddress.ip_address(request.client.host).is_loopback
    except ValueError:
        return False


def _plain(netloc: str) -> bool:
    """Whether it may stand in a Content-Security-Policy as it is."""
    return all(c.isascii() and (c.isalnum() or c in ".-:[]") for c in netloc)


def _json(value: object, status: int = 200, *, location: str | None = None) -> JSONResponse:
    headers = {"cache-control": "no-store"}
    if location is not None:
        headers["location"] = location
    return JSONResponse(value, status, headers=headers)


async def _broken(_: Request, error: Exception) -> Response:
    log.error("the sandbox ledger failed: %s", error)
    return problem(Unavailable("the sandbox ledger can't be used just now", retry_after=1))
