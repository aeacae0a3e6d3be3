"""The invariant of what buyers are told: I11."""

from __future__ import annotations

from collections.abc import Iterator

from ops.audit.evidence import Evidence


def i11(evidence: Evidence) -> Iterator[str]:
    """One outbox row per delivery, each sent or dead-lettered."""
    for row in evidence.rows(
        "SELECT d.card_id, d.order_id, count(b.id) AS n FROM deliveries d LEFT JOIN outbox b"
        " ON b.card_id = d.card_id AND b.order_id = d.order_id AND b.channel = 'mail'"
        " GROUP BY d.card_id, d.order_id"
        " HAVING count(b.id) <> 1"
    ):
        yield f"the delivery of card {row['card_id']} to order {row['order_id']} has {row['n']} outbox rows"
    for row in evidence.rows(
        "SELECT o.id, count(b.id) AS n FROM orders o LEFT JOIN outbox b ON b.order_id = o.id"
        " AND b.channel = 'sms' AND b.occasion = 'delivered' WHERE o.state = 'delivered'"
        " GROUP BY o.id, o.phone HAVING count(b.id) <> CASE o.phone WHEN '' THEN 0 ELSE 1 END"
    ):
        yield f"the delivery of order {row['id']} has {row['n']} text messages"
    for row in evidence.rows(
        "SELECT r.payment_id, r.order_id, count(b.id) AS n FROM refunds r LEFT JOIN outbox b"
        " ON b.payment_id = r.payment_id AND b.order_id = r.order_id AND b.channel = 'mail'"
        " GROUP BY r.provider, r.payment_id, r.order_id HAVING count(b.id) <> 1"
    ):
        yield f"the refund of {row['payment_id']} of order {row['order_id']} has {row['n']} outbox rows"
    for row in evidence.rows(
        "SELECT b.id, b.card_id FROM outbox b LEFT JOIN deliveries d ON d.card_id = b.card_id"
        " AND d.order_id = b.order_id WHERE d.card_id IS NULL AND b.occasion = 'delivered'"
    ):
        yield f"outbox row {row['id']} tells about card {row['card_id']}, which was not delivered"
    for row in evidence.rows(
        "SELECT b.id, b.order_id, b.channel FROM outbox b JOIN orders o ON o.id = b.order_id"
        " WHERE b.recipient <> CASE b.channel WHEN 'sms' THEN o.phone ELSE o.email END"
    ):
        yield f"outbox row {row['id']} goes by {row['channel']} to somebody else than order {row['order_id']}"
    for row in evidence.rows(
        "SELECT id, order_id, attempts, state FROM outbox WHERE state NOT IN ('sent', 'dead')"
        " OR (state = 'sent' AND sent_at IS NULL) OR (state = 'dead' AND coalesce(error, '') = '')"
    ):
        name = f"outbox row {row['id']} of order {row['order_id']}"
        if row["state"] == "sent":
            yield f"{name} is sent, and nobody knows when"
        elif row["state"] == "dead":
            yield f"{name} was given up without a reason"
        else:
            yield f"{name} is unsent after {row['attempts']} attempts"
