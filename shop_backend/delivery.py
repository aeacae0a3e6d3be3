"""Cards on their way to a buyer: taken under locks, counted, delivered once, decrypted only for the owner."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shop_backend.notifications import announce_delivery
from shop_backend.storage.database import Connection
from shop_backend.vault import Vault


class CardsBusy(Exception):  # noqa: N818 - no error: other transactions hold the rows, try again
    """Enough cards are there, but locked by transactions that may yet give them back."""


class CardsMissing(Exception):  # noqa: N818 - reads as what it says
    """SQL has fewer cards than are needed. `found` were locked for the caller."""

    def __init__(self, found: list[int]) -> None:
        super().__init__(f"only {len(found)} cards available")
        self.found = found


async def lock_available(connection: Connection, sku: str, quantity: int) -> list[int]:
    """Lock available cards for this transaction.

    Raises:
        CardsBusy: rows are locked by others; nobody may conclude that there are none.
        CardsMissing: there really are fewer.
    """
    cursor = await connection.execute(
        # By id, but not along the primary key, where all that was ever delivered comes first (cards_next).
        "SELECT id FROM cards WHERE sku = %s AND state = 'available' ORDER BY id + 0 LIMIT %s"
        " FOR UPDATE SKIP LOCKED",
        (sku, quantity),
    )
    found = [int(row["id"]) for row in await cursor.fetchall()]
    if len(found) == quantity:
        return found
    # Counted without locks: rows that others have locked, but not yet committed, still count.
    cursor = await connection.execute(
        "SELECT count(*) AS n FROM cards WHERE sku = %s AND state = 'available'", (sku,)
    )
    row = await cursor.fetchone()
    if row and row["n"] >= quantity:
        raise CardsBusy(f"cards of {sku} are locked by other transactions")
    raise CardsMissing(found)


async def lock_held(connection: Connection, order_id: str) -> list[int]:
    """Lock the cards held for an order."""
    cursor = await connection.execute(
        "SELECT id FROM cards WHERE order_id = %s AND state = 'held' ORDER BY id FOR UPDATE", (order_id,)
    )
    return [int(row["id"]) for row in await cursor.fetchall()]


async def deliver(connection: Connection, order: Mapping[str, Any], cards: list[int]) -> None:
    """Make locked cards the buyer's and queue the messages about it, in the caller's transaction.

    Args:
        connection: inside a transaction.
        order: its row of `orders`.
        cards: ids of what the caller has locked for it.

    Raises:
        RuntimeError: not exactly the order's quantity could be delivered; the transaction must not commit.
    """
    order_id, quantity = str(order["id"]), order["quantity"]
    cursor = await connection.execute(
        "UPDATE cards SET state = 'delivered', order_id = %(order)s WHERE id = ANY(%(cards)s)"
        " AND (state = 'available' OR (state = 'held' AND order_id = %(order)s))",
        {"order": order_id, "cards": cards},
    )
    if cursor.rowcount != quantity:
        raise RuntimeError(f"order {order_id}: {cursor.rowcount} cards to deliver, not {quantity}")
    await connection.execute(
        "INSERT INTO deliveries (card_id, order_id) SELECT unnest(%s::bigint[]), %s::uuid", (cards, order_id)
    )
    await announce_delivery(connection, order, cards)


async def cards_of(connection: Connection, order_id: str, vault: Vault) -> list[str]:
    """The keys of a delivered order, in clear: for its owner only.

    Raises:
        SealError: a key can't be opened.
    """
    cursor = await connection.execute(
        "SELECT c.id, c.key_id, c.secret FROM deliveries d JOIN cards c ON c.id = d.card_id"
        " WHERE d.order_id = %s ORDER BY c.id",
        (order_id,),
    )
    return [
        vault.open_card(row["id"], row["key_id"], bytes(row["secret"])) for row in await cursor.fetchall()
    ]
