"""The outbox: messages written with what they tell about, sent later, retried, never in a shopper's way."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from shop_backend.letters import Channel, Letters, Message
from shop_backend.metrics import MESSAGES
from shop_backend.money import money
from shop_backend.sections import OutboxSettings
from shop_backend.storage.database import Connection, Database

_log = logging.getLogger(__name__)

_SLACK = 30.0  # seconds that a claim outlasts the longest sending, so that nobody else sends it too
_NOTE_EVERY = 0.05  # seconds
_LAST_WORDS = 3.0  # seconds for what is being sent when the worker stops


class Undeliverable(Exception):  # noqa: N818 - reads as what it says
    """Refused for good: trying again can't help."""


class Notifier(Protocol):
    """Brings messages to people."""

    async def send(self, to: str, message: Message) -> None:
        """Send one; raises when it did not go out, Undeliverable when it never will."""
        ...


@dataclass(frozen=True, slots=True)
class _Letter:
    """A message that is being sent: `ids` are the rows it is for."""

    reference: str
    ids: list[int]
    recipient: str
    attempts: int


@dataclass(frozen=True, slots=True)
class Sale:
    """An order, as its row of `orders` is, and the ids of the cards that are its buyer's."""

    order: Mapping[str, Any]
    cards: Sequence[int]


async def announce_delivery(connection: Connection, sales: Sequence[Sale]) -> None:
    """Queue the mails about deliveries, a row for each card, and a text message where there is a number."""
    rows = [
        (card, str(sale.order["id"]), sale.order["email"], _reference(sale), "mail")
        for sale in sales
        for card in sale.cards
    ]
    rows += [
        (min(sale.cards), str(sale.order["id"]), sale.order["phone"], _reference(sale), "sms")
        for sale in sales
        if sale.order["phone"]
    ]
    await connection.execute(
        "INSERT INTO outbox (card_id, order_id, recipient, reference, channel, occasion)"
        " SELECT t.*, 'delivered' FROM unnest(%s::bigint[], %s::uuid[], %s::text[], %s::text[], %s::text[])"
        " AS t",
        [list(column) for column in zip(*rows, strict=True)],
    )


def _reference(sale: Sale) -> str:
    return f"{sale.order['id']}-delivered"


async def announce_refund(connection: Connection, order: Mapping[str, Any], payment_id: str) -> None:
    """Queue the mail, and the text message, about a payment on its way back."""
    # Hashed: a provider's ids are not made for file names and Message-IDs.
    payment = hashlib.sha256(payment_id.encode()).hexdigest()[:16]
    for channel, recipient in (("mail", order["email"]), ("sms", order["phone"])):
        if recipient:
            await connection.execute(
                "INSERT INTO outbox (payment_id, order_id, recipient, reference, occasion, channel)"
                " VALUES (%s, %s, %s, %s, 'refunding', %s)",
                (payment_id, str(order["id"]), recipient, f"{order['id']}-{payment}-refunding", channel),
            )


class Outbox:
    """Sends the messages of one channel that are due, several at once: a slow one holds up no other.

    A message may go out twice (its worker died before it could say so), then under the same reference.

    Args:
        link: the address of an order's page, by order id.
    """

    def __init__(
        self,
        database: Database,
        notifier: Notifier,
        settings: OutboxSettings,
        *,
        link: Callable[[str], str],
        channel: Channel = "mail",
    ) -> None:
        self._database = database
        self._notifier = notifier
        self._settings = settings
        self._link = link
        self._channel = channel
        self._letters = Letters()
        self._busy: dict[asyncio.Task[None], _Letter] = {}

    async def send_due(self, *, until: str = asyncio.ALL_COMPLETED) -> int:
        """Start what is due, as far as there is room, and note what became of what has ended.

        Args:
            until: asyncio.ALL_COMPLETED to wait for all; FIRST_COMPLETED leaves the slow ones under way.

        Returns:
            How many messages were started or ended: 0 when there is nothing to do.
        """
        begun = await self._begin()
        if not self._busy:
            return begun
        if until == asyncio.ALL_COMPLETED:
            done, _ = await asyncio.wait(self._busy)
        else:
            await asyncio.wait(self._busy, timeout=1.0, return_when=until)
            # Those that end soon after are noted with the first, in one statement.
            done, _ = await asyncio.wait(self._busy, timeout=_NOTE_EVERY)
        await self._note(done)
        return begun + len(done)

    async def keep_sending(self) -> int:
        """For a loop: see `send_due`; slow messages stay under way."""
        return await self.send_due(until=asyncio.FIRST_COMPLETED)

    async def close(self) -> None:
        """Let what is under way end, for a moment; what does not is sent by the next worker."""
        if not self._busy:
            return
        done, late = await asyncio.wait(self._busy, timeout=_LAST_WORDS)
        for task in late:
            task.cancel()
        with contextlib.suppress(Exception):  # then they are sent again, as after a crash
            await self._note(done)
        await asyncio.gather(*late, return_exceptions=True)
        self._busy.clear()

    # ---- sending -----------------------------------------------------------------------------

    async def _begin(self) -> int:
        room = self._settings.at_once - len(self._busy)
        rows = await self._claim(room) if room > 0 else []
        groups: dict[str, list[dict[str, Any]]] = {}
        for row in rows:
            groups.setdefault(row["reference"], []).append(row)
        for reference, lines in groups.items():
            first = lines[0]
            letter = _Letter(reference, [row["id"] for row in lines], first["recipient"], first["attempts"])
            self._busy[asyncio.create_task(self._send(letter, first))] = letter
        return len(groups)

    async def _send(self, letter: _Letter, row: Mapping[str, Any]) -> None:
        message = self._letters.write(
            row["occasion"],
            row["language"],
            self._channel,
            reference=letter.reference,
            values={
                "order_id": row["order_id"],
                "product": row["product"],
                "quantity": row["quantity"],
                "amount": money(row["amount_cents"], row["currency"]),
                # No card key: messages are read by others on their way. The page shows it to the owner.
                "link": self._link(row["order_id"]),
            },
        )
        async with asyncio.timeout(self._settings.timeout):
            await self._notifier.send(letter.recipient, message)

    async def _note(self, done: set[asyncio.Task[None]]) -> None:
        sent: list[int] = []
        for task in done:
            letter, error = self._busy[task], task.exception()
            if error is None:
                sent += letter.ids
            else:
                await self._failed(letter, error)
        if sent:
            async with self._database.primary() as connection:
                await connection.execute(
                    "UPDATE outbox SET state = 'sent', sent_at = now(), error = NULL WHERE id = ANY(%s)"
                    " AND state = 'pending'",
                    (sent,),
                )
        for task in done:
            if task.exception() is None:
                MESSAGES.labels(self._channel, "sent").inc()
            del self._busy[task]

    # ---- rows --------------------------------------------------------------------------------

    async def _claim(self, room: int) -> list[dict[str, Any]]:
        """Due messages, with what they tell. By state, never by id: ids commit out of order.

        A message's first row stands for all of its rows, so that two workers never share one. A claim
        ends by itself when its worker dies.
        """
        async with self._database.primary() as connection:
            cursor = await connection.execute(
                "WITH due AS (SELECT reference FROM outbox AS b WHERE channel = %(channel)s"
                "  AND state = 'pending' AND next_attempt_at <= now() AND NOT EXISTS (SELECT FROM outbox AS o"
                "   WHERE o.reference = b.reference AND o.channel = b.channel AND o.state = 'pending'"
                "   AND o.id < b.id)"
                "  ORDER BY next_attempt_at LIMIT %(room)s FOR UPDATE OF b SKIP LOCKED),"
                " claimed AS (UPDATE outbox SET attempts = attempts + 1,"
                "  next_attempt_at = now() + make_interval(secs => %(lease)s) WHERE channel = %(channel)s"
                "  AND state = 'pending' AND reference IN (SELECT reference FROM due)"
                "  RETURNING id, reference, order_id, recipient, occasion, payment_id, attempts)"
                " SELECT c.*, c.order_id::text AS order_id, o.quantity, o.language, o.currency,"
                " p.name AS product, coalesce(r.amount_cents, o.amount_cents) AS amount_cents FROM claimed c"
                " JOIN orders o ON o.id = c.order_id JOIN products p ON p.sku = o.sku"
                " LEFT JOIN refunds r ON r.order_id = c.order_id AND r.payment_id = c.payment_id"
                " ORDER BY c.id",
                {"channel": self._channel, "room": room, "lease": self._settings.timeout + _SLACK},
            )
            return await cursor.fetchall()

    async def _failed(self, letter: _Letter, error: BaseException) -> None:
        dead = isinstance(error, Undeliverable) or letter.attempts >= self._settings.attempts
        why = f"{type(error).__name__}: {error}".rstrip(": ")[:500].replace("\x00", "")
        if dead:
            _log.error(
                "%s %s given up after %d tries: %s", self._channel, letter.reference, letter.attempts, why
            )
        async with self._database.primary() as connection:
            await connection.execute(
                "UPDATE outbox SET error = %s, state = CASE WHEN %s THEN 'dead' ELSE state END,"
                " next_attempt_at = now() + make_interval(secs => %s) WHERE id = ANY(%s)"
                " AND state = 'pending'",
                (why, dead, self._pause(letter.attempts), letter.ids),
            )
        MESSAGES.labels(self._channel, "dead" if dead else "failed").inc()

    def _pause(self, attempts: int) -> float:
        """Seconds until the next try: doubled each time, up to `longest`; the upper half is jitter."""
        s = self._settings
        return min(s.backoff * 2.0 ** min(attempts - 1, 30), s.longest) * random.uniform(0.5, 1.0)  # noqa: S311 - spread, not secret


async def counts(database: Database) -> tuple[int, int]:
    """Messages still to send, and those given up."""
    async with database.primary() as connection:
        cursor = await connection.execute(
            "SELECT count(*) FILTER (WHERE state = 'pending') AS pending,"
            " count(*) FILTER (WHERE state = 'dead') AS dead FROM outbox WHERE state <> 'sent'"
        )
        row = await cursor.fetchone()
    return (int(row["pending"]), int(row["dead"])) if row else (0, 0)
