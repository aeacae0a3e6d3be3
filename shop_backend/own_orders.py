"""A buyer's own orders, the newest of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from shop_backend import deadline
from shop_backend.catalog import Catalog
from shop_backend.errors import Unavailable
from shop_backend.moments import iso
from shop_backend.storage.database import Database

if TYPE_CHECKING:
    from shop_backend.context import Context  # wiring; nothing here needs it at run time

SHOWN = 20


async def answer(context: Context, request: Request) -> Response:
    """`GET /api/orders` → `{"orders": […]}`; who has no session has none."""
    user = context.sessions.user(request)
    orders = await newest(context.database, context.catalog, user) if user else []
    return JSONResponse({"orders": orders}, headers={"cache-control": "no-store"})


async def newest(database: Database, catalog: Catalog, user: str) -> list[dict[str, Any]]:
    """Some orders of a user, the newest first; one that no worker has written yet comes a moment later.

    Raises:
        Unavailable: SQL is away.
        TooLate: nobody waits for the answer any more.
    """
    try:
        # The primary: a buyer reads own writes, however far a replica is behind.
        async with deadline.bounded("database"), database.latest() as connection:
            cursor = await connection.execute(
                "SELECT id::text AS order_id, state AS status, sku, quantity, amount_cents, currency,"
                " created_at, expires_at FROM orders WHERE user_id = %s ORDER BY created_at DESC LIMIT %s",
                (user, SHOWN),
            )
            rows = await cursor.fetchall()
    except psycopg.Error as error:
        raise Unavailable("orders can't be read just now; try again", retry_after=1) from error
    return [
        row
        | {
            "name": await catalog.name(row["sku"]),
            "created_at": iso(row["created_at"]),
            "expires_at": iso(row["expires_at"]),
        }
        for row in rows
    ]
