"""What the workers gave up: looked at, and queued again once the reason is gone."""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shop_backend.errors import Unavailable
from shop_backend.stock import keys
from shop_backend.stock.ledger import StockLedger
from shop_backend.storage.database import Connection, Database


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """An entry of a stream that was given up; `order_id` is None when it did not say."""

    id: int
    stream: str
    order_id: str | None
    error: str
    at: datetime
    replayed_at: datetime | None


class NotReplayed(Exception):  # noqa: N818 - no error: the letter stays as it is, and this says why
    """Queuing the entry again would lead to nothing."""


class DeadLetters:
    """The table `dead_letters`, and the way back into the streams."""

    def __init__(self, database: Database, redis: Redis, stock: StockLedger) -> None:
        self._database = database
        self._redis = redis
        self._stock = stock

    async def listed(self, *, replayed: bool = False) -> list[DeadLetter]:
        """Those that still count, oldest first; with `replayed` the others too."""
        async with self._database.primary() as connection:
            cursor = await connection.execute(
                "SELECT id, stream, order_id::text, error, at, replayed_at FROM dead_letters"
                " WHERE replayed_at IS NULL OR %s ORDER BY id",
                (replayed,),
            )
            return [DeadLetter(**row) for row in await cursor.fetchall()]

    async def replay(self, number: int) -> None:
        """Queue one letter's entry again: an order takes its stock anew, a callback is as if just received.

        The letter is marked in the transaction that queues it, under a lock for which the worker waits: the
        entry is queued and the letter marked, or the letter stays and the entry, if queued, is undone.

        Raises:
            NotReplayed: there is no such letter, or queuing it can't help; nothing has changed.
            Unavailable: SQL or Redis is away; try again.
        """
        async with self._database.primary() as connection:
            cursor = await connection.execute(
                "SELECT stream, order_id::text, fields FROM dead_letters"
                " WHERE id = %s AND replayed_at IS NULL FOR UPDATE",
                (number,),
            )
            letter = await cursor.fetchone()
            if letter is None:
                raise NotReplayed("there is no such letter, or it was replayed already")
            await connection.execute("UPDATE dead_letters SET replayed_at = now() WHERE id = %s", (number,))
            if keys.label(letter["stream"]) == "orders":
                await self._order(connection, letter["fields"])
            else:
                await self._callback(letter["fields"])

    async def _order(self, connection: Connection, fields: Mapping[str, str]) -> None:
        try:
            order_id, quantity = str(uuid.UUID(fields["order_id"])), int(fields["quantity"])
            sku, user = fields["sku"], fields["user"]
        except (KeyError, ValueError) as error:
            raise NotReplayed("its intent is not whole; there is nothing to write an order from") from error
        cursor = await connection.execute("SELECT 1 FROM orders WHERE id = %s", (order_id,))
        if await cursor.fetchone() is not None:
            raise NotReplayed(f"order {order_id} was written meanwhile")
        taken = await self._stock.retake(order_id, sku=sku, user=user, quantity=quantity, requeue=fields)
        if taken == "sold":
            raise NotReplayed(f"no stock of {sku} is left for {quantity}")
        if taken == "cap":
            raise NotReplayed("its buyer has as many as one may")

    async def _callback(self, fields: Mapping[str, str]) -> None:
        if "body" not in fields:
            raise NotReplayed("its body was not kept; the provider is asked about unpaid orders anyway")
        news: dict[Any, Any] = {**fields, "received_ms": int(time.time() * 1000)}
        try:
            await cast("Awaitable[Any]", self._redis.xadd(keys.CALLBACKS, news))
        except RedisError as error:
            raise Unavailable("callbacks can't be queued just now; try again", retry_after=1) from error
