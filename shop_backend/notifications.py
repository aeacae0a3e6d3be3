"""Mail about deliveries: an outbox row per delivery, sent later, retried, never in a shopper's way."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from typing import Any, Protocol

from shop_backend.config import OutboxSettings
from shop_backend.storage.database import Database

_BATCH = 50  # outbox rows claimed at once
_LONGEST = 300.0  # seconds between two tries


@dataclass(frozen=True, slots=True)
class Message:
    """One mail. `reference` is the same when it is sent again, so that a mailbox can tell."""

    reference: str
    subject: str
    text: str


class Notifier(Protocol):
    """Brings messages to people."""

    async def send(self, to: str, message: Message) -> None:
        """Send one; raises when it did not go out."""
        ...


class FileMailbox:
    """Writes each mail to a file of its own: what a developer reads, and a rehearsal counts."""

    def __init__(self, folder: Path, sender: str) -> None:
        self._folder = folder
        self._sender = sender

    async def send(self, to: str, message: Message) -> None:
        """Write the mail; the same reference again replaces it.

        Raises:
            OSError: it can't be written.
        """
        mail = EmailMessage()
        mail["From"] = self._sender
        mail["To"] = to
        mail["Date"] = format_datetime(datetime.now(UTC))
        mail["Message-ID"] = f"<{message.reference}@tidegate.example>"
        mail["Subject"] = message.subject
        mail.set_content(message.text)
        await asyncio.to_thread(self._write, self._folder / f"{message.reference}.eml", bytes(mail))

    def _write(self, path: Path, content: bytes) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Renamed when whole: a reader never sees half a mail.
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(content)
        part.replace(path)


class Outbox:
    """Sends what is due.

    Args:
        link: the address of an order's page, by order id.
    """

    def __init__(
        self, database: Database, notifier: Notifier, settings: OutboxSettings, *, link: Callable[[str], str]
    ) -> None:
        self._database = database
        self._notifier = notifier
        self._settings = settings
        self._link = link

    async def send_due(self) -> int:
        """Claim some rows, send one mail per order, and note what became of each.

        Returns:
            How many rows were claimed.
        """
        rows = await self._claim()
        orders: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for row in rows:
            orders.setdefault((row["order_id"], row["recipient"]), []).append(row)
        for (order_id, recipient), lines in orders.items():
            try:
                await self._notifier.send(recipient, self._message(order_id, lines))
            except Exception as error:  # noqa: BLE001 - whatever a mail server does wrong is kept beside the row
                await self._failed(lines, error)
            else:
                await self._sent([row["id"] for row in lines])
        return len(rows)

    async def pending(self) -> int:
        """How many rows are still to send."""
        async with self._database.primary() as connection:
            cursor = await connection.execute("SELECT count(*) AS n FROM outbox WHERE state = 'pending'")
            row = await cursor.fetchone()
        return int(row["n"]) if row else 0

    async def _claim(self) -> list[dict[str, Any]]:
        """By state, never by id: ids commit out of order. A claim ends by itself when its worker dies."""
        async with self._database.primary() as connection:
            cursor = await connection.execute(
                "UPDATE outbox SET attempts = attempts + 1, next_attempt_at = now() + make_interval(secs =>"
                " least(%s * 2 ^ attempts, %s)) WHERE id IN (SELECT id FROM outbox WHERE state = 'pending'"
                " AND next_attempt_at <= now() ORDER BY next_attempt_at, order_id LIMIT %s"
                " FOR UPDATE SKIP LOCKED) RETURNING id, order_id::text, recipient, attempts",
                (max(self._settings.backoff, 1.0), _LONGEST, _BATCH),
            )
            return sorted(await cursor.fetchall(), key=lambda row: row["id"])

    def _message(self, order_id: str, lines: Sequence[dict[str, Any]]) -> Message:
        # No card key: mail is read by others on its way. The page shows it to the owner.
        return Message(
            reference=f"{order_id}-{lines[0]['id']}",
            subject="Your key is ready" if len(lines) == 1 else f"Your {len(lines)} keys are ready",
            text="Thank you for your order.\n\nRead your key here:\n"
            f"{self._link(order_id)}\n\nOrder {order_id}\n",
        )

    async def _sent(self, ids: list[int]) -> None:
        async with self._database.primary() as connection:
            await connection.execute(
                "UPDATE outbox SET state = 'sent', sent_at = now(), error = NULL WHERE id = ANY(%s)"
                " AND state = 'pending'",
                (ids,),
            )

    async def _failed(self, lines: Sequence[dict[str, Any]], error: Exception) -> None:
        async with self._database.primary() as connection:
            await connection.execute(
                "UPDATE outbox SET error = %s, state = CASE WHEN attempts >= %s THEN 'dead' ELSE state END"
                " WHERE id = ANY(%s) AND state = 'pending'",
                (f"{type(error).__name__}: {error}"[:500], self._settings.attempts, [r["id"] for r in lines]),
            )
