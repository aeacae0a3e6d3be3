"""What a rehearsal sells: a product of its own with keys made up for it, or one that is there."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass

import psycopg

from ops.errors import OpsError, Unreachable
from ops.logs import one_line

SKU = "rehearsal"
# It is on no shelf, and its sale ends by itself: a rehearsal that is killed takes nothing back.
_MAKE = """
INSERT INTO products (sku, name, kind, brand, description, price_cents, list_price_cents, currency,
                      sale_ends_at, per_user_cap, image, featured, position, listed)
VALUES (%s, 'Rehearsal', 'rehearsal', 'Tidegate', 'Not for sale: a rehearsal goes on.', 100, 100, 'EUR',
        clock_timestamp() + make_interval(secs => %s), 1, 'icon.svg', false, 1000000, false)
ON CONFLICT (sku) DO UPDATE SET sale_ends_at = excluded.sale_ends_at, listed = false
"""


@dataclass(frozen=True, slots=True)
class Cards:
    """What there is of a product.

    Attributes:
        free: to be sold.
        held: for unpaid orders of before; each may come back.
    """

    free: int
    held: int


def cards_of(environment: Mapping[str, str], sku: str) -> Cards:
    """How many cards of a product are there.

    Raises:
        OpsError: there is no such product.
        Unreachable: the database does not answer.
    """
    with _sql(environment) as connection:
        known = connection.execute("SELECT EXISTS (SELECT FROM products WHERE sku = %s)", (sku,)).fetchone()
        if not known or not known[0]:
            raise OpsError(f"there is no product {sku}; leave --sku out to rehearse with one made for it")
        row = connection.execute(
            "SELECT count(*) FILTER (WHERE state = 'available'), count(*) FILTER (WHERE state = 'held')"
            " FROM cards WHERE sku = %s",
            (sku,),
        ).fetchone()
    return Cards(*row) if row else Cards(0, 0)


def open_sale(environment: Mapping[str, str], cards: int, seconds: float) -> Cards:
    """Put the rehearsal's own product on sale with so many keys, or with what was left if that is more.

    Args:
        environment: of the stack.
        cards: how many keys.
        seconds: after which the sale is over, also when nobody closes it.

    Raises:
        OpsError: they could not be imported.
        Unreachable: the database does not answer.
    """
    with _sql(environment) as connection:
        connection.execute(_MAKE, (SKU, seconds))
    left = cards_of(environment, SKU)
    _import(environment, max(0, cards - left.free))
    return Cards(max(cards, left.free), left.held)


def close_sale(environment: Mapping[str, str]) -> None:
    """Take it off sale; what was not sold waits for the next rehearsal.

    Raises:
        OpsError: the stock did not hear of it.
        Unreachable: the database does not answer.
    """
    with _sql(environment) as connection:
        connection.execute("UPDATE products SET sale_ends_at = clock_timestamp() WHERE sku = %s", (SKU,))
    _import(environment, 0)  # an import tells the stock in Redis of every product's window


def _import(environment: Mapping[str, str], count: int) -> None:
    with tempfile.NamedTemporaryFile("w", suffix=".csv", encoding="utf-8") as file:
        file.write(
            "sku,secret\n" + "".join(f"{SKU},REHEARSAL-{secrets.token_hex(12)}\n" for _ in range(count))
        )
        file.flush()
        argv = [sys.executable, "-m", "shop_backend", "import-cards", file.name]
        done = subprocess.run(
            argv, env={**os.environ, **environment}, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise OpsError(f"the rehearsal's cards could not be imported: {one_line(done.stderr or done.stdout)}")


def _sql(environment: Mapping[str, str]) -> psycopg.Connection:
    try:
        return psycopg.connect(environment["TIDEGATE_DATABASE_URL"], connect_timeout=5)
    except psycopg.Error as error:
        raise Unreachable(f"the database does not answer: {one_line(error)}") from error
