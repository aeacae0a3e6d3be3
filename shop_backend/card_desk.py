"""What operators do to card keys: take off sale, put back, seal anew, export. All of it is written down."""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TextIO

import psycopg

from shop_backend.cards import fingerprint_key, write_down
from shop_backend.errors import SetupError
from shop_backend.stock.ledger import StockLedger
from shop_backend.storage.database import Connection, Database, own_cards
from shop_backend.vault import SealError, Vault

BATCH = 1000  # cards in one transaction: workers wait for no longer
STATES = ("available", "held", "delivered", "disabled")


@dataclass(frozen=True, slots=True)
class Actor:
    """Who changes something, and why."""

    name: str
    reason: str


@dataclass(slots=True)
class Outcome:
    """What became of a change: cards by SKU that were changed, and how many could not be."""

    changed: Counter[str] = field(default_factory=Counter)
    left: int = 0

    def __str__(self) -> str:
        skus = ", ".join(f"{n} of {sku}" for sku, n in sorted(self.changed.items())) or "none"
        return f"{skus}; {self.left} could not be: sold, promised, or not there" if self.left else skus


class CardDesk:
    """Takes cards off sale and puts them back. Restock afterwards: until then a crash undersells."""

    def __init__(self, database: Database, stock: StockLedger) -> None:
        self._database = database
        self._stock = stock

    async def disable_some(self, sku: str, count: int, actor: Actor) -> Outcome:
        """Take so many available cards of a product off sale, oldest first.

        Raises:
            StockClosed, Unavailable: try again.
        """
        outcome = Outcome()
        while (missing := count - outcome.changed[sku]) > 0:
            async with self._database.primary() as connection:
                await own_cards(connection)
                taken = await self._stock.withdraw(sku, min(missing, BATCH))
                cursor = await connection.execute(
                    "SELECT id FROM cards WHERE sku = %s AND state = 'available' ORDER BY id + 0 LIMIT %s",
                    (sku, taken),
                )
                found = [row["id"] for row in await cursor.fetchall()]
                done = await _disable(connection, sku, found, actor)
            outcome.changed[sku] += done
            if done < min(missing, BATCH):
                break
        outcome.left = count - outcome.changed[sku]
        return outcome

    async def disable(self, cards: Sequence[int], actor: Actor) -> Outcome:
        """Take these cards off sale, as far as nobody bought them or was promised them.

        Raises:
            StockClosed, Unavailable: try again.
        """
        outcome = Outcome()
        for start in range(0, len(cards), BATCH):
            async with self._database.primary() as connection:
                await own_cards(connection)
                cursor = await connection.execute(
                    "SELECT id, sku FROM cards WHERE id = ANY(%s) AND state = 'available' ORDER BY id",
                    (list(cards[start : start + BATCH]),),
                )
                by_sku: dict[str, list[int]] = {}
                for row in await cursor.fetchall():
                    by_sku.setdefault(row["sku"], []).append(row["id"])
                for sku, found in sorted(by_sku.items()):
                    # Redis first: what it has promised, and SQL does not know yet, keeps its cards.
                    taken = await self._stock.withdraw(sku, len(found))
                    outcome.changed[sku] += await _disable(connection, sku, found[:taken], actor)
        outcome.left = len(cards) - outcome.changed.total()
        return outcome

    async def enable(self, sku: str, count: int, actor: Actor) -> Outcome:
        """Put disabled cards of a product back on sale; Redis gets to know by restocking, which must follow.

        Raises:
            Unavailable: try again.
        """
        outcome = Outcome()
        while (missing := count - outcome.changed[sku]) > 0:
            async with self._database.primary() as connection:
                await own_cards(connection)
                cursor = await connection.execute(
                    "UPDATE cards SET state = 'available' WHERE id IN (SELECT id FROM cards"
                    " WHERE sku = %s AND state = 'disabled' ORDER BY id LIMIT %s)",
                    (sku, min(missing, BATCH)),
                )
                done = cursor.rowcount
                if done:
                    await _note(connection, "enable", sku, done, actor)
            outcome.changed[sku] += done
            if done < min(missing, BATCH):
                break
        outcome.left = count - outcome.changed[sku]
        return outcome


async def _disable(connection: Connection, sku: str, cards: list[int], actor: Actor) -> int:
    if not cards:
        return 0
    cursor = await connection.execute(
        "UPDATE cards SET state = 'disabled' WHERE id = ANY(%s) AND state = 'available'", (cards,)
    )
    await _note(connection, "disable", sku, cursor.rowcount, actor)
    return cursor.rowcount


async def _note(connection: Connection, action: str, sku: str, cards: int, actor: Actor) -> None:
    await connection.execute(
        "INSERT INTO card_changes (action, sku, cards, actor, reason) VALUES (%s, %s, %s, %s, %s)",
        (action, sku, cards, actor.name, actor.reason),
    )


# ---- sealing anew ----------------------------------------------------------------------------


def rotate(connection: psycopg.Connection, vault: Vault, actor: Actor) -> tuple[int, list[int]]:
    """Seal every card, and the fingerprints' key, with the vault's current key; safe while the shop sells.

    Every process has to know that key already. Broken off and called again, it does the rest.

    Returns:
        How many cards were sealed anew, and the ids of those that can't be opened.
    """
    fingerprint_key(connection, vault)
    done, broken, after = 0, list[int](), 0
    while True:
        with connection.transaction():
            rows = connection.execute(
                "SELECT id, key_id, secret FROM cards WHERE id > %s AND key_id <> %s ORDER BY id LIMIT %s"
                " FOR UPDATE",
                (after, vault.current, BATCH),
            ).fetchall()
            if not rows:
                return done, broken
            after = rows[-1][0]
            sealed = []
            for card, key_id, secret in rows:
                try:
                    plain = vault.open_card(card, key_id, bytes(secret))
                except SealError:
                    broken.append(card)
                else:
                    sealed.append((card, *vault.seal_card(card, plain)))
            if sealed:
                columns = [list(column) for column in zip(*sealed, strict=True)]
                connection.execute(
                    "UPDATE cards SET key_id = t.key_id, secret = t.secret FROM"
                    " unnest(%s::bigint[], %s::text[], %s::bytea[]) AS t (id, key_id, secret)"
                    " WHERE cards.id = t.id",
                    columns,
                )
                write_down(connection, "rotate", None, len(sealed), actor.name, actor.reason)
            done += len(sealed)


# ---- export ----------------------------------------------------------------------------------


def export(
    connection: psycopg.Connection, vault: Vault | None, sku: str, state: str, place: Path, actor: Actor
) -> int:
    """Write a product's cards in one state to a CSV file that only its owner may read; how many.

    That it happened is committed before the first key is opened. `vault` opens the keys; None leaves them
    out.

    Raises:
        SetupError: the file is there already, or can't be written.
        SealError: a key can't be opened.
    """
    counted = connection.execute(
        "SELECT count(*) FROM cards WHERE sku = %s AND state = %s", (sku, state)
    ).fetchone()
    what = f"{actor.reason} ({state}, {'with' if vault else 'without'} keys)"
    with _private(place) as file:
        write_down(connection, "export", sku, counted[0] if counted else 0, actor.name, what)
        connection.commit()
        out = csv.writer(file)
        out.writerow(["id", "sku", "state", "imported_at", "order_id", *(["secret"] if vault else [])])
        written = 0
        with connection.transaction(), connection.cursor(name="card_export") as cursor:
            cursor.execute(
                "SELECT id, key_id, secret, imported_at, order_id FROM cards WHERE sku = %s AND state = %s"
                " ORDER BY id",
                (sku, state),
            )
            for card, key_id, secret, imported_at, order_id in cursor:
                opened = [vault.open_card(card, key_id, bytes(secret))] if vault else []
                out.writerow([card, sku, state, imported_at.isoformat(), order_id or "", *opened])
                written += 1
    return written


@contextmanager
def _private(place: Path) -> Iterator[TextIO]:
    try:
        descriptor = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        raise SetupError(f"{place}: {error.strerror}; name a file that is not there yet") from error
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
        yield file


# ---- what was done ---------------------------------------------------------------------------


Change = tuple[datetime, str, str | None, int, str, str]  # when, action, sku, cards, who, why


def changes(connection: psycopg.Connection, newest: int) -> list[Change]:
    """The newest changes, oldest of them first."""
    rows = connection.execute(
        "SELECT at, action, sku, cards, actor, reason FROM card_changes ORDER BY id DESC LIMIT %s", (newest,)
    ).fetchall()
    return list(reversed(rows))
