"""What the ledger is asked for and what it says: intents, holds, and the stock of one moment."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from shop_backend.errors import Unavailable


class StockClosed(Unavailable):
    """The stock in Redis is missing or of another epoch; it is being loaded anew."""


@dataclass(frozen=True, slots=True)
class Intent:
    """What a buyer wants.

    Attributes:
        seed: the part of the order's id that the buyer's key decides (stock/order_ids.py).
        unit_cents: the price of one.
        body: a fingerprint of the request.
        language: what messages are written in.
        phone: where text messages go, "" for none.
        origin: where it comes from, when that tells buyers apart; "" when it does not.
        trace: the traceparent of the request, "" when there is none.
    """

    seed: str
    sku: str
    user: str
    quantity: int
    email: str
    unit_cents: int
    currency: str
    body: str
    language: str = "en"
    phone: str = ""
    origin: str = ""
    trace: str = ""


@dataclass(frozen=True, slots=True)
class Hold:
    """Stock taken for an order.

    Attributes:
        expires_ms: Unix time in milliseconds, by Redis's clock.
        round: number of this taking; a later one makes releases of this one void.
        new: whether this call took it, rather than an earlier one with the same seed.
    """

    order_id: str
    expires_ms: int
    round: int
    new: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class Due:
    """An open hold past its time."""

    order_id: str
    sku: str
    round: int


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Free stock by SKU and open holds as (order id, sku, quantity), of one moment.

    Attributes:
        epoch: 0 when none is loaded.
        retired: SKUs that no shelf shows and whose sale is over.
    """

    epoch: int
    free: dict[str, int]
    holds: Sequence[tuple[str, str, int]]
    retired: frozenset[str] = frozenset()
