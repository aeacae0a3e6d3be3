"""Filling an empty shop: products and card keys from the catalogue's CSV files."""

from __future__ import annotations

import csv
from pathlib import Path

import psycopg
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, field_validator

from shop_backend.cards import Summary, import_cards
from shop_backend.errors import SetupError
from shop_backend.vault import Vault

_SEED_LOCK = 7203003  # advisory: two processes starting at once seed once


class ProductRow(BaseModel):
    """One line of products.csv."""

    model_config = ConfigDict(extra="forbid")

    sku: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    name: str = Field(min_length=1, max_length=200)
    kind: str = Field(min_length=1, max_length=100)
    brand: str = Field(min_length=1, max_length=100)
    description: str = Field(max_length=5000)
    price_cents: int = Field(gt=0, lt=10**8)
    list_price_cents: int = Field(gt=0, lt=10**8)
    currency: str = Field(pattern=r"^[A-Z]{3}$")
    sale_starts_at: AwareDatetime | None
    sale_ends_at: AwareDatetime | None
    per_user_cap: int = Field(ge=1, le=1000)
    image: str = Field(max_length=200)
    featured: bool
    listed: bool = True

    @field_validator("sale_starts_at", "sale_ends_at", mode="before")
    @classmethod
    def _empty_is_open(cls, value: object) -> object:
        return None if value == "" else value


def read_products(path: Path) -> list[ProductRow]:
    """The catalogue's products.

    Raises:
        SetupError: the file can't be read; each bad line is named.
    """
    rows: list[ProductRow] = []
    mistakes: list[str] = []
    try:
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            for record in reader:
                try:
                    rows.append(ProductRow.model_validate(record))
                except ValidationError as error:
                    mistakes += [
                        f"{path}:{reader.line_num}: {'.'.join(map(str, e['loc']))}: {e['msg']}"
                        for e in error.errors()
                    ]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise SetupError(f"{path}: {error}") from error
    if mistakes:
        raise SetupError("\n".join(mistakes))
    return rows


def seed(folder: Path, connection: psycopg.Connection, vault: Vault) -> Summary | None:
    """Import the catalogue when the shop has no products, or lost its way between products and cards.

    Returns:
        The cards' summary, or None when there was nothing to do.

    Raises:
        SetupError: a file can't be read or has mistakes.
    """
    connection.execute("SELECT pg_advisory_lock(%s)", (_SEED_LOCK,))
    connection.commit()
    try:
        found = connection.execute(
            "SELECT EXISTS (SELECT FROM products) AND EXISTS (SELECT FROM cards)"
        ).fetchone()
        connection.commit()
        if found and found[0]:
            return None
        products = read_products(folder / "products.csv")
        with connection.transaction():
            for position, row in enumerate(products):
                values = row.model_dump() | {"position": position}
                names = ", ".join(values)
                marks = ", ".join(f"%({name})s" for name in values)
                connection.execute(
                    f"INSERT INTO products ({names}) VALUES ({marks}) ON CONFLICT DO NOTHING",  # noqa: S608 - our own column names
                    values,
                )
        return import_cards(folder / "cards.csv", connection, vault, actor="seed", reason="an empty shop")
    finally:
        connection.execute("SELECT pg_advisory_unlock(%s)", (_SEED_LOCK,))
        connection.commit()
