"""The states of an order and the allowed steps between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

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


async def step(connection: Connection, order_id: str, path: Sequence[str | None], reason: str) -> None:
    """Move an order along states, in the caller's transaction; guarded by the state it should be in.

    Raises:
        IllegalStep: it is in another state, or the path is not allowed.
    """
    steps = list(itertools.pairwise(path))
    if any(each not in STEPS for each in steps):
        raise IllegalStep(f"order {order_id}: {' -> '.join(map(str, path))} is no path")
    cursor = await connection.execute(
        "UPDATE orders SET state = %s, closed_at = clock_timestamp() WHERE id = %s AND state = %s",
        (path[-1], order_id, path[0]),
    )
    if cursor.rowcount != 1:
        raise IllegalStep(f"order {order_id} is not {path[0]}")
    for before, after in steps:
        await connection.execute(
            "INSERT INTO order_events (order_id, from_state, to_state, reason) VALUES (%s, %s, %s, %s)",
            (order_id, before, after, reason),
        )


def count(states: Sequence[str | None]) -> None:
    """Count states that were reached; after the commit."""
    for state in states:
        if state is not None:
            ORDERS.labels(state).inc()
