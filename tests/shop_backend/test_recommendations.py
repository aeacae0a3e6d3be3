"""Recommendations out of real orders in a real PostgreSQL."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shop_backend.errors import NotFound
from shop_backend.recommendations import FRESH_FOR, SHOWN, Recommendations
from shop_backend.sections import DatabaseSettings
from shop_backend.storage.database import Database

# sku, brand, kind, featured
SHELF = [
    ("ember-1", "Emberfall", "game", False),
    ("ember-2", "Emberfall", "season pass", False),
    ("steam-50", "Steamhold", "wallet", True),
    ("steam-20", "Steamhold", "wallet", False),
    ("quest", "Runewarden", "game", False),
    ("quill", "Quillbench", "licence", False),
    ("frame", "Framewright", "licence", False),
]


class Shop:
    """A database with a shelf and orders, and a clock to advance."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.now = 1000.0
        self.recommendations = Recommendations(database, clock=lambda: self.now)

    async def stock_up(self) -> None:
        async with self.database.primary() as connection:
            for position, (sku, brand, kind, featured) in enumerate(SHELF):
                await connection.execute(
                    "INSERT INTO products VALUES "
                    "(%s, %s, %s, %s, '', 900, 1000, 'EUR', NULL, NULL, 5, %s, %s, %s)",
                    (sku, sku.title(), kind, brand, f"{sku}.svg", featured, position),
                )

    async def bought(self, user: str, *skus: str, state: str = "delivered") -> None:
        async with self.database.primary() as connection:
            for sku in skus:
                await connection.execute(
                    "INSERT INTO orders (id, user_id, sku, quantity, amount_cents, currency, email, state, "
                    "round, provider, created_at, expires_at, next_poll_at) VALUES "
                    "(%s, %s, %s, 1, 900, 'EUR', 'a@example.org', %s, 1, 'sandbox', now(), now(), now())",
                    (uuid.uuid4(), user, sku, state),
                )

    async def of(self, sku: str) -> list[str]:
        return [item["sku"] for item in await self.recommendations.of(sku)]


@pytest.fixture
async def shop(migrated_database_url: str) -> AsyncIterator[Shop]:
    """A shop with its shelf and no order."""
    database = Database(migrated_database_url, DatabaseSettings())
    await database.open()
    shop = Shop(database)
    await shop.stock_up()
    yield shop
    await database.close()


async def test_without_orders_brand_and_kind_decide(shop: Shop) -> None:
    """The same brand first, then the same kind, then what is featured; never the product itself."""
    assert await shop.of("ember-1") == ["ember-2", "quest", "steam-50", "steam-20"]


async def test_what_was_bought_together_comes_first(shop: Shop) -> None:
    """Delivered orders of the same buyers outweigh brand and kind; unpaid ones count for nothing."""
    for user in ("ann", "bob"):
        await shop.bought(user, "ember-1", "quill")
    await shop.bought("cid", "ember-1", "frame")
    await shop.bought("dan", "ember-1", "steam-20", state="pending")
    await shop.bought("eve", "steam-20", "steam-20")  # never had the first

    assert (await shop.of("ember-1"))[:3] == ["quill", "frame", "ember-2"]


async def test_an_item_is_ready_to_show(shop: Shop) -> None:
    """Name, price and picture come along, so that a page needs no second question."""
    item = (await shop.recommendations.of("steam-20"))[0]
    assert item == {
        "sku": "steam-50",
        "name": "Steam-50",
        "brand": "Steamhold",
        "kind": "wallet",
        "price_cents": 900,
        "list_price_cents": 1000,
        "currency": "EUR",
        "image": "steam-50.svg",
        "bought_together": 0,
    }


@pytest.mark.parametrize("sku", ["nothing", "", "A", "../x", "x" * 65, "a\x00b", "ü", "' OR 1=1 --"])
async def test_an_unknown_product_is_not_found(shop: Shop, sku: str) -> None:
    """Whatever stands in the address, the answer is 404."""
    with pytest.raises(NotFound):
        await shop.recommendations.of(sku)


async def test_the_last_product_has_no_company(shop: Shop) -> None:
    """A product alone on the shelf is known, and goes with nothing."""
    async with shop.database.primary() as connection:
        await connection.execute("DELETE FROM products WHERE sku <> 'quill'")
    assert await shop.of("quill") == []


async def test_a_crowd_asks_once(shop: Shop) -> None:
    """A hundred at once are one query, also when the first of them leaves; then a moment of peace."""
    asked: list[Any] = []
    ask = shop.database.read
    shop.database.read = lambda: asked.append(1) or ask()  # type: ignore[method-assign]  # counts, then asks

    crowd = [asyncio.create_task(shop.of("quest")) for _ in range(100)]
    await asyncio.sleep(0)
    crowd[0].cancel()
    answers = await asyncio.gather(*crowd[1:])
    assert len(asked) == 1
    assert all(answer == answers[0] for answer in answers)

    await shop.of("quest")
    assert len(asked) == 1
    shop.now += FRESH_FOR
    await shop.of("quest")
    assert len(asked) == 2


@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(st.tuples(st.sampled_from("abcd"), st.sampled_from([s[0] for s in SHELF])), max_size=25))
async def test_it_agrees_with_counting_by_hand(shop: Shop, orders: list[tuple[str, str]]) -> None:
    """For any orders, what was bought together more often never stands behind what was less often."""
    async with shop.database.primary() as connection:
        await connection.execute("TRUNCATE orders CASCADE")
    for user, sku in orders:
        await shop.bought(user, sku)
    shop.now += FRESH_FOR

    items = await shop.recommendations.of("quest")

    had = {user: {sku for u, sku in orders if u == user} for user, _ in orders}
    together = {
        s[0]: sum("quest" in skus and s[0] in skus for skus in had.values()) for s in SHELF if s[0] != "quest"
    }
    assert [i["bought_together"] for i in items] == [together[i["sku"]] for i in items]
    assert [i["bought_together"] for i in items] == sorted(together.values(), reverse=True)[:SHOWN]
