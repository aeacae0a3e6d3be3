"""Reservations on the durable Redis: each change is one Lua script, idempotent by order id."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, Literal, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shop_backend.errors import Unavailable
from shop_backend.sections import StockSettings
from shop_backend.stock import keys
from shop_backend.stock.claims import Claims
from shop_backend.stock.order_ids import seed_of
from shop_backend.stock.records import Due, Hold, Intent, Snapshot
from shop_backend.stock.refusals import away, closed, refusal
from shop_backend.stock.scripts import Scripts

_SET_ANEW = frozenset(("round", "epoch", "expires_ms", "at_ms"))  # of an intent, by its taking


class StockLedger:
    """Takes, keeps and gives back stock.

    Args:
        partition_orders: orders that get the same partition's number into their ids.

    Attributes:
        epoch: the loading of the stock that this process trusts; from SQL.
        shards: over how many slots the SKUs are spread.
    """

    def __init__(
        self, redis: Redis, settings: StockSettings, *, epoch: int = 0, partition_orders: int = 1_000_000
    ) -> None:
        self._redis = redis
        self._settings = settings
        self.epoch = epoch
        self.shards = settings.shards
        # Every shard counts for itself, so each may fill its part of a partition.
        self._partition_orders = max(1, partition_orders // settings.shards)
        self._claims = Claims(redis, settings.shards, lifetime=settings.remember + settings.hold_for)
        self._scripts = Scripts(redis, together=not settings.cluster)

    @property
    def mark(self) -> str:
        """What Redis must have as its epoch: the loading, and over how many shards it was spread."""
        return f"{self.epoch}/{self.shards}"

    async def reserve(self, intent: Intent) -> Hold:
        """Take stock and queue the order, in one step; the same seed gives the same hold.

        Raises:
            OutsideWindow, CapReached, TooManyOpen, SoldOut: refused, nothing changed.
            KeyReused: this seed was asked for with another body.
            NotFound: no stock of this SKU was ever loaded.
            StockClosed: the stock is being loaded anew.
            Unavailable: Redis gave no answer; it may have reserved. Asking again is safe.
        """
        shard, mark = self._shard(intent.sku), self.mark  # of this moment: the caller goes by the same
        await self._claims.make(intent.seed, intent.sku)
        answer = await self._run(
            "reserve",
            intent.seed,
            [
                keys.on(shard, keys.EPOCH),
                keys.on(shard, keys.SKU) + intent.sku,
                keys.on(shard, keys.HOLD) + intent.seed,
                keys.on(shard, keys.HOLDS),
                keys.on(shard, keys.BOUGHT) + intent.sku,
                keys.on(shard, keys.OPEN),
                keys.on(shard, keys.ORDERS),
                keys.on(shard, keys.ORIGINS),
                keys.on(shard, keys.SERIES),
            ],
            [
                mark,
                intent.seed,
                intent.sku,
                intent.user,
                intent.quantity,
                int(self._settings.hold_for * 1000),
                self._settings.open_holds_per_user,
                intent.body,
                intent.email,
                intent.unit_cents,
                intent.currency,
                intent.origin,
                self._settings.open_holds_per_address,
                self._partition_orders,
                intent.trace,
                intent.language,
                intent.phone,
            ],
        )
        if answer[0] != "held":
            raise refusal(answer, intent.sku)
        return Hold(answer[1], int(answer[2]), int(answer[3]), answer[4] == "new")

    async def retake(
        self,
        order_id: str,
        *,
        sku: str,
        user: str,
        quantity: int,
        requeue: Mapping[str, str] | None = None,
    ) -> int | Literal["cap", "sold"]:
        """Take stock again for an order paid late, or for one that is to be written after all.

        With `requeue`, the fields of its intent, the intent is queued in the same step.

        Returns:
            The new round, or why there is nothing for this buyer.

        Raises:
            StockClosed, Unavailable: try again.
        """
        shard = self._shard(sku)
        fields = {k: v for k, v in (requeue or {}).items() if k not in _SET_ANEW}
        answer = await self._run(
            "retake",
            order_id,
            [*self._keys(shard, sku, order_id), keys.on(shard, keys.ORDERS)],
            [
                self.mark,
                order_id,
                sku,
                user,
                quantity,
                int(self._settings.hold_for * 1000),
                *(part for field in fields.items() for part in field),
            ],
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
        raise closed()

    async def withdraw(self, sku: str, at_most: int) -> int:
        """Take free stock off sale without an order; how much it was.

        Raises:
            StockClosed, Unavailable: try again.
        """
        shard = self._shard(sku)
        names = [keys.on(shard, keys.EPOCH), keys.on(shard, keys.SKU) + sku]
        match await self._run("withdraw", sku, names, [self.mark, sku, at_most]):
            case ["closed"]:
                raise closed()
            case [taken]:
                return int(taken)
        raise closed()

    async def confirm(self, orders: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Make the holds of orders, given as (order id, SKU), final.

        Returns:
            By order id the state it is in now, "closed" or "unknown": loading the stock counts from SQL then.
        """
        by_shard: dict[int, list[str]] = {}
        for order_id, sku in orders:
            by_shard.setdefault(self._shard(sku), []).append(order_id)
        states: dict[str, str] = {}
        for shard, ids in by_shard.items():
            hold = keys.on(shard, keys.HOLD)
            answer = await self._run(
                "confirm",
                ids[0],
                [
                    keys.on(shard, keys.EPOCH),
                    keys.on(shard, keys.HOLDS),
                    keys.on(shard, keys.OPEN),
                    keys.on(shard, keys.ORIGINS),
                    *(hold + seed_of(order_id) for order_id in ids),
                ],
                [self.mark, self._remember, *ids],
            )
            states.update(zip(ids, map(str, answer), strict=True))
        return states

    async def release(
        self, order_id: str, sku: str, number: int, *, state: Literal["released", "expired"]
    ) -> bool:
        """Give a hold's stock back, if it is open and still in round `number`.

        Returns:
            Whether this call gave it back.
        """
        shard = self._shard(sku)
        answer = await self._run(
            "release",
            order_id,
            [*self._keys(shard, sku, order_id), keys.on(shard, keys.ORIGINS)],
            [self.mark, order_id, number, state, self._remember],
        )
        return bool(answer[1])

    async def due(self, limit: int, *, lease: float) -> list[Due]:
        """Open holds past their time, at most `limit` of each shard; none is listed again for `lease` s."""
        found: list[Due] = []
        for shard in range(self.shards):
            names = [keys.on(shard, keys.EPOCH), keys.on(shard, keys.HOLDS)]
            args: list[Any] = [self.mark, limit, int(lease * 1000), keys.on(shard, keys.HOLD)]
            try:
                answer = await self._scripts.run("expire", names, args)
            except RedisError as error:
                raise away(error) from error
            if answer[0] == "due":
                flat = answer[1:]
                found += [Due(flat[i], flat[i + 1], int(flat[i + 2])) for i in range(0, len(flat), 3)]
        return found

    async def hold(self, order_id: str) -> dict[str, str] | None:
        """The hold's fields as in docs/data.md, or None."""
        seed = seed_of(order_id)
        try:
            shard = await self._claims.shard_of(seed)
            found: Any = await self._redis.hgetall(keys.on(shard, keys.HOLD) + seed)
        except RedisError as error:
            raise away(error) from error
        return found if found.get("id") == order_id else None

    async def free(self, skus: Iterable[str]) -> dict[str, int]:
        """Free stock of each SKU that is loaded."""
        names = list(skus)
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for sku in names:
                    pipe.hget(keys.on(self._shard(sku), keys.SKU) + sku, "free")
                answers = await pipe.execute()
        except RedisError as error:
            raise away(error) from error
        return {sku: int(free) for sku, free in zip(names, answers, strict=True) if free is not None}

    async def snapshot(self) -> Snapshot:
        """All free stock and open holds; those of one SKU as of one moment."""
        epochs: set[int] = set()
        stock: dict[str, int] = {}
        holds: list[tuple[str, str, int]] = []
        retired: set[str] = set()
        for shard in range(self.shards):
            names = [keys.on(shard, name) for name in (keys.EPOCH, keys.SKUS, keys.HOLDS)]
            args = [keys.on(shard, keys.SKU), keys.on(shard, keys.HOLD)]
            try:
                mark, free, held, over = await self._scripts.run("snapshot", names, args)
            except RedisError as error:
                raise away(error) from error
            epoch, _, shards = mark.partition("/")
            epochs.add(int(epoch) if shards == str(self.shards) else 0)
            stock |= {free[i]: int(free[i + 1]) for i in range(0, len(free), 2)}
            holds += [(held[i], held[i + 1], int(held[i + 2])) for i in range(0, len(held), 3)]
            retired.update(over)
        return Snapshot(epochs.pop() if len(epochs) == 1 else 0, stock, holds, frozenset(retired))

    async def partition(self) -> int:
        """The highest number of a partition that new orders get."""
        try:
            numbers = [
                await cast("Awaitable[str]", self._redis.hget(keys.on(shard, keys.SERIES), "partition"))
                for shard in range(self.shards)
            ]
        except RedisError as error:
            raise away(error) from error
        return max(int(number or 0) for number in numbers)

    # ---- inside ------------------------------------------------------------------------------

    @property
    def _remember(self) -> int:
        return int(self._settings.remember * 1000)

    def _shard(self, sku: str) -> int:
        return keys.shard_of(sku, self.shards)

    def _keys(self, shard: int, sku: str, order_id: str) -> list[str]:
        return [
            keys.on(shard, keys.EPOCH),
            keys.on(shard, keys.SKU) + sku,
            keys.on(shard, keys.HOLD) + seed_of(order_id),
            keys.on(shard, keys.HOLDS),
            keys.on(shard, keys.BOUGHT) + sku,
            keys.on(shard, keys.OPEN),
        ]

    async def _run(self, name: str, echo: str, names: list[str], args: list[Any]) -> list[Any]:
        try:
            answer: list[Any] = await self._scripts.run(name, names, args)
        except RedisError as error:
            raise away(error) from error
        # A connection that lost step would hand us another caller's answer; nobody may act on that.
        if answer[0] != echo:
            raise Unavailable("the stock answered out of turn; try again", retry_after=1)
        return answer[1:]
