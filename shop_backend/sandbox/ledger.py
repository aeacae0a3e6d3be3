"""What the provider knows: checkouts, payments and refunds."""

from __future__ import annotations

import sqlite3
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from shop_backend.errors import NotFound, ShopError
from shop_backend.sandbox.books import Books, Row, rows
from shop_backend.sandbox.debts import Clock, Debts

PAYMENTS = """
SELECT p.seq, p.id, p.checkout_id, c.order_id, c.amount_cents, c.currency, p.outcome, p.created_at,
       r.id AS refund_id, coalesce(r.amount_cents, 0) AS refunded_cents
FROM payments p JOIN checkouts c ON c.id = p.checkout_id LEFT JOIN refunds r ON r.payment_id = p.id
"""


class Unknown(NotFound):
    """No such checkout or payment; nothing was written."""


class Conflict(ShopError):  # noqa: N818 - an answer, like the others in errors.py
    """It contradicts what is already written; nothing was."""

    status, type, title = 409, "urn:tidegate:conflict", "Conflict"


@dataclass(frozen=True)
class Order:
    """What a merchant asks money for. Amounts are cents."""

    order_id: str
    amount_cents: int
    currency: str
    callback_url: str
    return_url: str
    description: str


class Ledger:
    """Checkouts and money. Every method is one transaction.

    Attributes:
        debts: the callbacks that merchants did not take yet.
    """

    def __init__(self, path: Path, *, clock: Clock = time.time) -> None:
        self._books = Books(path)
        self._clock = clock
        self.debts = Debts(self._books, clock=clock)

    async def open(self) -> None:
        """Open the books; raises as `Books.open` does."""
        await self._books.open()

    async def close(self) -> None:
        """Finish what was asked, then close the books."""
        await self._books.close()

    # ---- checkouts ---------------------------------------------------------------------------

    async def create_checkout(self, order: Order) -> tuple[Row, bool]:
        """Open a checkout; the same order again gives the same one.

        Returns:
            The checkout, and whether it is new.

        Raises:
            Conflict: the order has a checkout for another amount or currency.
        """
        return await self._books.run(lambda db: self._create(db, order))

    async def checkout(self, checkout_id: str) -> Row:
        """A checkout with its payments and `state`: open, failed, paid or refunded.

        Raises:
            Unknown: there is none.
        """
        return await self._books.run(lambda db: _checkout(db, "id", checkout_id))

    async def checkout_of(self, order_id: str) -> Row:
        """The same by the merchant's order id.

        Raises:
            Unknown: there is none.
        """
        return await self._books.run(lambda db: _checkout(db, "order_id", order_id))

    # ---- money -------------------------------------------------------------------------------

    async def pay(
        self, checkout_id: str, *, success: bool, delays: Sequence[float], storm: Sequence[float] = ()
    ) -> Row:
        """Capture or decline, and owe the merchant a callback for each of `delays`.

        A checkout is captured once: paying again gives the first payment, and its callbacks again.

        Args:
            checkout_id: what is paid.
            success: captured, or declined.
            delays: seconds from now, one for each copy of this payment's callback.
            storm: seconds from now, one for each round in which all callbacks of this checkout are
                sent again, earlier outcomes too.

        Returns:
            The payment.

        Raises:
            Unknown: there is no such checkout.
            Conflict: a decline after the capture.
        """
        return await self._books.run(lambda db: self._pay(db, checkout_id, success, delays, storm))

    async def refund(self, payment_id: str, amount_cents: int) -> tuple[Row, bool]:
        """Give the money back, once; the same again gives the same refund.

        Returns:
            The refund, and whether it is new.

        Raises:
            Unknown: there is no such payment.
            Conflict: it was not captured, the amount is not what was captured, or it differs from before.
        """
        return await self._books.run(lambda db: self._refund(db, payment_id, amount_cents))

    async def payments(self, since: int, limit: int) -> list[Row]:
        """Payments after the cursor `since`, oldest first, at most `limit`; `seq` is the next cursor."""
        return await self._books.run(
            lambda db: rows(db, PAYMENTS + "WHERE p.seq > ? ORDER BY p.seq LIMIT ?", since, limit)
        )

    # ---- inside one transaction --------------------------------------------------------------

    def _create(self, db: sqlite3.Connection, order: Order) -> tuple[Row, bool]:
        found = rows(db, "SELECT * FROM checkouts WHERE order_id = ?", order.order_id)
        if found:
            if (found[0]["amount_cents"], found[0]["currency"]) != (order.amount_cents, order.currency):
                raise Conflict(f"order {order.order_id} has a checkout for another amount or currency")
            return _checkout(db, "order_id", order.order_id), False
        db.execute(
            "INSERT INTO checkouts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (
                _name("chk"),
                order.order_id,
                order.amount_cents,
                order.currency,
                order.callback_url,
                order.return_url,
                order.description,
                self._clock(),
            ),
        )
        return _checkout(db, "order_id", order.order_id), True

    def _pay(
        self,
        db: sqlite3.Connection,
        checkout_id: str,
        success: bool,
        delays: Sequence[float],
        storm: Sequence[float],
    ) -> Row:
        checkout = _checkout(db, "id", checkout_id)
        captured = [p for p in checkout["payments"] if p["outcome"] == "succeeded"]
        if captured and not success:
            raise Conflict(f"checkout {checkout_id} is paid already; it can't fail any more")
        if captured:
            payment_id = captured[0]["id"]
        else:
            payment_id = _name("pay")
            db.execute(
                "INSERT INTO payments (id, checkout_id, outcome, created_at) VALUES (?, ?, ?, ?)",
                (payment_id, checkout_id, "succeeded" if success else "failed", self._clock()),
            )
        history = rows(db, PAYMENTS + "WHERE p.checkout_id = ? ORDER BY p.seq", checkout_id)
        payment = next(p for p in history if p["id"] == payment_id)
        url = checkout["callback_url"]
        for delay in delays:
            self.debts.owe(db, url, f"payment.{payment['outcome']}", payment, delay)
        for delay in storm:
            for each in history:
                self.debts.owe(db, url, f"payment.{each['outcome']}", each, delay)
        return payment

    def _refund(self, db: sqlite3.Connection, payment_id: str, amount_cents: int) -> tuple[Row, bool]:
        found = rows(db, PAYMENTS + "WHERE p.id = ?", payment_id)
        if not found:
            raise Unknown(f"no payment {payment_id}")
        payment = found[0]
        if payment["outcome"] != "succeeded" or amount_cents != payment["amount_cents"]:
            raise Conflict(f"payment {payment_id}: only the whole of a captured payment can be refunded")
        new = payment["refund_id"] is None
        if new:
            db.execute(
                "INSERT INTO refunds VALUES (?, ?, ?, ?)",
                (_name("ref"), payment_id, amount_cents, self._clock()),
            )
            checkout = _checkout(db, "id", payment["checkout_id"])
            self.debts.owe(db, checkout["callback_url"], "refund.succeeded", payment, 0.0)
        refund = rows(db, "SELECT * FROM refunds WHERE payment_id = ?", payment_id)[0]
        return refund, new


def _name(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"


def _checkout(db: sqlite3.Connection, column: str, value: str) -> Row:
    found = rows(db, f"SELECT * FROM checkouts WHERE {column} = ?", value)  # noqa: S608 - our own column names
    if not found:
        raise Unknown(f"no checkout with {column} {value}")
    checkout = found[0]
    payments = rows(db, PAYMENTS + "WHERE p.checkout_id = ? ORDER BY p.seq", checkout["id"])
    captured = next((p for p in payments if p["outcome"] == "succeeded"), None)
    if captured is not None:
        state = "refunded" if captured["refund_id"] else "paid"
    else:
        state = "failed" if payments else "open"
    return {**checkout, "state": state, "payments": payments}
