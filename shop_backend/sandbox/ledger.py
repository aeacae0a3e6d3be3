"""What the provider knows: checkouts, payments, refunds, callbacks it still owes; one SQLite file."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sqlite3
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from shop_backend.errors import NotFound, ShopError

T = TypeVar("T")
Clock = Callable[[], float]  # Unix time, seconds
Row = dict[str, Any]

SCHEMA = """
CREATE TABLE IF NOT EXISTS checkouts (
    id TEXT PRIMARY KEY,
    order_id TEXT NOT NULL UNIQUE,
    amount_cents INTEGER NOT NULL CHECK (amount_cents > 0),
    currency TEXT NOT NULL,
    callback_url TEXT NOT NULL,
    return_url TEXT NOT NULL,
    description TEXT NOT NULL,
    created_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS payments (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    id TEXT NOT NULL UNIQUE,
    checkout_id TEXT NOT NULL REFERENCES checkouts (id),
    outcome TEXT NOT NULL CHECK (outcome IN ('succeeded', 'failed')),
    created_at REAL NOT NULL
);
CREATE UNIQUE INDEX IF NOT EXISTS payments_captured_once ON payments (checkout_id)
    WHERE outcome = 'succeeded';
CREATE INDEX IF NOT EXISTS payments_checkout ON payments (checkout_id);
CREATE TABLE IF NOT EXISTS refunds (
    id TEXT PRIMARY KEY,
    payment_id TEXT NOT NULL UNIQUE REFERENCES payments (id),
    amount_cents INTEGER NOT NULL CHECK (amount_cents > 0),
    created_at REAL NOT NULL
);
CREATE TABLE IF NOT EXISTS callbacks (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL,
    url TEXT NOT NULL,
    body TEXT NOT NULL,
    due_at REAL NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0
);
CREATE INDEX IF NOT EXISTS callbacks_due ON callbacks (due_at);
"""

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


@dataclass(frozen=True)
class Callback:
    """One message owed to a merchant; `attempts` deliveries failed so far."""

    seq: int
    message_id: str
    url: str
    body: str
    attempts: int


class Ledger:
    """The provider's books. Every method is one transaction, run on one thread beside the event loop.

    A callback is written in the transaction of what it tells about, and erased only once the merchant
    took it: SIGKILL at any moment loses none.
    """

    def __init__(self, path: Path, *, clock: Clock = time.time) -> None:
        self._path = path
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sandbox-ledger")
        self._db: sqlite3.Connection | None = None

    async def open(self) -> None:
        """Open the file, or create it with its folder.

        Raises:
            OSError: the folder can't be made.
            sqlite3.Error: the file can't be opened or is none of ours.
        """
        await asyncio.get_running_loop().run_in_executor(self._thread, self._open)

    async def close(self) -> None:
        """Finish what was asked, then close the file."""
        if self._db is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._db.close)
            self._db = None
        self._thread.shutdown(wait=True)

    # ---- checkouts ---------------------------------------------------------------------------

    async def create_checkout(self, order: Order) -> tuple[Row, bool]:
        """Open a checkout; the same order again gives the same one.

        Returns:
            The checkout, and whether it is new.

        Raises:
            Conflict: the order has a checkout for another amount or currency.
        """
        return await self._run(lambda db: self._create(db, order))

    async def checkout(self, checkout_id: str) -> Row:
        """A checkout with its payments and `state`: open, failed, paid or refunded.

        Raises:
            Unknown: there is none.
        """
        return await self._run(lambda db: _checkout(db, "id", checkout_id))

    async def checkout_of(self, order_id: str) -> Row:
        """The same by the merchant's order id.

        Raises:
            Unknown: there is none.
        """
        return await self._run(lambda db: _checkout(db, "order_id", order_id))

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
        return await self._run(lambda db: self._pay(db, checkout_id, success, delays, storm))

    async def refund(self, payment_id: str, amount_cents: int) -> tuple[Row, bool]:
        """Give the money back, once; the same again gives the same refund.

        Returns:
            The refund, and whether it is new.

        Raises:
            Unknown: there is no such payment.
            Conflict: it was not captured, the amount is not what was captured, or it differs from before.
        """
        return await self._run(lambda db: self._refund(db, payment_id, amount_cents))

    async def payments(self, since: int, limit: int) -> list[Row]:
        """Payments after the cursor `since`, oldest first, at most `limit`; `seq` is the next cursor."""
        return await self._run(
            lambda db: _rows(db, PAYMENTS + "WHERE p.seq > ? ORDER BY p.seq LIMIT ?", since, limit)
        )

    # ---- callbacks ---------------------------------------------------------------------------

    async def due(self, limit: int, *, besides: Sequence[int] = ()) -> tuple[list[Callback], float | None]:
        """The callbacks due now, longest due first, without those whose `seq` is in `besides`.

        Returns:
            At most `limit` callbacks, and the seconds until another becomes due (None when none waits).
        """
        now = self._clock()
        busy = json.dumps(list(besides))
        sql = (
            "SELECT seq, message_id, url, body, attempts FROM callbacks WHERE due_at <= ? "
            "AND seq NOT IN (SELECT value FROM json_each(?)) ORDER BY due_at LIMIT ?"
        )

        def look(db: sqlite3.Connection) -> tuple[list[Row], float | None]:
            later = _rows(db, "SELECT min(due_at) AS at FROM callbacks WHERE due_at > ?", now)
            return _rows(db, sql, now, busy, limit), later[0]["at"]

        rows, later = await self._run(look)
        return [Callback(**row) for row in rows], None if later is None else later - now

    async def owed(self) -> int:
        """How many callbacks no merchant took yet."""
        rows = await self._run(lambda db: _rows(db, "SELECT count(*) AS n FROM callbacks"))
        return int(rows[0]["n"])

    async def taken(self, seq: int) -> None:
        """The merchant took this callback; owe it no longer."""
        await self._run(lambda db: db.execute("DELETE FROM callbacks WHERE seq = ?", (seq,)))

    async def retry(self, seq: int, delay: float) -> None:
        """The merchant did not take it; try again in `delay` seconds."""
        due = self._clock() + delay
        sql = "UPDATE callbacks SET attempts = attempts + 1, due_at = ? WHERE seq = ?"
        await self._run(lambda db: db.execute(sql, (due, seq)))

    # ---- on the ledger's thread --------------------------------------------------------------

    def _open(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._keep_private()
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        # Survives the death of the process; only a power cut could take the last moments with it.
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA busy_timeout = 5000")
        db.execute("PRAGMA foreign_keys = ON")
        db.executescript(SCHEMA)
        self._db = db

    def _keep_private(self) -> None:
        """Nobody else reads the books. SQLite gives its side files the mode of the database."""
        os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
        for suffix in ("", "-wal", "-shm"):
            with contextlib.suppress(FileNotFoundError):
                self._path.with_name(self._path.name + suffix).chmod(0o600)

    async def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        db = self._db
        if db is None:
            raise RuntimeError("the ledger is closed; await open() first")

        def transaction() -> T:
            with _transaction(db):
                return work(db)

        # Shielded: a client that leaves must not leave its successor a transaction half written.
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._thread, transaction))

    def _create(self, db: sqlite3.Connection, order: Order) -> tuple[Row, bool]:
        found = _rows(db, "SELECT * FROM checkouts WHERE order_id = ?", order.order_id)
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
        history = _rows(db, PAYMENTS + "WHERE p.checkout_id = ? ORDER BY p.seq", checkout_id)
        payment = next(p for p in history if p["id"] == payment_id)
        url = checkout["callback_url"]
        for delay in delays:
            self._owe(db, url, f"payment.{payment['outcome']}", payment, delay)
        for delay in storm:
            for each in history:
                self._owe(db, url, f"payment.{each['outcome']}", each, delay)
        return payment

    def _refund(self, db: sqlite3.Connection, payment_id: str, amount_cents: int) -> tuple[Row, bool]:
        found = _rows(db, PAYMENTS + "WHERE p.id = ?", payment_id)
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
            self._owe(db, checkout["callback_url"], "refund.succeeded", payment, 0.0)
        refund = _rows(db, "SELECT * FROM refunds WHERE payment_id = ?", payment_id)[0]
        return refund, new

    def _owe(self, db: sqlite3.Connection, url: str, event: str, payment: Row, delay: float) -> None:
        body = {
            "type": event,
            "data": {
                "payment_id": payment["id"],
                "checkout_id": payment["checkout_id"],
                "order_id": payment["order_id"],
                "amount_cents": payment["amount_cents"],
                "currency": payment["currency"],
                "channel": "sandbox",
            },
        }
        # Repeats of one event keep its message id, as Standard Webhooks wants it.
        message_id = f"msg_{payment['id'].removeprefix('pay_')}_{event.partition('.')[0]}"
        db.execute(
            "INSERT INTO callbacks (message_id, url, body, due_at) VALUES (?, ?, ?, ?)",
            (message_id, url, json.dumps(body, separators=(",", ":")), self._clock() + delay),
        )


def _name(kind: str) -> str:
    return f"{kind}_{uuid.uuid4().hex}"


def _rows(db: sqlite3.Connection, sql: str, *values: object) -> list[Row]:
    return [dict(row) for row in db.execute(sql, values)]


def _checkout(db: sqlite3.Connection, column: str, value: str) -> Row:
    found = _rows(db, f"SELECT * FROM checkouts WHERE {column} = ?", value)  # noqa: S608 - our own column names
    if not found:
        raise Unknown(f"no checkout with {column} {value}")
    checkout = found[0]
    payments = _rows(db, PAYMENTS + "WHERE p.checkout_id = ? ORDER BY p.seq", checkout["id"])
    captured = next((p for p in payments if p["outcome"] == "succeeded"), None)
    if captured is not None:
        state = "refunded" if captured["refund_id"] else "paid"
    else:
        state = "failed" if payments else "open"
    return {**checkout, "state": state, "payments": payments}


@contextlib.contextmanager
def _transaction(db: sqlite3.Connection) -> Iterator[None]:
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        db.execute("ROLLBACK")
        raise
    db.execute("COMMIT")
