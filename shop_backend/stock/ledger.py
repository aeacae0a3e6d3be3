"""Reservations on the durable Redis: each change is one Lua script, idempotent by order id."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shop_backend.config import StockSettings
from shop_backend.errors import (
    CapReached,
    KeyReused,
    NotFound,
    OutsideWindow,
    SoldOut,
    TooManyOpen,
    Unavailable,
)
from shop_backend.stock import keys

_FOLDER = Path(__file__).parent


class StockClosed(Unavailable):
    """The stock in Redis is missing or of another epoch; it is being loaded anew."""


@dataclass(frozen=True, slots=True)
class Intent:
    """What a buyer wants. `unit_cents` is the price of one; `body` a fingerprint of the request."""

    order_id: str
    sku: str
    user: str
    quantity: int
    email: str
    unit_cents: int
    currency: str
    body: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Stock taken for an order.

    Attributes:
        expires_ms: Unix time in milliseconds, by Redis's clock.
        round: number of this taking; a later one makes releases of this one void.
        new: whether this call took it, rather than an earlier one with the same order id.
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
    """Free stock by SKU and open holds as (order id, sku, quantity), of one moment. Epoch 0: none loaded."""

    epoch: int
    free: dict[str, int]
    holds: Sequence[tuple[str, str, int]]


class StockLedger:
    """Takes, keeps and gives back stock.

    Attributes:
        epoch: the loading of the stock that this process trusts; from SQL.
    """

    def __init__(self, redis: Redis, settings: StockSettings, *, epoch: int = 0) -> None:
        self._redis = redis
        self._settings = settings
        self.epoch = epoch
        # register_script sends EVALSHA and loads again when Redis has forgotten (NOSCRIPT).
        self._scripts = {
            name: redis.register_script((_FOLDER / f"{name}.lua").read_text(encoding="utf-8"))
            for name in ("reserve", "retake", "confirm", "release", "expire", "snapshot")
        }

    async def reserve(self, intent: Intent) -> Hold:
        """Take stock and queue the order, in one step; the same order id gives the same hold.

        Raises:
            OutsideWindow, CapReached, TooManyOpen, SoldOut: refused, nothing changed.
            KeyReused: this order id was asked for with another body.
            NotFound: no stock of this SKU was ever loaded.
            StockClosed: the stock is being loaded anew.
            Unavailable: Redis gave no answer; it may have reserved. Asking again is safe.
        """
        answer = await self._run(
            "reserve",
            intent.order_id,
            [*self._keys(intent.sku, intent.order_id), keys.BOUGHT + intent.sku, keys.OPEN, keys.ORDERS],
            [
                self.epoch,
                intent.order_id,
                intent.sku,
                intent.user,
                intent.quantity,
                int(self._settings.hold_for * 1000),
                self._settings.open_holds_per_user,
                intent.body,
                intent.email,
                intent.unit_cents,
                intent.currency,
            ],
        )
        match answer:
            case ["held", expires_ms, number, new]:
                return Hold(intent.order_id, int(expires_ms), int(number), new == "new")
            case ["reused"]:
                raise KeyReused("this Idempotency-Key was used with another body; use a new key")
            case ["early", starts_ms]:
                starts = _iso(int(starts_ms))
                raise OutsideWindow(f"the sale begins at {starts}", starts_at=starts)
            case ["over", ends_ms]:
                raise OutsideWindow(f"the sale ended at {_iso(int(ends_ms))}")
            case ["cap", left]:
                raise CapReached(f"you may order {max(0, int(left))} more of this", left=max(0, int(left)))
            case ["open"]:
                raise TooManyOpen("pay your open orders first, or let them expire")
            case ["sold", free]:
                left = max(0, int(free))
                raise SoldOut("sold out" if not left else f"only {left} left; order fewer", left=left)
            case ["unknown"]:
                raise NotFound(f"there is no stock of {intent.sku}")
        raise StockClosed("the stock is being counted; try again", retry_after=2)

    async def retake(
        self, order_id: str, *, sku: str, user: str, quantity: int
    ) -> int | Literal["cap", "sold"]:
        """Take stock again for an order paid late.

        Returns:
            The new round, or why there is nothing for this buyer.

        Raises:
            StockClosed, Unavailable: try again.
        """
        answer = await self._run(
            "retake",
            order_id,
            [*self._keys(sku, order_id), keys.BOUGHT + sku, keys.OPEN],
            [self.epoch, order_id, sku, user, quantity, int(self._settings.hold_for * 1000)],
        )
        match answer:
            case ["held", number]:
                return int(number)
            case ["confirmed"]:
                return 0
            case ["cap"]:
                return "cap"
            case ["sold", _] | ["unknown"]:
                return "sold"
        raise StockClosed("the stock is being counted; try again", retry_after=2)

    async def confirm(self, order_id: str) -> str:
        """Make a hold final.

        Returns:
            The state it is in now, "closed" or "unknown": loading the stock counts from SQL then.
        """
        answer = await self._run(
            "confirm",
            order_id,
            [keys.EPOCH, keys.HOLD + order_id, keys.HOLDS, keys.OPEN],
            [self.epoch, order_id, self._remember],
        )
        return str(answer[0])

    async def release(
        self, order_id: str, sku: str, number: int, *, state: Literal["released", "expired"]
    ) -> bool:
        """Give a hold's stock back, if it is open and still in round `number`.

        Returns:
            Whether this call gave it back.
        """
        answer = await self._run(
            "release",
            order_id,
            [*self._keys(sku, order_id), keys.BOUGHT + sku, keys.OPEN],
            [self.epoch, order_id, number, state, self._remember],
        )
        return bool(answer[1])

    async def due(self, limit: int, *, lease: float) -> list[Due]:
        """Open holds past their time; they are not listed again before `lease` seconds are over."""
        try:
            answer = await self._scripts["expire"](
                keys=[keys.EPOCH, keys.HOLDS], args=[self.epoch, limit, int(lease * 1000), keys.HOLD]
            )
        except RedisError as error:
            raise _away(error) from error
        if answer[0] != "due":
            return []
        flat = answer[1:]
        return [Due(flat[i], flat[i + 1], int(flat[i + 2])) for i in range(0, len(flat), 3)]

    async def hold(self, order_id: str) -> dict[str, str] | None:
        """The hold's fields as in docs/data.md, or None."""
        try:
            found: Any = await self._redis.hgetall(keys.HOLD + order_id)
        except RedisError as error:
            raise _away(error) from error
        return found or None

    async def free(self, skus: Iterable[str]) -> dict[str, int]:
        """Free stock of each SKU that is loaded."""
        names = list(skus)
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for sku in names:
                    pipe.hget(keys.SKU + sku, "free")
                answers = await pipe.execute()
        except RedisError as error:
            raise _away(error) from error
        return {sku: int(free) for sku, free in zip(names, answers, strict=True) if free is not None}

    async def snapshot(self) -> Snapshot:
        """All free stock and open holds as of one moment."""
        try:
            epoch, free, holds = await self._scripts["snapshot"](
                keys=[keys.EPOCH, keys.SKUS, keys.HOLDS], args=[keys.SKU, keys.HOLD]
            )
        except RedisError as error:
            raise _away(error) from error
        return Snapshot(
            int(epoch or 0),
            {free[i]: int(free[i + 1]) for i in range(0, len(free), 2)},
            [(holds[i], holds[i + 1], int(holds[i + 2])) for i in range(0, len(holds), 3)],
        )

    # ---- inside ------------------------------------------------------------------------------

    @property
    def _remember(self) -> int:
        return int(self._settings.remember * 1000)

    @staticmethod
    def _keys(sku: str, order_id: str) -> list[str]:
        return [keys.EPOCH, keys.SKU + sku, keys.HOLD + order_id, keys.HOLDS]

    async def _run(self, name: str, order_id: str, names: list[str], args: list[Any]) -> list[Any]:
        try:
            answer: list[Any] = await self._scripts[name](keys=names, args=args)
        except RedisError as error:
            raise _away(error) from error
        # A connection that lost step would hand us another caller's answer; nobody may act on that.
        if answer[0] != order_id:
            raise Unavailable("the stock answered out of turn; try again", retry_after=1)
        return answer[1:]


def _away(error: RedisError) -> Unavailable:
    return Unavailable(f"the stock does not answer ({type(error).__name__}); try again", retry_after=1)


def _iso(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat().replace("+00:00", "Z")
