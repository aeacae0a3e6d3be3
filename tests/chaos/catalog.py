"""The goods of a chaos sale: one product that sells out, two that don't."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Product:
    """One product; `price` in cents, `cap` per buyer."""

    sku: str
    cards: int
    cap: int
    price: int


PRODUCTS = (
    Product("flash", 60, 1, 999),
    Product("plenty", 4000, 5, 4500),
    Product("scarce", 25, 3, 250),
)

_COLUMNS = (
    "sku name kind brand description price_cents list_price_cents currency sale_starts_at sale_ends_at"
    " per_user_cap image featured"
)


def keys() -> dict[str, str]:
    """Every card key there is, and its product."""
    return {
        f"{product.sku.upper()}-{number:06d}": product.sku
        for product in PRODUCTS
        for number in range(product.cards)
    }


def write(folder: Path) -> Path:
    """products.csv and cards.csv, as `shop_backend seed` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "products.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(_COLUMNS.split())
        for p in PRODUCTS:
            price, end = (p.price, p.price, "EUR", "", ""), (p.cap, "steam-50.svg", "false")
            out.writerow([p.sku, p.sku.title(), "card", "Chaos", "A card.", *price, *end])
    with (folder / "cards.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["sku", "secret"])
        out.writerows((sku, key) for key, sku in keys().items())
    return folder
