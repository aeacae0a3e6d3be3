"""What a payment does to its order: decided once, in one transaction, whatever order the news come in."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, Literal

from shop_backend import history
from shop_backend.delivery import CardsMissing, deliver, lock_available, lock_held
from shop_backend.notifications import announce_refund
from shop_backend.providers import Payment, Refunded
from shop_backend.stock.ledger import StockLedger
from shop_backend.storage.database import Connection, Database, share_cards

Result = Literal["delivered", "refund", "declined", "duplicate"]


class UnknownOrder(Exception):  # noqa: N818 - no error: the order's row may be on its way
    """A payment for an order that SQL does not have."""


class Mismatch(Exception):  # noqa: N818 - reads as what it says
    """A payment that is not what its order asked for: amount, currency or channel."""


class Payments:
    """Settles payments with their orders."""

    def __init__(self, database: Database, stock: StockLedger) -> None:
        self._database = database
        self._stock = stock

    async def settle(self, payment: Payment, *, source: Literal["callback", "poll"]) -> Result:
        """Record a payment and do what follows from it; the same news again changes nothing.

        Success beats expired and failed, never the reverse. What comes too late, twice, or from the
        provider's own ledger with a wrong amount, is refunded.

        Raises:
            UnknownOrder: its row is not there (yet).
            Mismatch: a callback of another amount, currency or channel; the provider will be asked.
            CardsBusy: try again.
            Unavailable: SQL or Redis is away; try again.
        """
        order_id = _uuid(payment.order_id)
        release: tuple[str, int] | None = None
        reached: list[str | None] = []
        async with self._database.primary() as connection:
            await share_cards(connection)
            cursor = await connection.execute("SELECT * FROM orders WHERE id = %s FOR UPDATE", (order_id,))
            order = await cursor.fetchone()
            if order is None:
                raise UnknownOrder(f"no order {order_id}")
            result: Result
            if await self._is_known(connection, payment, order_id):
                result = "duplicate"
            elif payment.outcome == "failed":
                self._check(payment, order)
                await _record(connection, payment, "declined", source)
                result = "declined"
            elif not _matches(payment, order):
                if source == "callback":
                    self._check(payment, order)
                await _record(connection, payment, "refund", source)
                await _owe(connection, order, payment, "wrong amount or currency")
                result = "refund"
            elif order["state"] == "pending":
                cards = await lock_held(connection, order_id)
                await self._deliver(connection, payment, order, cards, source)
                reached = ["paid", "delivered"]
                result = "delivered"
            elif order["state"] == "expired":
                result, release, reached = await self._late(connection, payment, order, source)
            else:
                await _record(connection, payment, "refund", source)
                await _owe(connection, order, payment, "the order was paid already")
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
                    await history.step(connection, row["order_id"], ("refunding", "refunded"), "refunded")
                    reached = ["refunded"]
        history.count(reached)
        return True

    # ---- inside one transaction --------------------------------------------------------------

    async def _is_known(self, connection: Connection, payment: Payment, order_id: str) -> bool:
        cursor = await connection.execute(
            "SELECT order_id::text FROM payments WHERE provider = %s AND payment_id = %s AND outcome = %s",
            (payment.provider, payment.payment_id, payment.outcome),
        )
        row = await cursor.fetchone()
        if row is not None and row["order_id"] != order_id:
            raise Mismatch(f"payment {payment.payment_id} belongs to another order")
        return row is not None

    @staticmethod
    def _check(payment: Payment, order: Mapping[str, Any]) -> None:
        if not _matches(payment, order):
            raise Mismatch(
                f"payment {payment.payment_id}: {payment.amount_cents} {payment.currency} by"
                f" {payment.channel}, but the order is {order['amount_cents']} {order['currency']} by"
                f" {order['provider']}"
            )

    async def _deliver(
        self,
        connection: Connection,
        payment: Payment,
        order: Mapping[str, Any],
        cards: list[int],
        source: str,
    ) -> None:
        order_id = str(order["id"])
        await _record(connection, payment, "delivered", source)
        await deliver(connection, order, cards)
        await history.step(
            connection, order_id, (order["state"], "paid", "delivered"), f"paid by {payment.payment_id}"
        )

    async def _late(
        self, connection: Connection, payment: Payment, order: Mapping[str, Any], source: str
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
                await self._deliver(connection, payment, order, cards, source)
                return "delivered", None, ["paid", "delivered"]
        await _record(connection, payment, "refund", source)
        await _owe(connection, order, payment, f"paid late: {why}")
        await history.step(
            connection,
            order_id,
            ("expired", "paid", "refunding"),
            f"paid late by {payment.payment_id}: {why}",
        )
        return "refund", release, ["paid", "refunding"]


async def open_refunds(database: Database) -> dict[str, int]:
    """How many refunds are pending, requested and failed."""
    async with database.primary() as connection:
        cursor = await connection.execute(
            "SELECT state, count(*) AS n FROM refunds WHERE state <> 'refunded' GROUP BY state"
        )
        found = {row["state"]: int(row["n"]) for row in await cursor.fetchall()}
    return {state: found.get(state, 0) for state in ("pending", "requested", "failed")}


def _matches(payment: Payment, order: Mapping[str, Any]) -> bool:
    return (payment.amount_cents, payment.currency, payment.channel) == (
        order["amount_cents"],
        order["currency"],
        order["provider"],
    )


async def _record(connection: Connection, payment: Payment, disposition: str, source: str) -> None:
    await connection.execute(
        "INSERT INTO payments (provider, payment_id, outcome, order_id, amount_cents, currency, disposition,"
        " source) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
        (
            payment.provider,
            payment.payment_id,
            payment.outcome,
            payment.order_id,
            payment.amount_cents,
            payment.currency,
            disposition,
            source,
        ),
    )


async def _owe(connection: Connection, order: Mapping[str, Any], payment: Payment, reason: str) -> None:
    await connection.execute(
        "INSERT INTO refunds (provider, payment_id, order_id, amount_cents, currency, state, reason)"
        " VALUES (%s, %s, %s, %s, %s, 'pending', %s)",
        (
            payment.provider,
            payment.payment_id,
            payment.order_id,
            payment.amount_cents,
            payment.currency,
            reason,
        ),
    )
    await announce_refund(connection, order, payment.payment_id)


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise Mismatch("the payment names no order id of ours") from None
