"""What must hold of a shop at any moment, by its SQL and its Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.shop_backend.goods import PRODUCTS

if TYPE_CHECKING:
    from tests.shop_backend.driven import Shop


async def violations(shop: Shop) -> list[str]:
    """I1 to I4, I8, I9, I11 and I12, as sentences."""
    found: list[str] = []
    imported = {sku: cards for sku, cards, *_ in PRODUCTS}
    cards = await shop.rows("SELECT sku, state, count(*) AS n FROM cards GROUP BY sku, state")
    for sku, wanted in imported.items():
        if sum(c["n"] for c in cards if c["sku"] == sku) != wanted:
            found.append(f"I1 {sku}")
    snapshot = await shop.snapshot()
    states = {str(r["id"]): r["state"] for r in await shop.rows("SELECT id, state FROM orders")}
    for sku in imported:
        available = sum(c["n"] for c in cards if c["sku"] == sku and c["state"] == "available")
        unsettled = sum(
            quantity
            for order_id, held, quantity in snapshot.holds
            if held == sku and states.get(order_id) not in ("pending", "paid", "delivered")
        )
        if snapshot.free[sku] < 0 or snapshot.free[sku] + unsettled != available:
            found.append(f"I2 {sku}: free {snapshot.free[sku]} + {unsettled} != {available}")
    for name, sql in {
        "I3/I4 deliveries of an order": (
            "SELECT o.id FROM orders o WHERE (SELECT count(*) FROM deliveries d WHERE d.order_id = o.id)"
            " <> CASE o.state WHEN 'delivered' THEN o.quantity ELSE 0 END"
        ),
        "I3 delivered cards": (
            "SELECT c.id FROM cards c LEFT JOIN deliveries d ON d.card_id = c.id"
            " WHERE (c.state = 'delivered') <> (d.card_id IS NOT NULL)"
        ),
        "I5 captures": (
            "SELECT p.payment_id FROM payments p WHERE outcome = 'succeeded' AND (disposition = 'refund')"
            " <> EXISTS (SELECT FROM refunds r WHERE r.payment_id = p.payment_id)"
        ),
        "I8": (
            "SELECT c.id FROM cards c JOIN orders o ON o.id = c.order_id"
            " WHERE o.state IN ('expired', 'refunding', 'refunded')"
        ),
        "held cards of an open order": (
            "SELECT o.id FROM orders o WHERE state = 'pending' AND quantity <>"
            " (SELECT count(*) FROM cards c WHERE c.order_id = o.id AND c.state = 'held')"
        ),
        "I9": (
            "SELECT o.user_id FROM orders o JOIN products p USING (sku) WHERE state IN ('pending', 'paid',"
            " 'delivered') GROUP BY o.user_id, sku, p.per_user_cap HAVING sum(o.quantity) > p.per_user_cap"
        ),
        "I11": "SELECT card_id FROM deliveries WHERE card_id NOT IN (SELECT card_id FROM outbox)",
        "I12": (
            "SELECT o.id FROM orders o JOIN LATERAL (SELECT to_state, lag(to_state) OVER (ORDER BY id) AS"
            " before, from_state, row_number() OVER (ORDER BY id DESC) AS last FROM order_events e"
            " WHERE e.order_id = o.id) e ON true WHERE e.before IS DISTINCT FROM e.from_state"
            " OR (e.last = 1 AND e.to_state <> o.state)"
        ),
    }.items():
        found += [f"{name}: {row}" for row in await shop.rows(sql)]
    return found
