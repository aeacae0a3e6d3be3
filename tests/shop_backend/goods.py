"""What the shop of the tests sells."""

from __future__ import annotations

import base64
import csv
from pathlib import Path

import psycopg

from shop_backend.config import Settings
from shop_backend.seed import ProductRow, seed
from shop_backend.vault import Vault

CARD_KEY = "k1:" + base64.urlsafe_b64encode(b"k" * 32).decode()

# sku, cards, cap, window
PRODUCTS: list[tuple[str, int, int, str, str]] = [
    ("plain", 50, 5, "", ""),
    ("flash", 100, 1, "2026-01-01T00:00:00Z", "2036-01-01T00:00:00Z"),
    ("single", 1, 3, "", ""),
    ("early", 5, 5, "2035-01-01T00:00:00Z", ""),
    ("over", 5, 5, "2020-01-01T00:00:00Z", "2020-02-01T00:00:00Z"),
]


def write_catalog(folder: Path) -> Path:
    """products.csv and cards.csv of the tests' products; every key begins with CANARY."""
    folder.mkdir(exist_ok=True)
    with (folder / "products.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(ProductRow.model_fields)
        for sku, _, cap, starts, ends in PRODUCTS:
            out.writerow(
                [
                    sku,
                    sku.title(),
                    "card",
                    "Brand",
                    "Text",
                    1000,
                    2000,
                    "EUR",
                    starts,
                    ends,
                    cap,
                    "i.svg",
                    "true",
                    "true",
                ]
            )
    with (folder / "cards.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["sku", "secret"])
        for sku, cards, *_ in PRODUCTS:
            out.writerows([sku, f"CANARY-{sku}-{number:04d}"] for number in range(cards))
    return folder


def fill(settings: Settings) -> None:
    """Seed the catalogue of the tests."""
    with psycopg.connect(settings.require("database_url")) as connection:
        seed(settings.catalog.directory, connection, Vault(CARD_KEY))
