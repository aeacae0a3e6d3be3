"""After the durable Redis lost its data: accepted orders that no worker had read come from their copies."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence

from redis.exceptions import RedisError

from shop_backend.stock import keys
from shop_backend.stock.second_copy import SecondCopy
from shop_backend.storage.database import Database
from shop_backend.workers.entries import Entry, Parked, brief, bury
from shop_backend.workers.orders import OrderHandler

_log = logging.getLogger(__name__)

_TRIES, _PAUSE = 5, 0.2  # seconds between two tries, while cards are locked


class Recovery:
    """Brings accepted orders into SQL, or among the dead letters when their cards are gone."""

    def __init__(self, database: Database, copies: SecondCopy, orders: OrderHandler) -> None:
        self._database = database
        self._copies = copies
        self._orders = orders

    async def recover(self, *, before_epoch: int) -> int:
        """Write what was accepted in earlier epochs and is nowhere; how many orders that were.

        Safe beside workers that write the same orders, and again.

        Raises:
            Unavailable, psycopg.OperationalError: the database is away; call again.
        """
        found = 0
        try:
            async for chunk in self._copies.chunks():
                found += await self._recover(chunk, before_epoch)
        except RedisError as error:
            # Without copies there is nothing to recover from; the stock must be loaded all the same.
            _log.error("second copies of orders can't be read: %s", type(error).__name__)
        async for chunk in self._copies.chunks_in_sql():
            found += await self._recover(chunk, before_epoch)
        if found:
            _log.warning("%d accepted orders recovered from their second copies", found)
        return found

    async def _recover(self, chunk: Sequence[dict[str, str]], before_epoch: int) -> int:
        intents = {each["order_id"]: each for each in chunk if _epoch(each) < before_epoch}
        return await self._write([intents[id_] for id_ in await self._nowhere(list(intents))])

    async def _nowhere(self, ids: list[str]) -> list[str]:
        async with self._database.primary() as connection:
            cursor = await connection.execute(
                "SELECT t.id::text FROM unnest(%s::uuid[]) AS t (id)"
                " WHERE NOT EXISTS (SELECT FROM orders o WHERE o.id = t.id)"
                # Its own letter only, and one that was not queued again: that queue may be what was lost.
                " AND NOT EXISTS (SELECT FROM dead_letters d WHERE d.order_id = t.id"
                "  AND d.stream <> %s AND d.replayed_at IS NULL)",
                (ids, keys.CALLBACKS),
            )
            return [row["id"] for row in await cursor.fetchall()]

    async def _write(self, intents: Sequence[dict[str, str]]) -> int:
        entries = [Entry(f"copy-{fields['order_id']}", fields) for fields in intents]
        failed = entries
        failures: Mapping[str, Exception] = {}
        for _ in range(_TRIES):
            if failed:
                failures = await self._orders.handle(failed)
                failed = [entry for entry in failed if entry.id in failures]
            if not any(isinstance(error, Parked) for error in failures.values()):
                break
            await asyncio.sleep(_PAUSE)  # others have the cards locked, and may give them back
        for entry in failed:
            why = brief(failures[entry.id])  # all that SQL says may quote the row, with its buyer's address
            _log.error("order %s can't be recovered: %s", entry.fields["order_id"], why)
            await bury(self._database, self._orders, entry, f"not recovered: {why}")
        return len(entries) - len(failed)


def _epoch(intent: Mapping[str, str]) -> int:
    return int(intent["epoch"].partition("/")[0])
