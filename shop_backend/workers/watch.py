"""Looking after the stock's epoch, and reporting what the gauges show."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from typing import Any

from redis.asyncio import Redis

from shop_backend import metrics
from shop_backend.notifications import counts
from shop_backend.payments import open_refunds
from shop_backend.restock import current_epoch, restock
from shop_backend.sections import StockSettings
from shop_backend.stock import keys
from shop_backend.stock.ledger import StockLedger
from shop_backend.storage.database import Database
from shop_backend.storage.partitions import Partitions
from shop_backend.workers.recovery import Recovery

_log = logging.getLogger(__name__)

_COPYING = 1.0  # seconds; a second copy takes half of that at most
_STRAGGLING = 15.0  # seconds after loading the stock, in which late copies may come
_DRAIN = 10.0  # seconds the order stream may take to drain before the stock is counted without it


class StockKeeper:
    """Notices that Redis lost the stock, and loads it again from SQL."""

    def __init__(
        self,
        database: Database,
        redis: Redis,
        stock: StockLedger,
        settings: StockSettings,
        recovery: Recovery,
    ) -> None:
        self._database = database
        self._redis = redis
        self._stock = stock
        self._settings = settings
        self._recovery = recovery
        self._look_again_at: float | None = None  # the loop's time

    async def check(self) -> int:
        """Compare the epochs; load the stock when they differ, after what is queued is written.

        Returns:
            1 when the stock was loaded, else 0.
        """
        epoch = await current_epoch(self._database)
        if epoch and await self._loaded(f"{epoch}/{self._stock.shards}"):
            self._stock.epoch = epoch
            await self._stragglers(epoch)
            return 0
        _log.warning("the stock in Redis is not of epoch %d; no orders are taken until it is loaded", epoch)
        if epoch:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_DRAIN):
                    await self._drain()
            # Admission is closed by now, but who was let in just before it may still write a copy.
            await asyncio.sleep(_COPYING)
            await self._recovery.recover(before_epoch=epoch + 1)
        await self.load()
        self._look_again_at = asyncio.get_running_loop().time() + _STRAGGLING
        return 1

    async def _stragglers(self, epoch: int) -> None:
        """Copies that came after the stock was loaded: of a process that was stopped in mid-order."""
        if self._look_again_at is not None and asyncio.get_running_loop().time() >= self._look_again_at:
            await self._recovery.recover(before_epoch=epoch)
            self._look_again_at = None

    async def load(self) -> None:
        """Make Redis agree with SQL now."""
        await restock(self._database, self._redis, self._stock, self._settings)

    async def _loaded(self, mark: str) -> bool:
        """Whether every shard was loaded under `mark`."""
        for shard in range(self._stock.shards):
            loaded: Any = self._redis.get(keys.on(shard, keys.EPOCH))
            if await loaded != mark:
                return False
        return True

    async def _drain(self) -> None:
        """Wait until every queued order is written; admission is closed, so no more come."""
        for shard in range(self._stock.shards):
            while await self._redis.xlen(keys.on(shard, keys.ORDERS)):  # noqa: ASYNC110 - others empty it
                await asyncio.sleep(0.1)


class PartitionKeeper:
    """Makes partitions before orders need them."""

    def __init__(self, partitions: Partitions, stock: StockLedger) -> None:
        self._partitions = partitions
        self._stock = stock

    async def check(self) -> int:
        """Make what is missing; how many partitions were made."""
        made = await self._partitions.ensure(await self._stock.partition())
        if made:
            _log.info("%d partitions for orders made ahead", made)
        return 0


class Gauges:
    """What the worker reports about Redis and the outbox."""

    def __init__(self, redis: Redis, stock: StockLedger, database: Database) -> None:
        self._redis = redis
        self._stock = stock
        self._database = database
        self._shown: set[str] = set()  # SKUs that have gauges

    async def report(self) -> int:
        """Set every gauge once; always 0, there is never more to do at once."""
        snapshot = await self._stock.snapshot()
        held = dict.fromkeys(snapshot.free, 0)
        for _, sku, quantity in snapshot.holds:
            held[sku] = held.get(sku, 0) + quantity
        shown = snapshot.free.keys() - snapshot.retired
        for sku in shown:
            metrics.STOCK.labels(sku, "free").set(snapshot.free[sku])
            metrics.STOCK.labels(sku, "held").set(held[sku])
        for sku in self._shown - shown:
            metrics.STOCK.remove(sku, "free")
            metrics.STOCK.remove(sku, "held")
        self._shown = set(shown)
        now = await self._redis.time()
        orders = [keys.on(shard, keys.ORDERS) for shard in range(self._stock.shards)]
        for streams in (orders, [keys.CALLBACKS]):
            name, depth, age = keys.label(streams[0]), 0, 0.0
            for stream in streams:
                depth += await self._redis.xlen(stream)
                first: Any = await self._redis.xrange(stream, count=1)
                if first:
                    age = max(age, now[0] - int(first[0][0].partition("-")[0]) / 1000)
            metrics.DEPTH.labels(name).set(depth)
            metrics.LAG.labels(name).set(age)
        pending, dead = await counts(self._database)
        metrics.OUTBOX.set(pending)
        metrics.OUTBOX_DEAD.set(dead)
        for state, count in (await open_refunds(self._database)).items():
            metrics.REFUNDS.labels(state).set(count)
        return 0
