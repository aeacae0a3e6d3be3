"""Invariants of stock and cards: I1 to I4, I8, I9."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ops.audit.evidence import Evidence

# The states in which SQL itself has taken an order's cards; before and after, the hold counts.
TAKEN = ("pending", "paid", "delivered")


def i1(evidence: Evidence) -> Iterator[str]:
    """Available + held + delivered + disabled cards = imported cards."""
    for row in evidence.rows(
        "SELECT sku, count(*) AS imported, count(*) FILTER"
        " (WHERE state IN ('available', 'held', 'delivered', 'disabled')) AS counted FROM cards GROUP BY sku"
    ):
        if row["imported"] != row["counted"]:
            yield f"{row['sku']}: {row['imported']} cards there, {row['counted']} in a known state"
    for row in evidence.rows(
        "SELECT p.sku, (SELECT coalesce(sum(h.cards), 0)::bigint FROM card_changes h"
        "  WHERE h.sku = p.sku AND h.action = 'import') AS imported,"
        " (SELECT count(*) FROM cards c WHERE c.sku = p.sku) AS there FROM products p ORDER BY p.sku"
    ):
        if row["imported"] != row["there"]:
            yield f"{row['sku']}: {row['imported']} cards were imported, {row['there']} are there"
    for row in evidence.rows(
        "SELECT c.id, c.sku, c.state, c.order_id, o.sku AS order_sku, o.state AS order_state FROM cards c"
        " LEFT JOIN orders o ON o.id = c.order_id"
        " WHERE (c.state IN ('held', 'delivered')) <> (o.id IS NOT NULL)"
        " OR o.sku <> c.sku OR (c.state = 'held' AND o.state <> 'pending')"
    ):
        yield (
            f"{row['sku']}: card {row['id']} is {row['state']} for order {row['order_id']}, "
            f"which is {row['order_state'] or 'unknown'} and of {row['order_sku'] or 'nothing'}"
        )
    for row in evidence.rows(
        "SELECT o.id, o.quantity, count(c.id) AS held FROM orders o LEFT JOIN cards c"
        " ON c.order_id = o.id AND c.state = 'held' WHERE o.state = 'pending' GROUP BY o.id"
        " HAVING count(c.id) <> o.quantity"
    ):
        yield f"pending order {row['id']} of {row['quantity']} holds {row['held']} cards"


def i2(evidence: Evidence) -> Iterator[str]:
    """Redis free + holds not yet persisted = available cards; Redis free ≥ 0."""
    stock = evidence.stock
    (counting,) = evidence.rows("SELECT epoch FROM stock_epoch") or [{"epoch": None}]
    if stock.epoch != counting["epoch"]:
        yield f"Redis has the stock of epoch {stock.epoch}, SQL of {counting['epoch']}: admission is closed"
        return
    open_holds = [hold for hold in stock.holds.values() if hold.state == "held"]
    taken = {
        row["id"]
        for row in evidence.rows(
            "SELECT id::text FROM orders WHERE id::text = ANY(%s) AND state = ANY(%s)",
            [hold.order_id for hold in open_holds],
            list(TAKEN),
        )
    }
    unsettled: Counter[str] = Counter()
    for hold in open_holds:
        if hold.order_id not in taken:
            unsettled[hold.sku] += hold.quantity
        if not hold.due:
            yield f"{hold.sku}: the hold of order {hold.order_id} is open, and nobody will ever end it"
    counted = evidence.rows(
        "SELECT p.sku, count(c.id) AS available FROM products p"
        " LEFT JOIN cards c ON c.sku = p.sku AND c.state = 'available' GROUP BY p.sku ORDER BY p.sku"
    )
    for sku in sorted(stock.free.keys() - {row["sku"] for row in counted}):
        yield f"{sku}: Redis has {stock.free[sku]} free of what is no product"
    for row in counted:
        sku, free = row["sku"], stock.free.get(row["sku"], 0)
        if free < 0:
            yield f"{sku}: Redis has {free} free"
        if free + unsettled[sku] != row["available"]:
            yield (
                f"{sku}: Redis has {free} free and {unsettled[sku]} in holds not yet persisted, "
                f"SQL has {row['available']} available"
            )


def i3(evidence: Evidence) -> Iterator[str]:
    """Σ quantity of delivered orders = deliveries = delivered cards."""
    for row in evidence.rows(
        "SELECT p.sku,"
        " (SELECT coalesce(sum(quantity), 0) FROM orders o"
        "  WHERE o.sku = p.sku AND o.state = 'delivered') AS sold,"
        " (SELECT count(*) FROM deliveries d JOIN cards c ON c.id = d.card_id"
        "  WHERE c.sku = p.sku) AS deliveries,"
        " (SELECT count(*) FROM cards c WHERE c.sku = p.sku AND c.state = 'delivered') AS cards"
        " FROM products p ORDER BY p.sku"
    ):
        if not row["sold"] == row["deliveries"] == row["cards"]:
            yield (
                f"{row['sku']}: delivered orders are for {row['sold']}, "
                f"there are {row['deliveries']} deliveries and {row['cards']} delivered cards"
            )
    for row in evidence.rows(
        "SELECT d.card_id, d.order_id, c.order_id AS card_order, c.state FROM deliveries d"
        " JOIN cards c ON c.id = d.card_id WHERE c.state <> 'delivered' OR c.order_id <> d.order_id"
    ):
        yield (
            f"card {row['card_id']} was delivered to order {row['order_id']} "
            f"but is {row['state']} for {row['card_order']}"
        )


def i4(evidence: Evidence) -> Iterator[str]:
    """Deliveries per card ≤ 1; deliveries per order ∈ {0, its quantity}."""
    for row in evidence.rows(
        "SELECT card_id, count(*) AS n FROM deliveries GROUP BY card_id HAVING count(*) > 1"
    ):
        yield f"card {row['card_id']} was delivered {row['n']} times"
    for row in evidence.rows(
        "SELECT o.id, o.quantity, o.state, count(d.card_id) AS n FROM orders o"
        " LEFT JOIN deliveries d ON d.order_id = o.id GROUP BY o.id"
        " HAVING count(d.card_id) <> CASE WHEN o.state = 'delivered' THEN o.quantity ELSE 0 END"
    ):
        yield f"order {row['id']} of {row['quantity']} is {row['state']} and has {row['n']} deliveries"


def i8(evidence: Evidence) -> Iterator[str]:
    """Expired or refunded orders hold no card."""
    for row in evidence.rows(
        "SELECT o.id, o.state, count(*) AS n FROM orders o JOIN cards c ON c.order_id = o.id"
        " WHERE o.state IN ('expired', 'refunding', 'refunded') GROUP BY o.id"
    ):
        yield f"order {row['id']} is {row['state']} and still holds {row['n']} cards"
    open_holds = [hold.order_id for hold in evidence.stock.holds.values() if hold.state == "held"]
    for row in evidence.rows(
        "SELECT id, state FROM orders WHERE id::text = ANY(%s)"
        " AND state IN ('expired', 'refunding', 'refunded')",
        open_holds,
    ):
        yield f"order {row['id']} is {row['state']}, and Redis still keeps stock for it"


def i9(evidence: Evidence) -> Iterator[str]:
    """Per user and SKU: delivered + open ≤ the cap."""
    known = {row["id"] for row in evidence.rows("SELECT id::text FROM orders")}
    total: Counter[tuple[str, str]] = Counter()
    for row in evidence.rows(
        "SELECT sku, user_id, sum(quantity)::bigint AS n FROM orders WHERE state = ANY(%s)"
        " GROUP BY sku, user_id",
        list(TAKEN),
    ):
        total[row["sku"], row["user_id"]] += row["n"]
    for hold in evidence.stock.holds.values():
        if hold.state == "held" and hold.order_id not in known:
            total[hold.sku, hold.user] += hold.quantity
    caps = {
        row["sku"]: row["per_user_cap"] for row in evidence.rows("SELECT sku, per_user_cap FROM products")
    }
    for (sku, user), n in sorted(total.items()):
        if n > caps.get(sku, 0):
            yield f"{sku}: user {user} has {n}, the cap is {caps.get(sku, 0)}"
