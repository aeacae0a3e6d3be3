"""What a buyer likes, by what was delivered. Not core: the shop is whole without it."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shop_backend.context import Context
from shop_backend.storage.database import Database

SHOWN = 6  # tags
RECENT = 200  # orders looked at; bounds the query for the keenest buyer

_QUERY = """
WITH mine AS (
    SELECT sku, quantity FROM orders
    WHERE user_id = %(user)s AND state = 'delivered' ORDER BY created_at DESC LIMIT %(recent)s
), counted AS (
    SELECT tag, sum(mine.quantity) AS times
    FROM mine JOIN products p USING (sku) CROSS JOIN LATERAL (VALUES (p.brand), (p.kind)) AS tags (tag)
    GROUP BY tag
)
SELECT (SELECT count(*) FROM mine) AS orders,
       (SELECT coalesce(sum(quantity), 0) FROM mine) AS cards,
       ARRAY(SELECT tag FROM counted ORDER BY times DESC, tag LIMIT %(shown)s) AS tags
"""


def routes(context: Context) -> list[Route]:
    """`GET /api/me/profile` → `{"tags": […], "orders": n, "cards": n}`; strangers get an empty one."""

    async def show(request: Request) -> Response:
        user = context.sessions.user(request)
        answer = await profile(context.database, user) if user else {"tags": [], "orders": 0, "cards": 0}
        return JSONResponse(answer, headers={"cache-control": "private, no-store"})

    return [Route("/api/me/profile", show, methods=["GET"])]


async def profile(database: Database, user: str) -> dict[str, Any]:
    """The brands and kinds this buyer has most of, most first, over the last RECENT delivered orders.

    Raises:
        Unavailable: the database is too busy.
    """
    async with database.read() as connection:
        cursor = await connection.execute(_QUERY, {"user": user, "recent": RECENT, "shown": SHOWN})
        row = await cursor.fetchone()
    if row is None:
        raise RuntimeError("an aggregate without a row")
    return {"tags": row["tags"], "orders": int(row["orders"]), "cards": int(row["cards"])}
