"""Invariants of orders and money: I5 to I7, I10, I12."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator

from ops.audit.evidence import Evidence

EDGES = frozenset(
    {
        (None, "pending"),
        ("pending", "paid"),
        ("pending", "expired"),
        ("expired", "paid"),  # success beats expired
        ("paid", "delivered"),
        ("paid", "refunding"),
        ("refunding", "refunded"),
    }
)


def i5(evidence: Evidence) -> Iterator[str]:
    """Every captured payment funded exactly one delivery or is refunded exactly once."""
    for row in evidence.rows(
        "SELECT p.payment_id, p.order_id, p.amount_cents, p.currency, p.disposition, o.state,"
        " o.amount_cents AS price, o.currency AS order_currency, count(r.payment_id) AS refunds,"
        " coalesce(sum(r.amount_cents), 0) AS refunded FROM payments p JOIN orders o ON o.id = p.order_id"
        " LEFT JOIN refunds r ON r.provider = p.provider AND r.payment_id = p.payment_id"
        " WHERE p.outcome = 'succeeded' GROUP BY p.provider, p.payment_id, p.outcome, o.id"
    ):
        name = f"payment {row['payment_id']} of order {row['order_id']}"
        if row["disposition"] == "delivered":
            if row["state"] != "delivered":
                yield f"{name} was captured for a delivery, but the order is {row['state']}"
            if (row["amount_cents"], row["currency"]) != (row["price"], row["order_currency"]):
                yield f"{name} is {row['amount_cents']} {row['currency']}, the price {row['price']}"
            if row["refunds"]:
                yield f"{name} funded a delivery and was refunded too"
        elif row["disposition"] != "refund":
            yield f"{name} was captured but is filed as {row['disposition']}"
        elif row["refunds"] != 1 or row["refunded"] != row["amount_cents"]:
            yield f"{name} of {row['amount_cents']} has {row['refunds']} refunds of {row['refunded']} in all"
    for row in evidence.rows(
        "SELECT o.id, count(p.payment_id) AS n FROM orders o LEFT JOIN payments p ON p.order_id = o.id"
        " AND p.outcome = 'succeeded' AND p.disposition = 'delivered' WHERE o.state = 'delivered'"
        " GROUP BY o.id HAVING count(p.payment_id) <> 1"
    ):
        yield f"order {row['id']} was delivered and has {row['n']} payments that funded it"
    (sums,) = evidence.rows(
        "SELECT (SELECT coalesce(sum(amount_cents), 0) FROM payments"
        "  WHERE outcome = 'succeeded') AS captured,"
        " (SELECT coalesce(sum(amount_cents), 0) FROM orders WHERE state = 'delivered') AS delivered,"
        " (SELECT coalesce(sum(amount_cents), 0) FROM refunds) AS refunds"
    )
    if sums["captured"] != sums["delivered"] + sums["refunds"]:
        yield (
            f"{sums['captured']} cents were captured, {sums['delivered']} delivered, "
            f"{sums['refunds']} refunded or being refunded"
        )


def i6(evidence: Evidence) -> Iterator[str]:
    """The provider's captures = the successes we recorded, both ways."""
    ours = {
        row["payment_id"]: row
        for row in evidence.rows(
            "SELECT p.payment_id, p.order_id::text, p.amount_cents, r.state AS refund"
            " FROM payments p LEFT JOIN refunds r ON r.provider = p.provider AND r.payment_id = p.payment_id"
            " WHERE p.outcome = 'succeeded' AND p.provider = 'sandbox'"  # whose ledger was read
        )
    }
    theirs = {capture.payment_id: capture for capture in evidence.captures}
    for payment_id in sorted(theirs.keys() - ours.keys()):
        capture = theirs[payment_id]
        yield (
            f"the provider captured {capture.amount_cents} as {payment_id} for order {capture.order_id}; "
            "we did not record it"
        )
    for payment_id in sorted(ours.keys() - theirs.keys()):
        order_id = ours[payment_id]["order_id"]
        yield f"we recorded {payment_id} for order {order_id}; the provider has no such capture"
    for payment_id in sorted(ours.keys() & theirs.keys()):
        row, capture = ours[payment_id], theirs[payment_id]
        if (row["order_id"], row["amount_cents"]) != (capture.order_id, capture.amount_cents):
            yield (
                f"{payment_id}: we have {row['amount_cents']} for order {row['order_id']}, "
                f"the provider {capture.amount_cents} for {capture.order_id}"
            )
        if row["refund"] == "refunded" and capture.refunded_cents != capture.amount_cents:
            yield f"{payment_id}: we say refunded, the provider gave back {capture.refunded_cents}"
        if row["refund"] is None and capture.refunded_cents:
            yield f"{payment_id}: the provider gave back {capture.refunded_cents} that we never asked for"


def i7(evidence: Evidence) -> Iterator[str]:
    """Every order id ever answered 202 is in SQL or dead-lettered; no order there that nobody asked for."""
    in_sql = {row["id"] for row in evidence.rows("SELECT id::text FROM orders")}
    dead = {
        row["order_id"]
        for row in evidence.rows("SELECT order_id::text FROM dead_letters WHERE order_id IS NOT NULL")
    }
    holds = evidence.stock.holds
    for order_id in sorted((holds.keys() | evidence.answered) - in_sql - dead):
        yield f"order {order_id} was answered 202 and is neither in SQL nor among the dead letters"
    # Holds are remembered for long after they close: an order without any was never reserved.
    for row in evidence.rows(
        "SELECT id::text FROM orders WHERE state = 'pending' OR created_at > now() - interval '1 hour'"
    ):
        if row["id"] not in holds and row["id"] not in evidence.answered:
            yield f"order {row['id']} is in SQL, but nobody reserved it"


def i10(evidence: Evidence) -> Iterator[str]:
    """Streams: nothing pending, no lag; every dead letter accounted for, its hold released."""
    for stream in evidence.stock.streams:
        if stream.length or stream.pending or stream.lag:
            yield (
                f"stream {stream.name}: {stream.length} entries, {stream.pending} pending, lag {stream.lag}; "
                "is a worker running?"
            )
    for row in evidence.rows(
        "SELECT stream, entry_id, order_id::text, error FROM dead_letters WHERE replayed_at IS NULL"
    ):
        name = f"dead letter {row['entry_id']} of {row['stream']}"
        hold = evidence.stock.holds.get(row["order_id"] or "")
        if row["stream"].endswith("orders") and hold is not None and hold.state == "held":
            yield f"{name}: the hold of order {hold.order_id} is not released"
        if not row["error"]:
            yield f"{name} has no reason"


def i12(evidence: Evidence) -> Iterator[str]:
    """Every order's history is a path of the allowed state graph; refunds per payment ≤ 1."""
    events = evidence.rows(
        "SELECT o.id::text, o.state, e.from_state, e.to_state FROM orders o"
        " LEFT JOIN order_events e ON e.order_id = o.id ORDER BY o.id, e.id"
    )
    for order_id, group in itertools.groupby(events, key=lambda row: row["id"]):
        at: str | None = None
        for row in group:
            if row["to_state"] is None:
                continue  # the outer join's row of an order without events
            if row["from_state"] != at:
                yield f"order {order_id} was {at or 'new'}, then a step begins at {row['from_state']}"
            if (row["from_state"], row["to_state"]) not in EDGES:
                yield f"order {order_id} went from {row['from_state'] or 'new'} to {row['to_state']}"
            at = row["to_state"]
        if at != row["state"]:
            yield f"order {order_id} is {row['state']}, its history ends at {at or 'nothing'}"
    refunds = Counter(
        (row["provider"], row["payment_id"])
        for row in evidence.rows("SELECT provider, payment_id FROM refunds")
    )
    for (provider, payment_id), n in refunds.items():
        if n > 1:
            yield f"payment {payment_id} of {provider} has {n} refunds"
