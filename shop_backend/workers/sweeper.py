"""Expiry: SQL lets go of the cards first, then Redis gives the stock back."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from shop_backend import history
from shop_backend.stock import keys
from shop_backend.stock.ledger import StockLedger
from shop_backend.stock.records import Due
from shop_backend.storage.database import Connection, Database, share_cards

_log = logging.getLogger(__name__)

_LEASE = 10.0  # seconds in which no other sweeper touches the same holds
_ASK_AFTER = 2.0  # seconds after expiry: was it paid, and did the callback get lost?


class Sweeper:
    """Ends holds whose time is over."""

    def __init__(self, database: Database, stock: StockLedger, *, batch: int) -> None:
        self._database = database
        self._stock = stock
        self._batch = batch

    async def sweep(self) -> int:
        """End one batch of due holds, by Redis's clock.

        A hold whose order SQL does not know yet is left alone: its intent is still in the stream, and
        the cards SQL will hold for it must not be sold to someone else.

        Returns:
            How many holds were given back or confirmed.
        """
        due = await self._stock.due(self._batch, lease=_LEASE)
        if not due:
            return 0
        states, expired, dead = await self._expire(due)
        history.count(["expired"] * expired)
        done = 0
        for hold in due:
            state = states.get(hold.order_id)
            if state in ("expired", "refunding", "refunded"):
                await self._stock.release(hold.order_id, hold.sku, hold.round, state="expired")
            elif state in ("paid", "delivered"):
                # The worker that delivered died before it could say so.
                await self._stock.confirm([(hold.order_id, hold.sku)])
            elif state is None and hold.order_id in dead:
                await self._stock.release(hold.order_id, hold.sku, hold.round, state="released")
            else:
                continue
            done += 1
        return done

    async def _expire(self, due: Sequence[Due]) -> tuple[dict[str, str], int, set[str]]:
        ids = [hold.order_id for hold in due]
        async with self._database.primary() as connection:
            await share_cards(connection)
            cursor = await connection.execute(
                # A row that is locked is being paid or written this moment: it is looked at again.
                "SELECT id::text, state FROM orders WHERE id = ANY(%s::uuid[]) FOR UPDATE SKIP LOCKED",
                (ids,),
            )
            states = {row["id"]: row["state"] for row in await cursor.fetchall()}
            pending = [order_id for order_id, state in states.items() if state == "pending"]
            if pending:
                await _let_go(connection, pending)
                states |= dict.fromkeys(pending, "expired")
            cursor = await connection.execute(
                "SELECT d.order_id::text FROM dead_letters d WHERE d.order_id = ANY(%s::uuid[])"
                " AND d.stream <> %s AND d.replayed_at IS NULL"
                " AND NOT EXISTS (SELECT FROM orders o WHERE o.id = d.order_id)",
                (ids, keys.CALLBACKS),
            )
            dead = {row["order_id"] for row in await cursor.fetchall()}
        return states, len(pending), dead


async def _let_go(connection: Connection, orders: list[str]) -> None:
    await connection.execute(
        "UPDATE orders SET state = 'expired', closed_at = clock_timestamp(), polls = 0,"
        " next_poll_at = now() + make_interval(secs => %s) WHERE id = ANY(%s::uuid[])",
        (_ASK_AFTER, orders),
    )
    await connection.execute(
        "UPDATE cards SET state = 'available', order_id = NULL"
        " WHERE order_id = ANY(%s::uuid[]) AND state = 'held'",
        (orders,),
    )
    await connection.execute(
        "INSERT INTO order_events (order_id, from_state, to_state, reason)"
        " SELECT unnest(%s::uuid[]), 'pending', 'expired', 'not paid in time'",
        (orders,),
    )
