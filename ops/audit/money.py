"""Invariants of money: I5, I6."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ops.audit.evidence import Evidence, Row
from ops.audit.ledgers import Capture


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
    for row in evidence.rows(
        "SELECT r.provider, r.payment_id, r.order_id, p.order_id AS paid_for FROM refunds r"
        " LEFT JOIN payments p ON p.provider = r.provider AND p.payment_id = r.payment_id"
        " AND p.outcome = 'succeeded' WHERE p.order_id IS DISTINCT FROM r.order_id"
    ):
        yield (
            f"the refund of {row['payment_id']} for order {row['order_id']} gives back "
            f"{'another order' if row['paid_for'] else 'what was never captured'}"
        )
    for row in evidence.rows(
        "SELECT o.id, o.state FROM orders o WHERE o.state IN ('refunding', 'refunded') AND NOT EXISTS"
        " (SELECT FROM refunds r WHERE r.order_id = o.id"
        # What was given back may come back from the bank: failed, and an operator's turn.
        "  AND (o.state = 'refunding' OR r.state IN ('refunded', 'failed')))"
    ):
        yield f"order {row['id']} is {row['state']}, and no refund says so"
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
        (row["provider"], row["payment_id"]): row
        for row in evidence.rows(
            "SELECT p.provider, p.payment_id, p.order_id::text, p.amount_cents, p.currency,"
            " r.state AS refund FROM payments p LEFT JOIN refunds r ON r.provider = p.provider"
            " AND r.payment_id = p.payment_id WHERE p.outcome = 'succeeded'"
        )
    }
    books = evidence.books
    theirs = {(each.provider, each.payment_id): each for each in books.captures}
    times = Counter((each.provider, each.payment_id) for each in books.captures)
    for (_, payment_id), n in sorted(times.items()):
        if n > 1:
            yield f"the provider has {payment_id} {n} times"
    for name in sorted(theirs.keys() - ours.keys()):
        capture = theirs[name]
        yield (
            f"the provider captured {capture.amount_cents} as {capture.payment_id} for order "
            f"{capture.order_id}; we did not record it"
        )
    for name in sorted(ours.keys() - theirs.keys()):
        provider, payment_id = name
        if provider in books.read:
            order_id = ours[name]["order_id"]
            yield f"we recorded {payment_id} for order {order_id}; the provider has no such capture"
    used = {str(row["provider"]) for row in evidence.rows("SELECT DISTINCT provider FROM orders")}
    for provider in sorted((used | {provider for provider, _ in ours}) - books.read):
        variable = "TIDEGATE_STRIPE_API_KEY" if provider == "stripe" else "TIDEGATE_SANDBOX_URL"
        n = sum(each == provider for each, _ in ours)
        yield (
            f"the ledger of {provider} was not read, to compare {n} captures and find what we missed: "
            f"set {variable}"
        )
    for name in sorted(ours.keys() & theirs.keys()):
        yield from _differences(ours[name], theirs[name])


def _differences(row: Row, capture: Capture) -> Iterator[str]:
    """What a provider says otherwise about a capture than we do."""
    payment_id, given = capture.payment_id, capture.refunded_cents
    if (row["order_id"], row["amount_cents"], row["currency"]) != (
        capture.order_id,
        capture.amount_cents,
        capture.currency,
    ):
        yield (
            f"{payment_id}: we have {row['amount_cents']} {row['currency']} for order {row['order_id']}, "
            f"the provider {capture.amount_cents} {capture.currency} for {capture.order_id}"
        )
    if given > capture.amount_cents:
        yield f"{payment_id}: the provider gave back {given} of {capture.amount_cents}"
    elif row["refund"] == "refunded" and given != capture.amount_cents:
        yield f"{payment_id}: we say refunded, the provider gave back {given}"
    elif row["refund"] == "failed" and given:
        yield f"{payment_id}: we say the refund failed, the provider gave back {given}"
    elif row["refund"] is None and given:
        yield f"{payment_id}: the provider gave back {given} that we never asked for"
