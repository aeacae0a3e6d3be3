"""Servers that break connections, callers that vanish: nothing leaks, and the shop comes back by itself."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

import httpx
import psycopg

from shop_backend.config import Settings
from shop_backend.storage.database import Database
from tests.waiting import until


async def test_vanished_callers_leave_no_transaction_open(migrated_database_url: str) -> None:
    """2,000 callers cancelled in mid-transaction: no session is left in one, and the pool is whole."""
    database = Database(migrated_database_url, Settings().database)
    await database.open()

    async def work(number: int) -> None:
        async with database.primary() as connection:
            await connection.execute("INSERT INTO sealed_keys VALUES (%s, 'k', '')", (f"n{number}",))
            await connection.execute("SELECT 1")

    async def vanish(number: int) -> None:
        task = asyncio.ensure_future(work(number))
        for _ in range(number % 13):
            await asyncio.sleep(0)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    for begin in range(0, 2000, 50):
        await asyncio.gather(*(vanish(number) for number in range(begin, begin + 50)))
    await asyncio.gather(*(work(10_000 + number) for number in range(20)))
    usage = database.usage()
    assert (usage["primary", "used"], usage["primary", "waiting"]) == (0, 0)

    async def none_is_left() -> bool:  # the server may not have seen yet that somebody hung up
        async with database.primary() as connection:
            cursor = await connection.execute(
                "SELECT count(*) AS n FROM pg_stat_activity WHERE datname = current_database()"
                " AND state LIKE 'idle in transaction%%'"
            )
            row = await cursor.fetchone()
        return row is not None and row["n"] == 0

    await until(none_is_left)
    await database.close()


async def test_the_shop_outlives_broken_connections(shop: Any) -> None:
    """Every connection to PostgreSQL and both Redis cut, as a restart would: the next order goes through."""
    await shop.placed()
    async with await psycopg.AsyncConnection.connect(
        shop.settings.require("database_url"), autocommit=True
    ) as operator:
        await operator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    for redis in (shop.parts.redis_durable, shop.parts.redis_volatile):
        await redis.client_kill_filter(_type="normal", skipme=True)
    order = await shop.placed()
    await shop.callback(order, await shop.pay(order))
    await shop.drain()
    assert (await shop.see(order))["status"] == "delivered"
    await shop.check()


async def test_without_its_servers_the_shop_says_503(
    shop_settings: Settings, start_shop: Any, fill_shop: Any
) -> None:
    """SQL or Redis away: 503 problem+json with Retry-After, never 500; the catalogue goes on from memory."""
    fill_shop(shop_settings)
    async with start_shop(shop_settings) as shop:
        buyer = await shop.session()
        assert (await shop.client.get("/api/products")).status_code == 200
        order = (await shop.order(headers=buyer)).json()
        await shop.context.database.close()
        # Redis alone is enough to take an order; it is written when SQL is back.
        assert (await shop.order(headers=buyer)).status_code == 202
        pool = shop.context.redis_durable.connection_pool
        await pool.disconnect()
        pool.connection_kwargs["path"] = "/nowhere.sock"
        pool.reset()
        assert (await shop.client.get("/api/products")).status_code == 200
        assert (await shop.client.get("/livez")).status_code == 200
        answers: list[httpx.Response] = [
            await shop.client.get("/readyz"),
            await shop.order(headers=buyer),
            await shop.client.get(order["status_url"], headers=buyer),
            await shop.send(
                '{"type": "payment.failed", "data": {"payment_id": "p", "order_id": "o",'
                ' "amount_cents": 1, "currency": "EUR", "channel": "sandbox"}}'
            ),
        ]
        assert [answer.status_code for answer in answers] == [503] * 4
        for answer in answers[1:]:
            assert answer.headers["content-type"] == "application/problem+json"
            assert int(answer.headers["retry-after"]) >= 1
