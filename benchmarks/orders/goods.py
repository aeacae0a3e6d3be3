"""What is sold in these runs: one product that everybody wants, and its keys."""

from __future__ import annotations

import csv
from pathlib import Path

SKU = "flash"
PRICE = 999  # cents
_COLUMNS = (
    "sku name kind brand description price_cents list_price_cents currency sale_starts_at sale_ends_at"
    " per_user_cap image featured"
)


def write_catalogue(folder: Path, cards: int) -> Path:
    """products.csv and cards.csv, as the shop's `seed` reads them."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "products.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(_COLUMNS.split())
        out.writerow(
            [
                SKU,
                "Flash",
                "card",
                "Bench",
                "A card.",
                PRICE,
                PRICE,
                "EUR",
                "",
                "",
                5,
                "steam-50.svg",
                "false",
            ]
        )
    with (folder / "cards.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file)
        out.writerow(["sku", "secret"])
        out.writerows((SKU, f"FLASH-{number:07d}") for number in range(cards))
    return folder
