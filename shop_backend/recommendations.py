"""What else buyers of a product like. Not core: the shop is whole without it."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shop_backend import deadline
from shop_backend.context import Context
from shop_backend.errors import NotFound
from shop_backend.storage.database import Database

Item = dict[str, Any]

SHOWN = 4  # products in one answer
FRESH_FOR = 15.0  # seconds an answer is kept
SAMPLE = 500  # buyers asked what else they bought; bounds the query for a product sold a million times

_SKU = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")

# Everything still on sale, best first: bought together counts most, then the brand, then the kind.
_QUERY = """
WITH this AS (
    SELECT sku, brand, kind FROM products WHERE sku = %(sku)s
), buyers AS (
    SELECT DISTINCT user_id FROM (
        SELECT user_id FROM orders WHERE sku = %(sku)s AND state = 'delivered' LIMIT %(sample)s
    ) AS sampled
), together AS (
    SELECT o.sku, count(DISTINCT o.user_id) AS times
    FROM buyers JOIN orders o USING (user_id)
    WHERE o.state = 'delivered' AND o.sku <> %(sku)s
    GROUP BY o.sku
)
SELECT p.sku, p.name, p.brand, p.kind, p.price_cents, p.list_price_cents, p.currency, p.image,
       coalesce(t.times, 0) AS bought_together
FROM this CROSS JOIN products p LEFT JOIN together t ON t.sku = p.sku
WHERE p.listed AND p.sku <> this.sku AND (p.sale_ends_at IS NULL OR p.sale_ends_at > now())
ORDER BY coalesce(t.times, 0) DESC, (p.brand = this.brand) DESC, (p.kind = this.kind) DESC,
         p.featured DESC, p.position
LIMIT %(shown)s
"""


def routes(context: Context) -> list[Route]:
    """`GET /api/products/{sku}/recommendations` → `{"items": […]}`."""
    recommendations = Recommendations(context.database)

    async def show(request: Request) -> Response:
        items = await recommendations.of(request.path_params["sku"])
        return JSONResponse({"items": items}, headers={"cache-control": "public, max-age=15"})

    return [Route("/api/products/{sku}/recommendations", show, methods=["GET"])]


class Recommendations:
    """Answers kept for a moment in this process; simultaneous questions about one product are one query.

    Args:
        database: where orders and products are.
        clock: monotonic seconds.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._kept: dict[str, tuple[float, list[Item]]] = {}  # only SKUs that exist, so bounded
        self._asking: dict[str, asyncio.Task[list[Item]]] = {}

    async def of(self, sku: str) -> list[Item]:
        """At most SHOWN products that go with this one, best first.

        Raises:
            NotFound: there is no such product.
            Unavailable: the database is too busy.
            TooLate: nobody waits for the answer any more.
        """
        if not _SKU.fullmatch(sku):
            raise NotFound("no such product")
        kept = self._kept.get(sku)
        if kept is not None and kept[0] > self._clock():
            return kept[1]
        asking = self._asking.get(sku)
        if asking is None:
            asking = asyncio.create_task(self._ask(sku))
            self._asking[sku] = asking
            asking.add_done_callback(lambda task: self._answered(sku, task))
        # Shielded: whoever asked first may leave, the others still want the answer.
        async with deadline.bounded("database"):
            return await asyncio.shield(asking)

    def _answered(self, sku: str, task: asyncio.Task[list[Item]]) -> None:
        del self._asking[sku]
        if not task.cancelled():
            task.exception()  # looked at, also when everyone who asked has left

    async def _ask(self, sku: str) -> list[Item]:
        deadline.lift()
        values = {"sku": sku, "sample": SAMPLE, "shown": SHOWN}
        async with self._database.read() as connection:
            items = await (await connection.execute(_QUERY, values)).fetchall()
            if not items:
                found = await connection.execute("SELECT 1 FROM products WHERE sku = %s", (sku,))
                if await found.fetchone() is None:
                    raise NotFound("no such product")
        self._kept[sku] = (self._clock() + FRESH_FOR, items)
        return items
