"""Callbacks the provider owes its merchants, until they take them."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shop_backend.sandbox.books import Books, Row, rows

Clock = Callable[[], float]  # Unix time, seconds


@dataclass(frozen=True)
class Callback:
    """One message owed to a merchant; `attempts` deliveries failed so far."""

    seq: int
    message_id: str
    url: str
    body: str
    attempts: int


class Debts:
    """What is owed, and to whom it was paid.

    A callback is written in the transaction of what it tells about (`owe`), and erased only once the
    merchant took it: SIGKILL at any moment loses none.
    """

    def __init__(self, books: Books, *, clock: Clock = time.time) -> None:
        self._books = books
        self._clock = clock

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
            later = rows(db, "SELECT min(due_at) AS at FROM callbacks WHERE due_at > ?", now)
            return rows(db, sql, now, busy, limit), later[0]["at"]

        found, later = await self._books.run(look)
        return [Callback(**row) for row in found], None if later is None else later - now

    async def owed(self) -> int:
        """How many callbacks no merchant took yet."""
        (row,) = await self._books.run(lambda db: rows(db, "SELECT count(*) AS n FROM callbacks"))
        return int(row["n"])

    async def taken(self, seq: int) -> None:
        """The merchant took this callback; owe it no longer."""
        await self._books.run(lambda db: db.execute("DELETE FROM callbacks WHERE seq = ?", (seq,)))

    async def retry(self, seq: int, delay: float) -> None:
        """The merchant did not take it; try again in `delay` seconds."""
        due = self._clock() + delay
        sql = "UPDATE callbacks SET attempts = attempts + 1, due_at = ? WHERE seq = ?"
        await self._books.run(lambda db: db.execute(sql, (due, seq)))

    def owe(self, db: sqlite3.Connection, url: str, event: str, payment: Row, delay: float) -> None:
        """Owe the merchant an event, `delay` seconds from now; in the caller's transaction."""
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
