"""What a request handler of the shop stands on, built once per process by app.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from redis.asyncio import Redis

from shop_backend.catalog import Catalog
from shop_backend.config import Settings
from shop_backend.providers import PaymentProvider
from shop_backend.sessions import Sessions
from shop_backend.stock.ledger import StockLedger
from shop_backend.storage.database import Database
from shop_backend.tokens import Tokens
from shop_backend.vault import Vault


@dataclass(frozen=True, slots=True)
class Context:
    """The shop's parts, connected.

    Attributes:
        settings: as loaded at start.
        database: `async with database.read() as connection` (replica when there is one) or `.primary()`.
        catalog: `await catalog.products()`, `await catalog.product(sku)`, `await catalog.stock_hints()`.
        stock: reservations on the durable Redis.
        sessions: `sessions.user(request)` is the verified user id or None.
        tokens: signs order ids and order links.
        vault: opens card keys, for their owner only.
        providers: who takes, or took, the money, by name.
        redis_volatile: sessions and carts; every key there has a TTL.
        redis_durable: stock and streams.
    """

    settings: Settings
    database: Database
    catalog: Catalog
    stock: StockLedger
    sessions: Sessions
    tokens: Tokens
    vault: Vault
    providers: Mapping[str, PaymentProvider]
    redis_volatile: Redis
    redis_durable: Redis
