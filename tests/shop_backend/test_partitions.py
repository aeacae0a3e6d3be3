"""Orders in partitions: bounded in rows, made ahead, found by the number an order's id begins with."""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

import psycopg
import pytest
from alembic import command

from shop_backend.config import Settings
from shop_backend.history import STEPS
from shop_backend.stock.order_ids import minute_of, partition_of, seed_of
from shop_backend.storage import migrate
from shop_backend.storage.database import Database, share_cards
from shop_backend.storage.partitions import EVENTS_AT_MOST, Partitions, lowest_id
from shop_backend.workers.watch import PartitionKeeper
from tests.waiting import PATIENCE, until

PER_PARTITION = 2


@pytest.fixture
def tiny(shop_settings: Settings) -> Settings:
    """Partitions of two orders each."""
    small = shop_settings.database.model_copy(update={"partition_rows": PER_PARTITION * EVENTS_AT_MOST})
    return shop_settings.model_copy(update={"database": small})


def tables(url: str, parent: str) -> dict[str, int]:
    """Rows of each partition."""
    with psycopg.connect(url) as connection:
        names = connection.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass", (parent,)
        ).fetchall()
        return {
            name: connection.execute(f"SELECT count(*) FROM {name}").fetchone()[0]  # type: ignore[index]  # noqa: S608
            for (name,) in sorted(names)
        }


async def test_orders_cross_the_boundary(tiny: Settings, fill_shop: Any, start_shop: Any) -> None:
    """Seven orders at two a partition fill four; each is found by its id in one table, paid and delivered."""
    fill_shop(tiny)
    url = tiny.require("database_url")
    async with start_shop(tiny) as shop:
        orders = [await shop.placed() for _ in range(7)]
        assert [partition_of(order["order_id"]) for order in orders] == [0, 0, 1, 1, 2, 2, 3]
        for order in orders:
            await shop.callback(order, await shop.pay(order))
        await shop.drain()
        assert {(await shop.see(order))["status"] for order in orders} == {"delivered"}
        await shop.check()

        rows = tables(url, "orders")
        assert [rows[f"orders_p{number:05d}"] for number in range(4)] == [2, 2, 2, 1]
        assert max(tables(url, "order_events").values()) <= PER_PARTITION * EVENTS_AT_MOST
        for order in orders:
            plan = await shop.rows("EXPLAIN SELECT * FROM orders WHERE id = %s", order["order_id"])
            read = {name for name in rows if name in str(plan)}
            assert read == {f"orders_p{partition_of(order['order_id']):05d}"}


async def test_partitions_are_made_ahead_and_once(tiny: Settings) -> None:
    """Many workers at once make each partition once; two are always ahead of the orders."""
    database = Database(tiny.require("database_url"), tiny.database)
    await database.open()
    try:
        await asyncio.gather(*(Partitions(database, tiny.database).ensure(3) for _ in range(4)))
    finally:
        await database.close()
    names = [f"orders_p{number:05d}" for number in range(6)]
    assert list(tables(tiny.require("database_url"), "orders")) == ["orders_before", *names]


async def test_a_partition_is_attached_between_transactions_not_among_them(shop: Any) -> None:
    """One that moves cards and then writes history, and one that makes a partition meanwhile: no deadlock."""
    order = await shop.placed("plain")
    watching = await psycopg.AsyncConnection.connect(shop.settings.require("database_url"), autocommit=True)
    async with watching, shop.parts.database.primary() as connection:
        await share_cards(connection)
        await connection.execute("UPDATE cards SET state = state WHERE order_id = %s", (order["order_id"],))
        making = asyncio.create_task(shop.partitions.ensure(5))

        async def waits() -> bool:
            cursor = await watching.execute("SELECT FROM pg_locks WHERE NOT granted")
            return bool(cursor.rowcount)

        await until(waits, "somebody waits for a lock")
        await connection.execute(
            "INSERT INTO order_events (order_id, from_state, to_state, reason) VALUES (%s, 'a', 'b', '')",
            (order["order_id"],),
        )
    assert await making > 0


async def test_the_worker_looks_ahead(tiny: Settings, fill_shop: Any, start_shop: Any) -> None:
    """What Redis will number next has its tables already, before any order is written."""
    fill_shop(tiny)
    async with start_shop(tiny) as shop:
        for _ in range(5):
            await shop.order()
        await PartitionKeeper(Partitions(shop.parts.database, tiny.database), shop.parts.stock).check()
    assert "orders_p00004" in tables(tiny.require("database_url"), "orders")


async def test_asking_again_finds_the_same_id(shop: Any) -> None:
    """The id has partition, minute and seed; the seed alone is the buyer's, so a retry gets the same id."""
    me = await shop.session()
    first, again, other = [
        (await shop.order(headers=me, key=key)).json()["order_id"] for key in ("a", "a", "b")
    ]
    assert first == again
    assert (partition_of(first), uuid.UUID(first).version) == (0, 8)
    assert uuid.UUID(first).variant == uuid.RFC_4122
    assert seed_of(first) != seed_of(other)
    now_ms = (await shop.parts.redis_durable.time())[0] * 1000
    assert (now_ms // 60_000 - minute_of(first)) % 65_536 <= 1


async def test_after_a_loss_orders_begin_a_partition_of_their_own(shop: Any) -> None:
    """Redis forgot how full the partition was, so the next one is begun: the bound holds."""
    before = await shop.placed()
    await shop.parts.redis_durable.flushall()
    await shop.keeper.check()
    async with asyncio.timeout(PATIENCE):
        # A shop asks for the new epoch at most ten times a second, and says 503 until it knows it.
        while (answer := await shop.order()).status_code == 503:  # noqa: ASYNC110 - as shoppers do
            await asyncio.sleep(0.02)
    after = answer.json()
    await shop.drain()
    assert (await shop.see(after))["status"] == "pending"
    assert (partition_of(before["order_id"]), partition_of(after["order_id"])) == (0, 1)
    await shop.check()


def test_orders_of_before_keep_a_partition_of_their_own(database_url: str) -> None:
    """Migrating a shop that has orders loses none: their ids begin anyhow, new numbers stay below them."""
    old = sorted(str(uuid.uuid4()) for _ in range(50))
    command.upgrade(migrate._config(database_url), "0003")
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO products VALUES ('card', 'Card', 'card', 'Brand', 'text', 500, 1000, 'EUR',"
            " NULL, NULL, 3, 'card.svg', false, 1)"
        )
        connection.execute(
            "INSERT INTO orders (id, user_id, sku, quantity, amount_cents, currency, email, state, round,"
            " provider, created_at, expires_at, next_poll_at) SELECT unnest(%s::uuid[]), 'ann', 'card', 1,"
            " 500, 'EUR', 'a@example.org', 'pending', 1, 'sandbox', now(), now(), now()",
            (old,),
        )
        connection.execute(
            "INSERT INTO order_events (order_id, to_state, reason) SELECT unnest(%s::uuid[]), 'pending', ''",
            (old,),
        )
    migrate.migrate(database_url)
    assert tables(database_url, "orders") == {"orders_before": 50, "orders_p00000": 0}
    assert tables(database_url, "order_events")["order_events_before"] == 50
    with psycopg.connect(database_url) as connection:
        connection.execute(
            "INSERT INTO order_events (order_id, from_state, to_state, reason)"
            " VALUES (%s, 'pending', 'expired', '')",
            (old[0],),
        )
        ids = connection.execute("SELECT id FROM order_events ORDER BY id").fetchall()
        assert len(set(ids)) == 51
        assert lowest_id(1) < old[0]


def test_no_order_has_more_events_than_the_bound_allows() -> None:
    """The longest path of states is what partitions are reckoned with."""

    def longest(state: str | None) -> int:
        return max((1 + longest(after) for before, after in STEPS if before == state), default=0)

    assert longest(None) == EVENTS_AT_MOST
