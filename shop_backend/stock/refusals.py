"""What the stock refuses, and why, as errors."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from redis.exceptions import RedisError

from shop_backend.errors import (
    CapReached,
    KeyReused,
    NotFound,
    OutsideWindow,
    ShopError,
    SoldOut,
    TooManyOpen,
    Unavailable,
)
from shop_backend.stock.records import StockClosed


def refusal(answer: Sequence[str], sku: str) -> ShopError:
    """Why reserve.lua took nothing of `sku`: its answer, which is not "held"."""
    match answer:
        case ["reused"]:
            return reused()
        case ["early", starts_ms]:
            starts = _iso(int(starts_ms))
            return OutsideWindow(f"the sale begins at {starts}", starts_at=starts)
        case ["over", ends_ms]:
            return OutsideWindow(f"the sale ended at {_iso(int(ends_ms))}")
        case ["cap", more]:
            left = max(0, int(more))
            rest = f"you may have {left} more of this" if left else "you have had all that one buyer may have"
            return CapReached(rest, left=left)
        case ["open"]:
            return TooManyOpen("pay your open orders first, or let them expire")
        case ["origin"]:
            return TooManyOpen("too many unpaid orders from your address; pay some, or try again later")
        case ["sold", free]:
            left = max(0, int(free))
            return SoldOut("sold out" if not left else f"only {left} left; order fewer", left=left)
        case ["unknown"]:
            return NotFound(f"there is no stock of {sku}")
    return closed()


def reused() -> KeyReused:
    """The same key, something else."""
    return KeyReused("this Idempotency-Key was used with another body; use a new key")


def closed() -> StockClosed:
    """Redis has another epoch than ours."""
    return StockClosed("the stock is being counted; nothing is lost, try again in a moment", retry_after=2)


def away(error: RedisError) -> Unavailable:
    """Redis gave no answer."""
    return Unavailable(f"the stock does not answer ({type(error).__name__}); try again", retry_after=1)


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat().replace("+00:00", "Z")
