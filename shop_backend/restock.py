"""Loading the stock into Redis from SQL: what is counted there, and nothing more, may be sold.

Two cases. The epoch in Redis is SQL's: correct the counts by what SQL has more or less (new cards came).
It is not: Redis lost its data or is another one; build everything anew under the next epoch.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Awaitable
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shop_backend.errors import Unavailable
from shop_backend.sections import StockSettings
from shop_backend.stock import keys
from shop_backend.stock.ledger import StockLedger
from shop_backend.stock.order_ids import partition_of, seed_of
from shop_backend.stock.records import Snapshot
from shop_backend.storage.database import Connection, Database, own_cards

_log = logging.getLogger(__name__)

_PERSISTED = ("pending", "paid", "delivered")  # in these states SQL has taken the cards itself
_CHUNK = 500  # orders read, and written to Redis, at once


def fingerprint(sku: str, quantity: int, email: str, *more: str | None) -> str:
    """Tells whether a repeated Idempotency-Key came with the same request; None: a member left out."""
    told = [sku, quantity, email, *(more if any(each is not None for each in more) else ())]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()[:32]


async def current_epoch(database: Database) -> int:
    """The epoch that counts."""
    async with database.primary() as connection:
        return await _epoch(connection)


async def restock(database: Database, redis: Redis, stock: StockLedger, settings: StockSettings) -> None:
    """Make the counts in Redis agree with SQL, and this ledger's epoch with both.

    Safe while the shop sells: buyers wait for nothing, workers for the length of this transaction.

    Raises:
        Unavailable: SQL or Redis gave no answer; call again.
    """
    try:
        async with database.primary() as connection:
            await own_cards(connection)
            await connection.execute(
                "SET LOCAL statement_timeout = '10min'"
            )  # who bought what is counted over all orders
            epoch = await _epoch(connection)
            snapshot = await stock.snapshot()
            if epoch and snapshot.epoch == epoch:
                await _correct(connection, redis, stock, snapshot)
            else:
                epoch = await _rebuild(connection, redis, stock, settings)
    except RedisError as error:
        raise Unavailable(f"the stock does not answer ({type(error).__name__})", retry_after=1) from error
    stock.epoch = epoch


async def _epoch(connection: Connection) -> int:
    row = await (await connection.execute("SELECT epoch FROM stock_epoch")).fetchone()
    return int(row["epoch"]) if row else 0


async def _products(connection: Connection) -> list[dict[str, Any]]:
    cursor = await connection.execute(
        "SELECT p.sku, p.per_user_cap, p.listed,"
        " coalesce(extract(epoch FROM p.sale_starts_at) * 1000, 0)::bigint AS starts_ms,"
        " coalesce(extract(epoch FROM p.sale_ends_at) * 1000, 0)::bigint AS ends_ms,"
        " (SELECT count(*) FROM cards c WHERE c.sku = p.sku AND c.state = 'available') AS available"
        " FROM products p"
    )
    return await cursor.fetchall()


def _rules(product: dict[str, Any]) -> dict[Any, Any]:
    return {
        "starts_ms": product["starts_ms"],
        "ends_ms": product["ends_ms"],
        "cap": product["per_user_cap"],
        "listed": int(product["listed"]),
    }


def _by_shard(rows: list[dict[str, Any]], shards: int) -> dict[int, list[dict[str, Any]]]:
    found: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(keys.shard_of(row["sku"], shards), []).append(row)
    return found


async def _correct(connection: Connection, redis: Redis, stock: StockLedger, snapshot: Snapshot) -> None:
    """Add to each count what SQL has more. Free plus unsettled holds does not change by selling."""
    ids = [order_id for order_id, _, _ in snapshot.holds]
    cursor = await connection.execute(
        "SELECT id::text FROM orders WHERE id = ANY(%s::uuid[]) AND state = ANY(%s)", (ids, list(_PERSISTED))
    )
    persisted = {row["id"] for row in await cursor.fetchall()}
    unsettled: Counter[str] = Counter()
    for order_id, sku, quantity in snapshot.holds:
        if order_id not in persisted:
            unsettled[sku] += quantity
    for shard, products in _by_shard(await _products(connection), stock.shards).items():
        async with redis.pipeline(transaction=True) as pipe:
            for product in products:
                sku = product["sku"]
                missing = product["available"] - unsettled[sku] - snapshot.free.get(sku, 0)
                pipe.hset(keys.on(shard, keys.SKU) + sku, mapping=_rules(product))
                pipe.hincrby(keys.on(shard, keys.SKU) + sku, "free", missing)
                pipe.sadd(keys.on(shard, keys.SKUS), sku)
                if missing:
                    _log.info("stock of %s corrected by %+d", sku, missing)
            await pipe.execute()


async def _rebuild(connection: Connection, redis: Redis, stock: StockLedger, settings: StockSettings) -> int:
    """Write everything anew; the epoch goes last, so that nothing is sold from half a count."""
    cursor = await connection.execute(
        "UPDATE stock_epoch SET epoch = epoch + 1, since = now() RETURNING epoch"
    )
    row = await cursor.fetchone()
    epoch = int(row["epoch"]) if row else 1
    for shard in range(stock.shards):
        await redis.delete(keys.on(shard, keys.EPOCH))
        await _clear(redis, shard)
    products = await _products(connection)
    for shard, some in _by_shard(products, stock.shards).items():
        async with redis.pipeline(transaction=True) as pipe:
            for product in some:
                name = keys.on(shard, keys.SKU) + product["sku"]
                pipe.hset(name, mapping=_rules(product) | {"free": product["available"]})
                pipe.sadd(keys.on(shard, keys.SKUS), product["sku"])
            await pipe.execute()
    await _holds(connection, redis, stock.shards, settings)
    await _bought(connection, redis, stock.shards)
    partition = await _partition(connection)
    for shard in range(stock.shards):
        # Of a partition that is in use nobody knows how much each shard had filled: a new one is begun.
        await cast(
            "Awaitable[Any]",
            redis.hset(keys.on(shard, keys.SERIES), mapping={"partition": partition, "orders": 0}),
        )
    for shard in range(stock.shards):
        await cast("Awaitable[Any]", redis.set(keys.on(shard, keys.EPOCH), f"{epoch}/{stock.shards}"))
    _log.info("stock of %d products loaded under epoch %d", len(products), epoch)
    return epoch


async def _clear(redis: Redis, shard: int) -> None:
    await redis.delete(*(keys.on(shard, name) for name in (keys.SKUS, keys.HOLDS, keys.OPEN, keys.ORIGINS)))
    for prefix in (keys.SKU, keys.HOLD, keys.BOUGHT):
        batch: list[str] = []
        async for name in redis.scan_iter(match=f"{keys.on(shard, prefix)}*", count=1000):
            batch.append(name)
            if len(batch) == _CHUNK:
                await redis.delete(*batch)
                batch = []
        if batch:
            await redis.delete(*batch)


async def _partition(connection: Connection) -> int:
    """The number that orders get from now on: the first without rows."""
    cursor = await connection.execute(
        "SELECT id::text FROM orders WHERE tableoid <> 'orders_before'::regclass ORDER BY id DESC LIMIT 1"
    )
    row = await cursor.fetchone()
    return partition_of(row["id"]) + 1 if row else 0


async def _holds(connection: Connection, redis: Redis, shards: int, settings: StockSettings) -> None:
    """Open orders get their holds back; closed ones what answers their idempotency key."""
    remember = int(settings.remember * 1000)
    async with connection.cursor(name="restock_orders") as cursor:
        await cursor.execute(
            "SELECT id::text, sku, user_id, quantity, email, round, state, body,"
            " (extract(epoch FROM expires_at) * 1000)::bigint AS expires_ms FROM orders"
            " WHERE state = 'pending' OR created_at > now() - make_interval(secs => %s)",
            (settings.remember,),
        )
        while rows := await cursor.fetchmany(_CHUNK):
            async with redis.pipeline(transaction=False) as pipe:
                for row in rows:
                    shard, seed = keys.shard_of(row["sku"], shards), seed_of(row["id"])
                    name = keys.on(shard, keys.HOLD) + seed
                    state = {"pending": "held", "paid": "confirmed", "delivered": "confirmed"}.get(
                        row["state"], "expired"
                    )
                    fields: dict[Any, Any] = {
                        "id": row["id"],
                        "sku": row["sku"],
                        "user": row["user_id"],
                        "quantity": row["quantity"],
                        "state": state,
                        "round": row["round"],
                        "expires_ms": row["expires_ms"],
                        # Orders of before they kept it had nothing else in their bodies.
                        "body": row["body"] or fingerprint(row["sku"], row["quantity"], row["email"]),
                    }
                    pipe.hset(name, mapping=fields)
                    if shards > 1:
                        claim = keys.on(keys.shard_of(seed, shards), keys.CLAIM) + seed
                        pipe.set(claim, row["sku"], px=remember)
                    if state == "held":
                        pipe.zadd(keys.on(shard, keys.HOLDS), {row["id"]: row["expires_ms"]})
                        pipe.hincrby(keys.on(shard, keys.OPEN), row["user_id"], 1)
                    else:
                        pipe.pexpire(name, remember)
                await pipe.execute()


async def _bought(connection: Connection, redis: Redis, shards: int) -> None:
    async with connection.cursor(name="restock_bought") as cursor:
        await cursor.execute(
            "SELECT sku, user_id, sum(quantity)::bigint AS quantity FROM orders"
            " WHERE state = ANY(%s) GROUP BY sku, user_id",
            (list(_PERSISTED),),
        )
        while rows := await cursor.fetchmany(_CHUNK):
            async with redis.pipeline(transaction=False) as pipe:
                for row in rows:
                    name = keys.on(keys.shard_of(row["sku"], shards), keys.BOUGHT) + row["sku"]
                    pipe.hset(name, row["user_id"], row["quantity"])
                await pipe.execute()
