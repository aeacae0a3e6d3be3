"""The catalogue's way from SQL over Redis into a process: asked once, never older than announced."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shop_backend.cache.shared_value import SharedValue
from shop_backend.cache.single_flight import SingleFlight
from shop_backend.catalog import Catalog, Product
from shop_backend.config import Settings
from shop_backend.metrics import REGISTRY
from shop_backend.parts import redis_client
from tests.waiting import until


def count(level: str, result: str) -> float:
    """So many lookups ended so."""
    found = REGISTRY.get_sample_value("shop_cache_requests_total", {"level": level, "result": result})
    return found or 0.0


@pytest.fixture
async def shop(shop_settings: Settings, start_shop: Any, fill_shop: Any) -> AsyncIterator[Any]:
    """The tests' shop, with the catalogue in Redis and for long in the process."""
    catalog = shop_settings.catalog.model_copy(update={"fresh_for": 3600.0, "shared_for": 60.0})
    fill_shop(shop_settings)
    async with start_shop(shop_settings.model_copy(update={"catalog": catalog})) as running:
        yield running


def another(shop: Any) -> Catalog:
    """The catalogue of another process on the same servers."""
    catalog: Catalog = shop.parts.catalog(shop.settings.catalog)
    return catalog


async def price(catalog: Catalog, sku: str = "plain") -> int:
    """What a product costs now, as far as this process knows."""
    product = await catalog.product(sku)
    assert product is not None
    return product.price_cents


async def test_it_is_warm_before_the_first_shopper(shop: Any) -> None:
    """Starting the shop has read products and stock: the first question is a hit."""
    before = count("local", "hit")
    assert await price(shop.context.catalog) == 1000
    assert count("local", "hit") == before + 1


async def test_a_thousand_misses_are_one_query_even_without_their_leader(shop: Any) -> None:
    """Nothing in the process, nothing in Redis: SQL is asked once, also when who asked first has left."""
    catalog = another(shop)
    await shop.parts.redis_cache.delete("cache:{catalog}")
    before = count("shared", "miss")
    leader = asyncio.create_task(catalog.products())
    others = [asyncio.create_task(catalog.products()) for _ in range(1000)]
    await asyncio.sleep(0)
    leader.cancel()
    answers = await asyncio.gather(*others)
    assert {len(each) for each in answers} == {5}
    assert count("shared", "miss") == before + 1


async def test_the_next_process_asks_redis_only(shop: Any) -> None:
    """What one process has read from SQL serves all others."""
    before = count("shared", "hit"), count("shared", "miss")
    assert await price(another(shop)) == 1000
    assert (count("shared", "hit"), count("shared", "miss")) == (before[0] + 1, before[1])


async def test_a_change_in_sql_is_seen(shop: Any) -> None:
    """Whoever makes it, and however: the worker notices, and every process has it when its copy is old."""
    catalog = another(shop)
    assert await price(catalog) == 1000
    await shop.execute("UPDATE products SET price_cents = 900 WHERE sku = 'plain'")
    assert await price(another(shop)) == 1000  # nobody has noticed yet
    await shop.context.catalog.watch()
    assert await price(another(shop)) == 900
    catalog.forget()
    assert await price(catalog) == 900
    hits = count("shared", "refused")
    await shop.context.catalog.watch()
    assert count("shared", "refused") == hits


async def test_who_read_the_old_can_not_write_it_back(shop: Any) -> None:
    """A reader that was slow, or whose replica is behind, comes after the change: Redis keeps the new."""
    shared = SharedValue(shop.parts.redis_cache, "catalog", 60.0)
    version, body = await shared.version(), await shared.get()
    assert version is not None
    assert body is not None
    await shop.execute("UPDATE products SET price_cents = 900 WHERE sku = 'plain'")
    await shop.context.catalog.watch()
    assert await shared.put(version, body.encode()) is False
    assert await price(another(shop)) == 900
    # Also when the new value has run out meanwhile.
    await shop.parts.redis_cache.delete("cache:{catalog}")
    assert await shared.put(version, body.encode()) is False
    assert await price(another(shop)) == 900


async def test_products_are_no_newer_than_their_version(shop: Any, shop_settings: Settings) -> None:
    """A change that comes between the two questions is in neither answer."""
    shared = SharedValue(shop.parts.redis_cache, "catalog", 60.0)
    version = await shared.version()
    await shop.parts.redis_cache.delete("cache:{catalog}")
    async with await psycopg.AsyncConnection.connect(shop_settings.require("database_url")) as other:
        await other.execute("LOCK TABLE products IN ACCESS EXCLUSIVE MODE")
        reading = asyncio.create_task(price(another(shop)))
        waiting = "SELECT count(*) AS n FROM pg_locks WHERE NOT granted AND relation = 'products'::regclass"

        async def blocked() -> bool:
            return bool((await shop.row(waiting))["n"])

        await until(blocked)
        await other.execute("UPDATE products SET price_cents = 900 WHERE sku = 'plain'")
    assert (await reading, await shared.version()) == (1000, version)


async def test_every_change_raises_the_version(shop: Any) -> None:
    """INSERT, UPDATE and DELETE, each statement; what is rolled back does not."""
    seen = [(await shop.row("SELECT version FROM catalog_version"))["version"]]
    columns = ", ".join(set(Product.__dataclass_fields__) - {"sku"})
    for sql in (
        f"INSERT INTO products (sku, position, {columns}) SELECT 'new', 9, {columns} FROM products LIMIT 1",  # noqa: S608 - our own column names
        "UPDATE products SET name = 'New' WHERE sku = 'new'",
        "DELETE FROM products WHERE sku = 'new'",
    ):
        await shop.execute(sql)
        seen.append((await shop.row("SELECT version FROM catalog_version"))["version"])
    assert seen == sorted(set(seen))
    with contextlib.suppress(ZeroDivisionError):
        async with shop.parts.database.primary() as connection:
            await connection.execute("UPDATE products SET name = 'x'")
            raise ZeroDivisionError
    assert (await shop.row("SELECT version FROM catalog_version"))["version"] == seen[-1]


async def test_without_redis_sql_answers(shop: Any, free_port: Callable[[], int]) -> None:
    """A cache that is away costs a short wait at first, never an answer; nonsense in it is passed over."""
    away = redis_client(f"redis://127.0.0.1:{free_port()}", timeout=0.2)
    shared = SharedValue(away, "catalog", 60.0)
    catalog = Catalog(shop.parts.database, shop.parts.stock, shared, shop.settings.catalog)
    assert await price(catalog) == 1000
    await catalog.watch()
    assert await shared.put(1, b"x") is False
    await away.aclose()
    await shop.parts.redis_cache.hset("cache:{catalog}", "body", "[{]")
    assert await price(another(shop)) == 1000


async def test_every_key_ends(shop: Any) -> None:
    """Value and floor have a lifetime."""
    await shop.execute("UPDATE products SET price_cents = 900 WHERE sku = 'plain'")
    await shop.context.catalog.watch()
    names = await shop.parts.redis_cache.keys("cache:*")
    assert sorted(names) == ["cache:{catalog}", "cache:{catalog}:floor"]
    for name in names:
        assert await shop.parts.redis_cache.pttl(name) > 0


STEPS = st.lists(st.tuples(st.sampled_from(["put", "outdate", "lose"]), st.integers(1, 6)), max_size=30)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS)
def test_redis_never_goes_back(redis_volatile_server: str, steps: list[tuple[str, int]]) -> None:
    """Over any order of readers, changes and losses: what is there is the newest put, at least the floor."""

    async def run() -> None:
        client = redis_client(redis_volatile_server, timeout=2.0)
        shared = SharedValue(client, uuid.uuid4().hex, 60.0)
        floor, there = 0, 0
        for kind, version in steps:
            if kind == "put":
                allowed = version >= max(floor, there)
                assert await shared.put(version, str(version).encode()) is allowed
                there = version if allowed else there
            elif kind == "outdate":
                await shared.outdate(version)
                floor = max(floor, version)
                there = there if there >= version else 0
            else:
                await client.delete(shared._keys[0])
                there = 0
            assert await shared.version() == (there or None)
            assert await shared.get() == (str(there) if there else None)
        await client.aclose()

    asyncio.run(run())


async def test_lifetimes_are_spread() -> None:
    """Processes that began together ask at different moments, none later than `fresh_for`."""
    moment = 0.0

    async def load() -> float:
        return moment

    caches = [SingleFlight(load, 100.0, clock=lambda: moment, level="spread") for _ in range(50)]
    for cache in caches:
        await cache.get()
    asked = []
    for moment in (79.0, 90.0, 100.0):
        values = [await cache.get() for cache in caches]
        asked.append(values.count(moment))
    early, middle, late = asked
    assert early == 0
    assert 0 < middle < 50
    assert middle + late == 50
