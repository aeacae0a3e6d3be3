"""The design that broke, to be measured beside ours: `python -m benchmarks.orders.synchronous_shop PORT`.

Stock is checked, computed and updated; the checkout is opened while the buyer waits; a callback is answered
when its card is delivered and its mail is sent. Each request is one transaction, as frameworks have it, on
one of 100 connections. Nobody should sell with this.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
import uuid
from collections import Counter
from collections.abc import AsyncIterator
from email.message import EmailMessage
from typing import Any

import aiosmtplib
import httpx
import psycopg
import uvicorn
from psycopg.rows import dict_row
from psycopg_pool import AsyncConnectionPool
from standardwebhooks.webhooks import Webhook, WebhookVerificationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from benchmarks.orders.goods import PRICE, SKU

CONNECTIONS = 100
SCHEMA = """
CREATE TABLE products (sku text PRIMARY KEY, stock integer NOT NULL, sold integer NOT NULL DEFAULT 0);
CREATE TABLE orders (id uuid PRIMARY KEY, user_id text NOT NULL, sku text NOT NULL, email text NOT NULL,
    state text NOT NULL DEFAULT 'pending', pay_url text);
CREATE TABLE cards (id serial PRIMARY KEY, sku text NOT NULL, secret text NOT NULL,
    state text NOT NULL DEFAULT 'available');
CREATE INDEX ON cards (sku, id) WHERE state = 'available';
CREATE TABLE deliveries (order_id uuid NOT NULL, card_id integer NOT NULL);
CREATE INDEX ON deliveries (order_id);
"""

Pool = AsyncConnectionPool[psycopg.AsyncConnection[dict[str, Any]]]


class Shop:
    """Its handlers, on what it is connected to."""

    def __init__(self, pool: Pool, http: httpx.AsyncClient) -> None:
        self._pool = pool
        self._http = http
        self._webhook = Webhook(os.environ["SANDBOX_SECRET"])
        self._callbacks: Counter[int] = Counter()  # received, by second of the monotonic clock

    async def order(self, request: Request) -> Response:
        """Check, compute, update."""
        user, body = request.cookies["session"], await request.json()
        async with self._pool.connection() as connection:
            found = await connection.execute("SELECT stock FROM products WHERE sku = %s", (body["sku"],))
            product = await found.fetchone()
            if product is None or product["stock"] < body["quantity"]:
                return JSONResponse({"title": "sold out"}, 410)
            order_id = str(uuid.uuid4())
            await connection.execute(
                "INSERT INTO orders (id, user_id, sku, email) VALUES (%s, %s, %s, %s)",
                (order_id, user, body["sku"], body["email"]),
            )
            ours = os.environ["SHOP_URL"]
            checkout = await self._http.post(
                "/checkouts",
                json={
                    "order_id": order_id,
                    "amount_cents": PRICE,
                    "currency": "EUR",
                    "callback_url": f"{ours}/callbacks/sandbox",
                    "return_url": f"{ours}/orders/{order_id}",
                },
            )
            await connection.execute(
                "UPDATE orders SET pay_url = %s WHERE id = %s", (checkout.json()["url"], order_id)
            )
            await connection.execute(
                "UPDATE products SET stock = %s WHERE sku = %s",
                (product["stock"] - body["quantity"], body["sku"]),
            )
        return JSONResponse({"order_id": order_id, "status": "pending"}, 202)

    async def show(self, request: Request) -> Response:
        """An order, with its key once delivered."""
        async with self._pool.connection() as connection:
            found = await connection.execute(
                "SELECT o.state, o.pay_url, array_remove(array_agg(c.secret), NULL) AS cards FROM orders o"
                " LEFT JOIN deliveries d ON d.order_id = o.id LEFT JOIN cards c ON c.id = d.card_id"
                " WHERE o.id = %s AND o.user_id = %s GROUP BY o.id",
                (request.path_params["id"], request.cookies["session"]),
            )
            row = await found.fetchone()
        if row is None:
            return Response(status_code=404)
        return JSONResponse({"status": row["state"], "pay_url": row["pay_url"], "cards": row["cards"]})

    async def callback(self, request: Request) -> Response:
        """Deliver and send the mail; then the provider gets its answer."""
        self._callbacks[int(time.monotonic())] += 1
        raw = await request.body()
        try:
            self._webhook.verify(raw, dict(request.headers), json_parse=False)
        except WebhookVerificationError:
            return Response(status_code=401)
        order_id = json.loads(raw)["data"]["order_id"]
        async with self._pool.connection() as connection:
            found = await connection.execute("SELECT * FROM orders WHERE id = %s", (order_id,))
            order = await found.fetchone()
            if order is None:
                return Response(status_code=404)
            if order["state"] == "delivered":
                return Response(status_code=200)
            found = await connection.execute(
                "SELECT id FROM cards WHERE sku = %s AND state = 'available' ORDER BY id LIMIT 1",
                (order["sku"],),
            )
            card = await found.fetchone()
            if card is None:
                return Response(status_code=500)  # paid, and nothing to give: a ghost order
            await connection.execute("UPDATE cards SET state = 'sold' WHERE id = %s", (card["id"],))
            await connection.execute("INSERT INTO deliveries VALUES (%s, %s)", (order_id, card["id"]))
            await connection.execute("UPDATE products SET sold = sold + 1 WHERE sku = %s", (order["sku"],))
            await connection.execute("UPDATE orders SET state = 'delivered' WHERE id = %s", (order_id,))
            await _mail(order)
        return Response(status_code=200)

    async def callbacks(self, _: Request) -> Response:
        """How many callbacks came, by second of the monotonic clock."""
        return JSONResponse(self._callbacks)


async def _mail(order: dict[str, Any]) -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "shop@shop.example", order["email"], "Your key"
    mail.set_content(f"Your order {order['id']} is delivered.")
    await aiosmtplib.send(mail, hostname="127.0.0.1", port=int(os.environ["SMTP_PORT"]))


async def _busy(_: Request, __: Exception) -> Response:
    return Response(status_code=503, headers={"retry-after": "1"})


def create_app() -> Starlette:
    """The shop, on what the environment names."""
    app = Starlette(exception_handlers={psycopg.OperationalError: _busy, httpx.HTTPError: _busy})

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with (
            AsyncConnectionPool(
                os.environ["DATABASE_URL"],
                connection_class=psycopg.AsyncConnection[dict[str, Any]],
                kwargs={"row_factory": dict_row},
                min_size=CONNECTIONS,
                max_size=CONNECTIONS,
                timeout=10.0,
                open=False,
            ) as pool,
            httpx.AsyncClient(base_url=os.environ["SANDBOX_URL"], trust_env=False) as http,
        ):
            shop = Shop(pool, http)
            app.router.routes += [
                Route("/api/orders", shop.order, methods=["POST"]),
                Route("/api/orders/{id}", shop.show),
                Route("/callbacks/sandbox", shop.callback, methods=["POST"]),
                Route("/callbacks", shop.callbacks),
            ]
            yield

    app.router.lifespan_context = lifespan
    return app


def fill(database_url: str, cards: int) -> None:
    """Make the tables, and put cards into them."""
    with psycopg.connect(database_url) as connection:
        connection.execute(SCHEMA)
        connection.execute("INSERT INTO products (sku, stock) VALUES (%s, %s)", (SKU, cards))
        connection.execute(
            "INSERT INTO cards (sku, secret) SELECT %s, 'FLASH-' || n FROM generate_series(1, %s) AS n",
            (SKU, cards),
        )


if __name__ == "__main__":
    uvicorn.run(
        create_app(),
        host="127.0.0.1",
        port=int(sys.argv[1]),
        loop="uvloop",
        http="httptools",
        access_log=False,
        log_level="warning",
    )
