"""Accepted orders, kept a second time on another server until SQL surely has them.

The durable Redis survives kill -9 by itself. It does not survive its disk: an order that was answered 202 and
that no worker has read yet would be gone. So its intent also goes to the volatile Redis, before the answer;
both have to be lost within the same moment for an order to be lost. What the volatile Redis forgets, a worker
copies again from the streams, so that this moment stays short also while workers can't write; what it can't
take goes to SQL.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Literal

import psycopg
from psycopg.types.json import Jsonb
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shop_backend.batcher import Batcher
from shop_backend.errors import Unavailable
from shop_backend.stock.records import Hold, Intent
from shop_backend.storage.database import Database

_log = logging.getLogger(__name__)

NAME = "orders:second-copy"
_KEPT = 100_000  # intents; workers are far behind when so many are not in SQL yet
LIFE = 3600  # seconds
_CHUNK = 500
_EVERY = 0.01  # seconds, at least, from one round trip to the next
_PATIENCE = 1.0  # seconds for SQL; a buyer is waiting


async def write(volatile: Redis, copies: Iterable[Mapping[Any, Any]]) -> None:
    """Add copies in one round trip.

    Raises:
        RedisError: some or all are not written.
    """
    async with volatile.pipeline(transaction=False) as pipe:
        for fields in copies:
            pipe.xadd(NAME, dict(fields), maxlen=_KEPT, approximate=True)
        pipe.expire(NAME, LIFE)
        await pipe.execute()


class SecondCopy:
    """The intents of the last hour, oldest first, as the order stream has them.

    Args:
        redis: the volatile one.
        database: takes what that can't.
        patience: seconds for the database to do so.
    """

    def __init__(self, redis: Redis, database: Database, *, patience: float = _PATIENCE) -> None:
        self._redis = redis
        self._database = database
        self._patience = patience
        self._writing: Batcher[Mapping[Any, Any], Literal["kept"]] = Batcher(self._write, every=_EVERY)

    async def keep(self, intent: Intent, hold: Hold, mark: str) -> Literal["kept", "sql", "failed"]:
        """Write an intent that was accepted under the epoch `mark` down again; where that worked.

        An order is not refused for want of a second copy: the first one is durable.
        """
        fields: dict[Any, Any] = {
            # As reserve.lua writes them.
            "order_id": hold.order_id,
            "user": intent.user,
            "sku": intent.sku,
            "quantity": intent.quantity,
            "email": intent.email,
            "unit_cents": intent.unit_cents,
            "currency": intent.currency,
            "expires_ms": hold.expires_ms,
            "at_ms": hold.round // 1000,
            "round": hold.round,
            "epoch": mark,
            "trace": intent.trace,
            "language": intent.language,
            "phone": intent.phone,
            "body": intent.body,
        }
        try:
            return await self._writing.ask(fields)
        except RedisError as error:
            return await self._keep_in_sql(hold.order_id, fields, type(error).__name__)

    async def _keep_in_sql(self, order_id: str, fields: dict[Any, Any], why: str) -> Literal["sql", "failed"]:
        try:
            async with asyncio.timeout(self._patience), self._database.latest() as connection:
                await connection.execute(
                    "INSERT INTO order_copies (order_id, fields) VALUES (%s, %s)"
                    " ON CONFLICT (order_id) DO UPDATE SET fields = excluded.fields, at = now()",
                    (order_id, Jsonb({name: str(value) for name, value in fields.items()})),
                )
        except (TimeoutError, Unavailable, psycopg.Error) as error:
            _log.warning("order %s has no second copy: %s, %s", order_id, why, type(error).__name__)
            return "failed"
        return "sql"

    async def forget(self) -> None:
        """Drop copies in SQL that are older than an hour.

        Raises:
            Unavailable, psycopg.OperationalError: the database is away; call again.
        """
        async with self._database.primary() as connection:
            await connection.execute(
                "DELETE FROM order_copies WHERE at < now() - make_interval(secs => %s)", (LIFE,)
            )

    async def _write(self, copies: Sequence[Mapping[Any, Any]]) -> Sequence[Literal["kept"]]:
        await write(self._redis, copies)
        return ["kept"] * len(copies)

    async def chunks_in_sql(self) -> AsyncIterator[list[dict[str, str]]]:
        """Every intent that the volatile Redis could not take, some at a time.

        Raises:
            Unavailable, psycopg.OperationalError: the database is away; call again.
        """
        after = str(uuid.UUID(int=0))
        while True:
            async with self._database.primary() as connection:
                cursor = await connection.execute(
                    "SELECT order_id::text, fields FROM order_copies WHERE order_id > %s"
                    " ORDER BY order_id LIMIT %s",
                    (after, _CHUNK),
                )
                rows = await cursor.fetchall()
            if not rows:
                return
            yield [row["fields"] for row in rows]
            after = rows[-1]["order_id"]

    async def chunks(self) -> AsyncIterator[list[dict[str, str]]]:
        """Every intent on the volatile Redis, some at a time.

        Raises:
            RedisError: the volatile Redis gives no answer.
        """
        after = "-"
        while True:
            found: Any = await self._redis.xrange(NAME, min=after, count=_CHUNK)
            if not found:
                return
            yield [fields for _, fields in found]
            after = f"({found[-1][0]}"
