"""What a payment does to its order: decided once, in one transaction, whatever order the news come in."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence
from typing import Literal

from shop_backend import history, settlement
from shop_backend.delivery import CardsMissing, lock_available, lock_held
from shop_backend.providers import Payment, Refunded
from shop_backend.settlement import Mismatch, Row
from shop_backend.stock.ledger import StockLedger
from shop_backend.storage.database import Connection, Database, is_outage, share_cards

__all__ = ["Mismatch", "Payments", "UnknownOrder", "open_refunds"]

_log = logging.getLogger(__name__)

Result = Literal["delivered", "refund", "declined", "duplicate"]
Source = Literal["callback", "poll"]


class UnknownOrder(Exception):  # noqa: N818 - no error: the order's row may be on its way
    """A payment for an order that SQL does not have."""


Settled = Result | UnknownOrder | None


class Payments:
    """Settles payments with their orders."""

    def __init__(self, database: Database, stock: StockLedger) -> None:
        self._database = database
        self._stock = stock

    async def settle_all(self, payments: Sequence[Payment], *, source: Source) -> list[Settled]:
        """Settle those that are as most are, in one transaction: of a pending order, paid as asked.

        The same news again, in this batch or from before, is a duplicate, as with `settle`.

        Returns:
            For each, what came of it; None: nothing, `settle` it by itself, in this order.

        Raises:
            Unavailable, psycopg.OperationalError: SQL or Redis is away; settle all of them again.
        """
        order_ids = [_order_id_or_none(payment) for payment in payments]
        ids = sorted({each for each in order_ids if each is not None})
        if not ids:
            return [None] * len(payments)
        try:
            async with self._database.primary() as connection:
                await share_cards(connection)
                orders = await settlement.lock_orders(connection, ids)
                before = await settlement.known(connection, payments)
                results, paid = settlement.triage(payments, order_ids, orders, before)
                if paid:
                    cards = await lock_held(connection, list(paid))
                    await settlement.fulfil(
                        connection, [(paid[each], orders[each], cards[each]) for each in paid], source
                    )
        except Exception as error:
            if is_outage(error):
                raise
            _log.warning("%d payments are settled one by one: %s", len(payments), type(error).__name__)
            return [None] * len(payments)
        history.count(["paid", "delivered"] * len(paid))
        # Duplicates too: whoever settled the first may have died before it could say so.
        done = {each for each, result in zip(order_ids, results, strict=True) if result is not None}
        sold = [
            (each, row["sku"])
            for each, row in orders.items()
            if each in paid or (each in done and row["state"] == "delivered")
        ]
        if sold:
            await self._stock.confirm(sold)
        return [
            result if order_id is None or order_id in orders else UnknownOrder(f"no order {order_id}")
            for order_id, result in zip(order_ids, results, strict=True)
        ]

    async def settle(self, payment: Payment, *, source: Source) -> Result:
        """Record a payment and do what follows from it; the same news again changes nothing.

        Success beats expired and failed, never the reverse. What comes too late, twice, or from the
        provider's own ledger with a wrong amount, is refunded.

        Raises:
            UnknownOrder: its row is not there (yet).
            Mismatch: a callback of another amount, currency or channel; the provider will be asked.
            CardsBusy: try again.
            Unavailable: SQL or Redis is away; try again.
        """
        order_id = settlement.order_id_of(payment)
        release: tuple[str, int] | None = None
        reached: list[str | None] = []
        async with self._database.primary() as connection:
            await share_cards(connection)
            order = (await settlement.lock_orders(connection, [order_id])).get(order_id)
            if order is None:
                raise UnknownOrder(f"no order {order_id}")
            result: Result
            if await self._is_known(connection, payment, order_id):
                result = "duplicate"
            elif payment.outcome == "failed":
                settlement.check(payment, order)
                await settlement.record(connection, [payment], "declined", source)
                result = "declined"
            elif not settlement.matches(payment, order):
                if source == "callback":
                    settlement.check(payment, order)
                await settlement.record(connection, [payment], "refund", source)
                await settlement.owe(connection, order, payment, "wrong amount or currency")
                result = "refund"
            elif order["state"] == "pending":
                cards = (await lock_held(connection, [order_id]))[order_id]
                await settlement.fulfil(connection, [(payment, order, cards)], source)
                reached = ["paid", "delivered"]
                result = "delivered"
            elif order["state"] == "expired":
                result, release, reached = await self._late(connection, payment, order, source)
            else:
                await settlement.record(connection, [payment], "refund", source)
                await settlement.owe(connection, order, payment, "the order was paid already")
                result = "refund"
            delivered = order["state"] == "delivered" or "delivered" in reached
        history.count(reached)
        # After the commit; when this fails the news are handled again, and come here again.
        if delivered:
            await self._stock.confirm([(order_id, order["sku"])])
        elif release is not None:
            await self._stock.release(order_id, release[0], release[1], state="expired")
        return result

    async def refunded(self, news: Refunded) -> bool:
        """What the provider says about a payment that goes back; whether that was new to us.

        Done beats under way. What is done may still fail: then the bank sent it back to the provider, and
        an operator has to see to it (`tidegate refunds`); the order's own history is not rewritten.
        """
        before = {
            "requested": ("pending",),
            "refunded": ("pending", "requested", "failed"),
            "failed": ("pending", "requested", "refunded"),
        }[news.state]
        async with self._database.primary() as connection:
            await share_cards(connection)
            cursor = await connection.execute(
                "UPDATE refunds SET state = %s, refunded_at = CASE WHEN %s = 'refunded' THEN now() END"
                " WHERE provider = %s AND payment_id = %s AND state = ANY(%s) RETURNING order_id::text",
                (news.state, news.state, news.provider, news.payment_id, list(before)),
            )
            row = await cursor.fetchone()
            if row is None:
                return False
            reached: list[str | None] = []
            if news.state == "refunded":
                cursor = await connection.execute(
                    "SELECT state FROM orders WHERE id = %s FOR UPDATE", (row["order_id"],)
                )
                order = await cursor.fetchone()
                # A second capture's refund leaves a delivered order as it is.
                if order and order["state"] == "refunding":
                    await history.step(connection, {row["order_id"]: "refunded"}, ("refunding", "refunded"))
                    reached = ["refunded"]
        history.count(reached)
        return True

    # ---- inside one transaction --------------------------------------------------------------

    async def _is_known(self, connection: Connection, payment: Payment, order_id: str) -> bool:
        owner = (await settlement.known(connection, [payment])).get(settlement.key_of(payment))
        if owner is not None and owner != order_id:
            raise Mismatch(f"payment {payment.payment_id} belongs to another order")
        return owner is not None

    async def _late(
        self, connection: Connection, payment: Payment, order: Row, source: str
    ) -> tuple[Result, tuple[str, int] | None, list[str | None]]:
        """Paid after it expired: other stock when there is some, else the money back."""
        order_id, sku = str(order["id"]), str(order["sku"])
        taken = await self._stock.retake(order_id, sku=sku, user=order["user_id"], quantity=order["quantity"])
        release: tuple[str, int] | None = None
        why = "the buyer has as many as one may" if taken == "cap" else "no stock left"
        if isinstance(taken, int):
            try:
                cards = await lock_available(connection, sku, order["quantity"])
            except CardsMissing:
                release = (sku, taken)
            else:
                await settlement.fulfil(connection, [(payment, order, cards)], source)
                return "delivered", None, ["paid", "delivered"]
        await settlement.record(connection, [payment], "refund", source)
        await settlement.owe(connection, order, payment, f"paid late: {why}")
        reason = f"paid late by {payment.payment_id}: {why}"
        await history.step(connection, {order_id: reason}, ("expired", "paid", "refunding"))
        return "refund", release, ["paid", "refunding"]


async def open_refunds(database: Database) -> dict[str, int]:
    """How many refunds are pending, requested and failed."""
    async with database.primary() as connection:
        cursor = await connection.execute(
            "SELECT state, count(*) AS n FROM refunds WHERE state <> 'refunded' GROUP BY state"
        )
        found = {row["state"]: int(row["n"]) for row in await cursor.fetchall()}
    return {state: found.get(state, 0) for state in ("pending", "requested", "failed")}


def _order_id_or_none(payment: Payment) -> str | None:
    with contextlib.suppress(Mismatch):
        return settlement.order_id_of(payment)
    return None
