"""Write the catalogue of the rehearsal shop: products.csv, cards.csv and the products' pictures.

    python config/catalog/generate.py

The same seed gives the same files, so that a second run changes nothing. Brands and keys are invented.
"""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
PICTURES = HERE.parents[1] / "shop_backend" / "pages" / "static"

# As on printed cards: no letter or digit that is taken for another (0 O 1 I).
ALPHABET = "ABCDEFGHJKLMNPQRSTUVWXYZ23456789"
SEED = 20261123
COLUMNS = (
    "sku",
    "name",
    "kind",
    "brand",
    "description",
    "price_cents",
    "list_price_cents",
    "currency",
    "sale_starts_at",
    "sale_ends_at",
    "per_user_cap",
    "image",
    "featured",
)


@dataclass(frozen=True)
class Product:
    """A line of products.csv and how many keys of which shape it has.

    Attributes:
        price: cents; list_price is what it costs outside the sale.
        window: first and last instant of its sale in RFC 3339, empty for "always".
        cap: pieces one buyer may have.
        shape: the key's groups of characters, e.g. (5, 5, 5).
        prefix: what every key of this brand starts with.
        hue: degrees on the colour wheel, for the picture.
        mark: the few characters written large on the picture.
    """

    sku: str
    name: str
    kind: str
    brand: str
    description: str
    price: int
    list_price: int
    keys: int
    shape: tuple[int, ...]
    hue: int
    mark: str
    window: tuple[str, str] = ("", "")
    cap: int = 3
    prefix: str = ""
    featured: bool = False


ALWAYS_ON = ("2026-01-01T00:00:00Z", "2036-01-01T00:00:00Z")

PRODUCTS = (
    Product(
        "flash-100",
        "Emberfall Season Pass, flash price",
        "season pass",
        "Emberfall",
        "One hundred season passes at a third of the price. One for each buyer, and when they are gone "
        "they are gone: all six chapters, the winter raid and 2,000 embers.",
        999,
        2999,
        100,
        (5, 5, 5),
        12,
        "100",
        ALWAYS_ON,
        cap=1,
        prefix="EMB",
        featured=True,
    ),
    Product(
        "steam-50",
        "Steamhold Wallet 50",
        "wallet",
        "Steamhold",
        "Fifty euros of credit for the Steamhold store. It pays for games and gifts, and never expires.",
        4500,
        5000,
        1200,
        (5, 5, 5),
        205,
        "50",
        ALWAYS_ON,
        cap=5,
        featured=True,
    ),
    Product(
        "steam-20",
        "Steamhold Wallet 20",
        "wallet",
        "Steamhold",
        "Twenty euros of credit for the Steamhold store: enough for an indie evening or two.",
        1900,
        2000,
        800,
        (5, 5, 5),
        190,
        "20",
        cap=5,
    ),
    Product(
        "steam-100",
        "Steamhold Wallet 100",
        "wallet",
        "Steamhold",
        "One hundred euros of credit for the Steamhold store, for the long list you keep for winter.",
        8800,
        10000,
        400,
        (5, 5, 5),
        222,
        "100",
        ALWAYS_ON,
        cap=2,
    ),
    Product(
        "nova-1000",
        "Novastrike 1,000 Cores",
        "top-up",
        "Novastrike",
        "A thousand cores for ships, skins and the battle track. Redeem in the hangar and play on at once.",
        899,
        999,
        700,
        (4, 4, 4, 4),
        265,
        "1K",
        prefix="N",
        cap=10,
        featured=True,
    ),
    Product(
        "nova-5000",
        "Novastrike 5,000 Cores",
        "top-up",
        "Novastrike",
        "Five thousand cores and the Perihelion trail, which is sold only with this pack.",
        3799,
        4499,
        400,
        (4, 4, 4, 4),
        282,
        "5K",
        ALWAYS_ON,
        prefix="N",
        cap=5,
    ),
    Product(
        "runes-30",
        "Runewarden 30 Days",
        "subscription",
        "Runewarden",
        "Thirty days of Runewarden with every realm open. It adds to the days you still have.",
        1299,
        1299,
        500,
        (4, 4, 4),
        150,
        "30",
        prefix="RW",
        cap=6,
    ),
    Product(
        "runes-180",
        "Runewarden 180 Days",
        "subscription",
        "Runewarden",
        "Half a year of Runewarden, with the Mossback mount for those who stay.",
        5999,
        7199,
        250,
        (4, 4, 4),
        132,
        "180",
        ALWAYS_ON,
        prefix="RW",
        cap=2,
    ),
    Product(
        "pixel-25",
        "Pixelport Gift Card 25",
        "gift card",
        "Pixelport",
        "Twenty-five euros for anything at Pixelport, for consoles, tablets and phones alike.",
        2500,
        2500,
        500,
        (4, 4, 4, 4),
        330,
        "25",
        cap=5,
    ),
    Product(
        "pixel-60",
        "Pixelport Gift Card 60",
        "gift card",
        "Pixelport",
        "Sixty euros for anything at Pixelport. The price of one big new game.",
        5700,
        6000,
        300,
        (4, 4, 4, 4),
        348,
        "60",
        cap=5,
        featured=True,
    ),
    Product(
        "quill-pro",
        "Quillbench Pro, one year",
        "licence",
        "Quillbench",
        "A year of the writing desk that stays out of the way: outlines, sources, clean export.",
        3900,
        5900,
        300,
        (5, 5, 5, 5, 5),
        40,
        "Pro",
        ALWAYS_ON,
        cap=1,
    ),
    Product(
        "frame-studio",
        "Framewright Studio, perpetual",
        "licence",
        "Framewright",
        "Cut, colour and sound in one window. Yours for good, with updates for two years.",
        14900,
        19900,
        200,
        (5, 5, 5, 5, 5),
        175,
        "FS",
        cap=1,
    ),
    Product(
        "harbor-vpn",
        "Harborline Shield, one year",
        "licence",
        "Harborline",
        "A private line on five devices for a year. No logs, no fuss, cancel by doing nothing.",
        2400,
        4800,
        300,
        (6, 6, 6),
        238,
        "5×",
        cap=2,
    ),
    Product(
        "emberfall-deluxe",
        "Emberfall Deluxe, release night",
        "game",
        "Emberfall",
        "The second Emberfall with the artbook and the score. The doors open on release night, not before.",
        5499,
        6999,
        150,
        (5, 5, 5),
        22,
        "II",
        ("2027-03-01T18:00:00Z", "2027-03-08T18:00:00Z"),
        cap=1,
        prefix="EMB",
    ),
)


def key(product: Product, draw: random.Random) -> str:
    """A key of the product's shape, e.g. `EMB7K-2MPQX-9HTRA`."""
    text = product.prefix + "".join(draw.choices(ALPHABET, k=sum(product.shape) - len(product.prefix)))
    groups, at = [], 0
    for length in product.shape:
        groups.append(text[at : at + length])
        at += length
    return "-".join(groups)


def picture(product: Product) -> str:
    """The product's card as SVG: its colour, waves of its own, brand and mark; no font is loaded."""
    draw = random.Random(product.sku)  # noqa: S311 - ornament
    hue = product.hue
    waves = []
    for layer in range(4):
        height, lift = 24 + 10 * layer, 230 + 42 * layer
        shift = draw.randrange(-160, 0)
        waves.append(
            f'<path d="M{shift} {lift} q100 {-height} 200 0 t200 0 t200 0 t200 0 V400 H{shift} Z" '
            f'fill="hsl({(hue + 14 * layer) % 360} 72% {46 - 7 * layer}%)" opacity=".55"/>'
        )
    cx, cy, radius = draw.randrange(430, 560), draw.randrange(60, 130), draw.randrange(60, 110)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 640 400" role="img" '
        f'aria-label="{product.brand} {product.mark}">'
        '<defs><linearGradient id="g" x1="0" y1="0" x2="1" y2="1">'
        f'<stop offset="0" stop-color="hsl({hue} 78% 58%)"/>'
        f'<stop offset="1" stop-color="hsl({(hue + 40) % 360} 70% 30%)"/></linearGradient></defs>'
        '<rect width="640" height="400" fill="url(#g)"/>'
        f'<circle cx="{cx}" cy="{cy}" r="{radius}" fill="#fff" opacity=".16"/>'
        f'<circle cx="{cx}" cy="{cy}" r="{radius * 2 // 3}" fill="#fff" opacity=".18"/>'
        + "".join(waves)
        + '<g fill="#fff" font-family="ui-sans-serif,system-ui,Segoe UI,Helvetica,Arial,sans-serif">'
        f'<text x="40" y="66" font-size="30" font-weight="600" letter-spacing="1">{product.brand}</text>'
        f'<text x="36" y="210" font-size="132" font-weight="800" letter-spacing="-4">{product.mark}</text>'
        f'<text x="40" y="360" font-size="24" opacity=".85">{product.kind}</text></g></svg>\n'
    )


def main() -> None:
    """Write every file anew."""
    draw = random.Random(SEED)  # noqa: S311 - keys of a rehearsal; the same files each time matter more
    seen: set[str] = set()
    with (HERE / "products.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(COLUMNS)
        for p in PRODUCTS:
            out.writerow(
                [
                    *(p.sku, p.name, p.kind, p.brand, p.description, p.price, p.list_price, "EUR"),
                    *(*p.window, p.cap, f"{p.sku}.svg", str(p.featured).lower()),
                ]
            )
    with (HERE / "cards.csv").open("w", newline="", encoding="utf-8") as file:
        out = csv.writer(file, lineterminator="\n")
        out.writerow(["sku", "secret"])
        for p in PRODUCTS:
            made = 0
            while made < p.keys:
                secret = key(p, draw)
                if secret not in seen:
                    seen.add(secret)
                    out.writerow([p.sku, secret])
                    made += 1
    for p in PRODUCTS:
        (PICTURES / f"{p.sku}.svg").write_text(picture(p), encoding="utf-8")


if __name__ == "__main__":
    main()
