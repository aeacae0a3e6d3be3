"""What a rehearsal sells: a product of its own with keys made up for it, or one that is there."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import tempfile
from collections.abc import Mapping

import psycopg

from ops.errors import OpsError, Unreachable
from ops.logs import one_line

SKU = "rehearsal"
_MAKE = """
INSERT INTO products (sku, name, kind, brand, description, price_cents, list_price_cents, currency,
                      per_user_cap, image, featured, position)
VALUES (%s, 'Rehearsal', 'rehearsal', 'Tidegate', 'Not for sale: a rehearsal goes on.', 100, 100, 'EUR',
        1, 'icon.svg', false, 1000000)
ON CONFLICT (sku) DO UPDATE SET sale_ends_at = NULL
"""


def cards_of(environment: Mapping[str, str], sku: str) -> int:
    """How many cards of a product are there to be sold.

    Raises:
        OpsError: there is no such product.
        Unreachable: the database does not answer.
    """
    with _sql(environment) as connection:
        known = connection.execute("SELECT EXISTS (SELECT FROM products WHERE sku = %s)", (sku,)).fetchone()
        if not known or not known[0]:
            raise OpsError(f"there is no product {sku}; leave --sku out to rehearse with one made for it")
        row = connection.execute(
            "SELECT count(*) FROM cards WHERE sku = %s AND state = 'available'", (sku,)
        ).fetchone()
    return int(row[0]) if row else 0


def open_sale(environment: Mapping[str, str], cards: int) -> int:
    """Put the rehearsal's own product on sale with so many keys, or with what was left if that is more.

    Returns:
        How many there are.

    Raises:
        OpsError: they could not be imported.
        Unreachable: the database does not answer.
    """
    with _sql(environment) as connection:
        connection.execute(_MAKE, (SKU,))
    left = cards_of(environment, SKU)
    _import(environment, max(0, cards - left))
    return max(cards, left)


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
