"""What a page shows of a product: money and time as people write them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from shop_backend.catalog import Product, StockHint
from shop_backend.money import money
from shop_backend.pages.assets import Assets

Phase = Literal["soon", "open", "over"]

COUNT_DOWN_FROM = timedelta(days=2)  # an end further away is told by its date,
SAY_FROM = timedelta(days=90)  # and one still further not at all


@dataclass(frozen=True, slots=True)
class ProductView:
    """One product at one moment.

    Attributes:
        price: with its sign; list_price too, and `saving` is the per cent between them, 0 for none.
        phase: whether its sale is still to come, open or over.
        starts_at: RFC 3339, for scripts; `starts_on` for people. Both empty when open on that side.
        ends_at: the same for the end, empty too when it is far away.
        ends_soon: whether to count down to the end.
        stock: how much is left, roughly.
        image: address of the picture.
        cap: pieces one buyer may have.
    """

    sku: str
    name: str
    kind: str
    brand: str
    description: str
    price: str
    list_price: str
    saving: int
    phase: Phase
    starts_at: str
    starts_on: str
    ends_at: str
    ends_on: str
    ends_soon: bool
    stock: StockHint
    image: str
    cap: int
    featured: bool


def view(product: Product, hint: StockHint, assets: Assets, now: datetime) -> ProductView:
    """The product as its page shows it at `now`."""
    starts, ends = product.sale_starts_at, product.sale_ends_at
    phase: Phase = "open"
    if starts is not None and now < starts:
        phase = "soon"
    elif ends is not None and now >= ends:
        phase = "over"
    near = ends is not None and ends - now < SAY_FROM
    saved = product.list_price_cents - product.price_cents
    return ProductView(
        sku=product.sku,
        name=product.name,
        kind=product.kind,
        brand=product.brand,
        description=product.description,
        price=money(product.price_cents, product.currency),
        list_price=money(product.list_price_cents, product.currency),
        saving=max(0, 100 * saved // product.list_price_cents),
        phase=phase,
        starts_at=_rfc3339(starts),
        starts_on=_words(starts),
        ends_at=_rfc3339(ends if near else None),
        ends_on=_words(ends if near else None),
        ends_soon=ends is not None and ends - now < COUNT_DOWN_FROM,
        stock=hint,
        image=assets.url(product.image if assets.has(product.image) else "icon.svg"),
        cap=product.per_user_cap,
        featured=product.featured,
    )


def _rfc3339(moment: datetime | None) -> str:
    return moment.astimezone(UTC).isoformat().replace("+00:00", "Z") if moment else ""


def _words(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%-d %B %Y, %H:%M UTC") if moment else ""
