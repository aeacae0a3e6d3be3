"""The buyer's profile, out of real orders in a real PostgreSQL."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from redis.asyncio import Redis
from starlette.applications import Starlette

from shop_backend import profile
from shop_backend.sections import DatabaseSettings, SessionSettings
from shop_backend.sessions import Sessions
from shop_backend.storage.database import Database
from shop_backend.tokens import Tokens

SHELF = [
    ("ember", "Emberfall", "game"),
    ("quest", "Runewarden", "game"),
    ("steam", "Steamhold", "wallet"),
]


class Shop:
    """The profile's API, its database and its sessions."""

    def __init__(self, database: Database, redis: Redis) -> None:
        self.database = database
        self.tokens = Tokens(Ed25519PrivateKey.generate())
        parts = SimpleNamespace(
            database=database, sessions=Sessions(self.tokens, redis, SessionSettings(), secure=False)
        )
        app = Starlette(routes=profile.routes(cast("Any", parts)))  # all it needs of a Context
        self.http = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.example")

    async def bought(self, user: str, sku: str, quantity: int, state: str = "delivered") -> None:
        async with self.database.primary() as connection:
            await connection.execute(
                "INSERT INTO orders (id, user_id, sku, quantity, amount_cents, currency, email, state, "
                "round, provider, created_at, expires_at, next_poll_at) VALUES "
                "(%s, %s, %s, %s, 900, 'EUR', 'a@example.org', %s, 1, 'sandbox', now(), now(), now())",
                (uuid.uuid4(), user, sku, quantity, state),
            )

    async def of(self, user: str | None) -> dict[str, Any]:
        headers = {"cookie": f"session={self.tokens.session(user, lifetime=60)}"} if user else {}
        answer = await self.http.get("/api/me/profile", headers=headers)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "private, no-store"
        return dict(answer.json())


@pytest.fixture
async def shop(migrated_database_url: str, redis_volatile_url: str) -> AsyncIterator[Shop]:
    """A shop with a shelf and no order."""
    database = Database(migrated_database_url, DatabaseSettings())
    await database.open()
    async with database.primary() as connection:
        for position, (sku, brand, kind) in enumerate(SHELF):
            await connection.execute(
                "INSERT INTO products VALUES "
                "(%s, %s, %s, %s, '', 900, 1000, 'EUR', NULL, NULL, 5, 'x.svg', false, %s)",
                (sku, sku.title(), kind, brand, position),
            )
    async with Redis.from_url(redis_volatile_url, decode_responses=True) as redis:
        shop = Shop(database, redis)
        async with shop.http:
            yield shop
    await database.close()


async def test_a_stranger_has_no_tags(shop: Shop) -> None:
    """Without a session, and without orders, the profile is empty and the answer is 200."""
    empty = {"tags": [], "orders": 0, "cards": 0}
    assert await shop.of(None) == empty
    assert await shop.of("ann") == empty


async def test_tags_are_what_was_delivered_most(shop: Shop) -> None:
    """Brands and kinds, most cards first; unpaid orders and other buyers' count for nothing."""
    await shop.bought("ann", "ember", 2)
    await shop.bought("ann", "quest", 1)
    await shop.bought("ann", "steam", 4, state="expired")
    await shop.bought("bob", "steam", 4)

    assert await shop.of("ann") == {"tags": ["game", "Emberfall", "Runewarden"], "orders": 2, "cards": 3}


async def test_a_forged_session_is_a_stranger(shop: Shop) -> None:
    """A token of another key shows nobody's profile."""
    await shop.bought("ann", "ember", 1)
    forged = Tokens(Ed25519PrivateKey.generate()).session("ann", lifetime=60)
    answer = await shop.http.get("/api/me/profile", headers={"cookie": f"session={forged}"})
    assert answer.json()["tags"] == []
