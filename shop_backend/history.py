"""The states of an order and the allowed steps between them."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from shop_backend.metrics import ORDERS
from shop_backend.storage.database import Connection

STEPS: frozenset[tuple[str | None, str]] = frozenset(
    {
        (None, "pending"),
        ("pending", "paid"),
        ("pending", "expired"),
        ("expired", "paid"),
        ("paid", "delivered"),
        ("paid", "refunding"),
        ("refunding", "refunded"),
    }
)


class IllegalStep(Exception):  # noqa: N818 - reads as what it says
    """The order is not in the state the step begins at; the transaction must not commit."""


async def step(connection: Connection, reasons: Mapping[str, str], path: Sequence[str | None]) -> None:
    """Move orders along states, in the caller's transaction; guarded by the state they should be in.

    Args:
        connection: inside a transaction.
        reasons: by order id, why it moves.
        path: the same for all.

    Raises:
        IllegalStep: one is in another state, or the path is not allowed.
    """
    steps = list(itertools.pairwise(path))
    if any(each not in STEPS for each in steps):
        raise IllegalStep(f"{' -> '.join(map(str, path))} is no path, for orders {', '.join(reasons)}")
    cursor = await connection.execute(
        "UPDATE orders SET state = %s, closed_at = clock_timestamp() WHERE id = ANY(%s::uuid[])"
        " AND state = %s",
        (path[-1], list(reasons), path[0]),
    )
    if cursor.rowcount != len(reasons):
        raise IllegalStep(f"not every one of these orders is {path[0]}: {', '.join(reasons)}")
    events = [(order_id, *each, why) for order_id, why in reasons.items() for each in steps]
    await connection.execute(
        "INSERT INTO order_events (order_id, from_state, to_state, reason)"
        " SELECT * FROM unnest(%s::uuid[], %s::text[], %s::text[], %s::text[])",
        [list(column) for column in zip(*events, strict=True)],
    )


def count(states: Sequence[str | None]) -> None:
    """Count states that were reached; after the commit."""
    for state in states:
        if state is not None:
            ORDERS.labels(state).inc()
