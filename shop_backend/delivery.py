"""Cards on their way to a buyer: taken under locks, counted, delivered once, decrypted only for the owner."""

from __future__ import annotations

from collections.abc import Sequence

from shop_backend.notifications import Sale, announce_delivery
from shop_backend.storage.database import Connection

SealedCard = tuple[int, str, bytes]  # id, key id, secret: as Vault.open_card takes them


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


async def lock_held(connection: Connection, order_ids: Sequence[str]) -> dict[str, list[int]]:
    """Lock the cards held for orders; by order id."""
    cursor = await connection.execute(
        "SELECT id, order_id::text FROM cards WHERE order_id = ANY(%s::uuid[]) AND state = 'held'"
        " ORDER BY id FOR UPDATE",
        (list(order_ids),),
    )
    found: dict[str, list[int]] = {order_id: [] for order_id in order_ids}
    for row in await cursor.fetchall():
        found[row["order_id"]].append(int(row["id"]))
    return found


async def deliver(connection: Connection, sales: Sequence[Sale]) -> None:
    """Make locked cards the buyers' and queue the messages about it, in the caller's transaction.

    Raises:
        RuntimeError: not exactly an order's quantity could be delivered; the transaction must not commit.
    """
    for sale in sales:
        if len(sale.cards) != sale.order["quantity"]:
            raise RuntimeError(
                f"order {sale.order['id']}: {len(sale.cards)} cards to deliver, not {sale.order['quantity']}"
            )
    cards = [card for sale in sales for card in sale.cards]
    owners = [str(sale.order["id"]) for sale in sales for _ in sale.cards]
    cursor = await connection.execute(
        "UPDATE cards SET state = 'delivered', order_id = t.owner"
        " FROM unnest(%s::bigint[], %s::uuid[]) AS t (card, owner) WHERE cards.id = t.card"
        " AND (cards.state = 'available' OR (cards.state = 'held' AND cards.order_id = t.owner))",
        (cards, owners),
    )
    if cursor.rowcount != len(cards):
        orders = ", ".join(dict.fromkeys(owners))
        raise RuntimeError(f"{cursor.rowcount} cards to deliver, not {len(cards)}, for orders {orders}")
    await connection.execute(
        "INSERT INTO deliveries (card_id, order_id) SELECT * FROM unnest(%s::bigint[], %s::uuid[])",
        (cards, owners),
    )
    await announce_delivery(connection, sales)


async def sealed_cards_of(connection: Connection, order_ids: Sequence[str]) -> dict[str, list[SealedCard]]:
    """By delivered order its cards: to be opened for the order's owner only."""
    cursor = await connection.execute(
        "SELECT d.order_id::text, c.id, c.key_id, c.secret FROM deliveries d JOIN cards c ON c.id = d.card_id"
        " WHERE d.order_id = ANY(%s::uuid[]) ORDER BY c.id",
        (list(order_ids),),
    )
    found: dict[str, list[SealedCard]] = {order_id: [] for order_id in order_ids}
    for row in await cursor.fetchall():
        found[row["order_id"]].append((row["id"], row["key_id"], bytes(row["secret"])))
    return found
