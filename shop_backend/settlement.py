"""The steps of settling payments, each inside the caller's transaction, for one payment or for many."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from shop_backend import history
from shop_backend.delivery import deliver
from shop_backend.notifications import Sale, announce_refund
from shop_backend.providers import Payment
from shop_backend.storage.database import Connection

Row = Mapping[str, Any]
Key = tuple[str, str, str]  # provider, payment id, outcome


class Mismatch(Exception):  # noqa: N818 - reads as what it says
    """A payment that is not what its order asked for: amount, currency or channel."""


def order_id_of(payment: Payment) -> str:
    """The order a payment is for.

    Raises:
        Mismatch: it names none of ours.
    """
    try:
        return str(uuid.UUID(payment.order_id))
    except ValueError:
        raise Mismatch("the payment names no order id of ours") from None


def key_of(payment: Payment) -> Key:
    """What makes news the same news; an early "failed" must not hide the real success."""
    return payment.provider, payment.payment_id, payment.outcome


def matches(payment: Payment, order: Row) -> bool:
    """Whether a payment is what its order asked for."""
    return (payment.amount_cents, payment.currency, payment.channel) == (
        order["amount_cents"],
        order["currency"],
        order["provider"],
    )


def check(payment: Payment, order: Row) -> None:
    """See that a payment is what its order asked for.

    Raises:
        Mismatch: it is not.
    """
    if not matches(payment, order):
        raise Mismatch(
            f"payment {payment.payment_id}: {payment.amount_cents} {payment.currency} by"
            f" {payment.channel}, but the order is {order['amount_cents']} {order['currency']} by"
            f" {order['provider']}"
        )


def triage(
    payments: Sequence[Payment],
    order_ids: Sequence[str | None],
    orders: Mapping[str, Row],
    before: Mapping[Key, str],
) -> tuple[list[Literal["delivered", "duplicate"] | None], dict[str, Payment]]:
    """Which payments of a batch need no thought: the first of a pending order, paid as asked, and repeats.

    Once an order has news that do, all its later news wait for them.

    Args:
        payments: in the order they came.
        order_ids: of each payment; None: it names none.
        orders: rows by id, locked.
        before: see `known`.

    Returns:
        For each payment what is to come of it, None when that is to be decided by itself; and what pays
        for the orders to deliver, by order id.
    """
    results: list[Literal["delivered", "duplicate"] | None] = []
    paid: dict[str, Payment] = {}
    apart: set[str] = set()
    for payment, order_id in zip(payments, order_ids, strict=True):
        order, owner = orders.get(order_id or ""), before.get(key_of(payment))
        first = paid.get(order_id or "")
        result: Literal["delivered", "duplicate"] | None = None
        if order_id is not None and order is not None and order_id not in apart:
            if owner == order_id or (first is not None and key_of(first) == key_of(payment)):
                result = "duplicate"
            elif owner is None and first is None and _is_plain(payment, order):
                paid[order_id] = payment
                result = "delivered"
            else:
                apart.add(order_id)
        results.append(result)
    return results, paid


def _is_plain(payment: Payment, order: Row) -> bool:
    return payment.outcome == "succeeded" and order["state"] == "pending" and matches(payment, order)


async def lock_orders(connection: Connection, order_ids: Sequence[str]) -> dict[str, Row]:
    """The rows of orders, locked; always in the same order, so that two batches never wait for each other."""
    cursor = await connection.execute(
        "SELECT * FROM orders WHERE id = ANY(%s::uuid[]) ORDER BY id FOR UPDATE", (list(order_ids),)
    )
    return {str(row["id"]): row for row in await cursor.fetchall()}


async def known(connection: Connection, payments: Sequence[Payment]) -> dict[Key, str]:
    """Which payments are recorded, and for which order."""
    columns = [list(column) for column in zip(*{key_of(payment) for payment in payments}, strict=True)]
    cursor = await connection.execute(
        "SELECT p.provider, p.payment_id, p.outcome, p.order_id::text"
        " FROM unnest(%s::text[], %s::text[], %s::text[]) AS t (provider, payment_id, outcome)"
        " JOIN payments p USING (provider, payment_id, outcome)",
        columns,
    )
    return {
        (row["provider"], row["payment_id"], row["outcome"]): row["order_id"]
        for row in await cursor.fetchall()
    }


async def record(connection: Connection, payments: Sequence[Payment], disposition: str, source: str) -> None:
    """Write payments down."""
    rows = [(*key_of(p), p.order_id, p.amount_cents, p.currency) for p in payments]
    await connection.execute(
        "INSERT INTO payments (provider, payment_id, outcome, order_id, amount_cents, currency, disposition,"
        " source) SELECT t.*, %s, %s FROM unnest(%s::text[], %s::text[], %s::text[], %s::uuid[],"
        " %s::bigint[], %s::text[]) AS t",
        (disposition, source, *(list(column) for column in zip(*rows, strict=True))),
    )


async def fulfil(connection: Connection, paid: Sequence[tuple[Payment, Row, list[int]]], source: str) -> None:
    """Record payments that fund their orders, and deliver the cards that the caller locked for each.

    All the orders are in the same state, from which they become paid and delivered.
    """
    await record(connection, [payment for payment, _, _ in paid], "delivered", source)
    await deliver(connection, [Sale(order, cards) for _, order, cards in paid])
    reasons = {str(order["id"]): f"paid by {payment.payment_id}" for payment, order, _ in paid}
    await history.step(connection, reasons, (paid[0][1]["state"], "paid", "delivered"))


async def owe(connection: Connection, order: Row, payment: Payment, reason: str) -> None:
    """Write down that a payment goes back, and tell its buyer."""
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
