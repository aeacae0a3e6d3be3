"""Invariants of orders and streams: I7, I10, I12."""

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


def i7(evidence: Evidence) -> Iterator[str]:
    """Every order id ever answered 202 is in SQL or dead-lettered; no order there that nobody asked for."""
    in_sql = {row["id"] for row in evidence.rows("SELECT id::text FROM orders")}
    letters = evidence.rows(
        "SELECT order_id::text, replayed_at FROM dead_letters WHERE order_id IS NOT NULL"
        " AND stream LIKE '%%orders'",  # a callback that was given up is no answer to its buyer
    )
    # A letter that was replayed is queued again: in the end the order is in SQL, or has another letter.
    dead = {row["order_id"] for row in letters if row["replayed_at"] is None}
    holds = evidence.stock.holds
    asked = holds.keys() | evidence.answered | {row["order_id"] for row in letters}
    for order_id in sorted(asked - in_sql - dead):
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
        "SELECT d.stream, d.entry_id, d.order_id::text, d.error, o.state FROM dead_letters d"
        " LEFT JOIN orders o ON o.id = d.order_id WHERE d.replayed_at IS NULL"
    ):
        name = f"dead letter {row['entry_id']} of {row['stream']}"
        hold = evidence.stock.holds.get(row["order_id"] or "")
        if row["stream"].endswith("orders"):
            if hold is not None and hold.state == "held":
                yield f"{name}: the hold of order {hold.order_id} is not released"
            if row["state"] is not None:
                yield f"{name}: order {row['order_id']} was given up, and it is {row['state']} in SQL"
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
