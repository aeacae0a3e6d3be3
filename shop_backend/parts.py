"""Connecting to what every process of the shop needs: SQL, Redis, keys, the provider."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import RedisError

from shop_backend.cache.shared_value import SharedValue
from shop_backend.catalog import Catalog
from shop_backend.config import Settings
from shop_backend.errors import SetupError
from shop_backend.providers import PaymentProvider
from shop_backend.providers.sandbox import SandboxProvider
from shop_backend.providers.stripe import StripeProvider
from shop_backend.restock import current_epoch
from shop_backend.sections import CatalogSettings
from shop_backend.stock.ledger import StockLedger
from shop_backend.storage.bounded_redis import BoundedCluster, BoundedRedis, Patience
from shop_backend.storage.database import Database
from shop_backend.storage.packed_redis import packed
from shop_backend.storage.partitions import orders_in_each
from shop_backend.tokens import Tokens

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Parts:
    """What is connected.

    Attributes:
        redis_volatile: sessions and carts.
        redis_cache: what can be read again from SQL; of its own, so that it never slows the sessions down.
        redis_streams: the durable Redis with time for blocking reads.
        providers: every payment provider that is set up, by name.
        provider: the one that takes new orders' money.
    """

    database: Database
    redis_durable: Redis
    redis_streams: Redis
    redis_volatile: Redis
    redis_cache: Redis
    stock: StockLedger
    tokens: Tokens
    providers: Mapping[str, PaymentProvider]
    provider: PaymentProvider

    def catalog(self, settings: CatalogSettings) -> Catalog:
        """What is sold, on these parts."""
        shared = SharedValue(self.redis_cache, "catalog", settings.shared_for)
        return Catalog(self.database, self.stock, shared, settings)


def redis_client(url: str, *, timeout: float, connections: int = 64, cluster: bool = False) -> BoundedRedis:
    """A client whose calls take `timeout` seconds at most, a second try on a broken connection included.

    Raises:
        SetupError: the URL is malformed.
    """
    try:
        if cluster:
            spread = cast(
                "BoundedCluster",  # typed as its base class
                BoundedCluster.from_url(
                    url,
                    decode_responses=True,
                    max_connections=connections,
                    socket_timeout=timeout,
                    socket_connect_timeout=min(timeout, 2.0),
                ),
            )
            spread.patience = Patience(timeout)
            return cast("BoundedRedis", spread)  # the same commands; redis-py gives them no common type
        pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
            url,
            decode_responses=True,
            max_connections=connections,
            timeout=timeout,
            socket_timeout=timeout,
            socket_connect_timeout=min(timeout, 2.0),
            # No health checks: a failed one reconnects, which checks again, a level deeper for each timeout.
            # Everything sent through here is idempotent, or (callbacks) deduplicated later.
            retry=Retry(ExponentialWithJitterBackoff(base=0.02, cap=0.2), 1),
        )
        pool.connection_class = packed(pool.connection_class)
    except ValueError as error:
        raise SetupError("a Redis URL is malformed; it looks like redis://host:6379/0") from error
    client = cast("BoundedRedis", BoundedRedis.from_pool(pool))  # typed as its base class
    client.patience = Patience(timeout)
    return client


def durable_redis(settings: Settings) -> Redis:
    """A client for stock and streams.

    Raises:
        SetupError: the URL is not set, or malformed.
    """
    url, stock = settings.require("stock_redis_url"), settings.stock
    return redis_client(url, timeout=stock.timeout, cluster=stock.cluster)


def volatile_redis(settings: Settings) -> Redis:
    """A client for sessions, carts and second copies.

    Raises:
        SetupError: the URL is not set, or malformed.
    """
    return redis_client(_volatile_url(settings), timeout=settings.sessions.timeout)


def _volatile_url(settings: Settings) -> str:
    return settings.require("session_redis_url" if settings.session_redis_url else "redis_url")


@contextlib.asynccontextmanager
async def connect(settings: Settings) -> AsyncIterator[Parts]:
    """Connect to everything, waiting for what is not up yet; disconnect at the end.

    Raises:
        SetupError: something is not set, malformed, or did not answer in time.
    """
    tokens = Tokens.from_file(settings.require_path("session_key_file"))
    database_url = settings.require("database_url")
    durable_url = settings.require("stock_redis_url")
    replica = settings.replica_url.get_secret_value() if settings.replica_url else None
    database = Database(database_url, settings.database, replica_url=replica)
    cluster, shards = settings.stock.cluster, settings.stock.shards
    durable = durable_redis(settings)
    streams = redis_client(
        durable_url,
        timeout=settings.workers.block + settings.stock.timeout,
        connections=8 + shards,
        cluster=cluster,
    )
    volatile = volatile_redis(settings)
    cache_url = settings.redis_url.get_secret_value() if settings.redis_url else _volatile_url(settings)
    cache = redis_client(cache_url, timeout=settings.catalog.shared_timeout)
    providers = _providers(settings)
    try:
        await database.open()
        patience = settings.database.startup_timeout
        await _answers(durable, "the durable Redis", "TIDEGATE_STOCK_REDIS_URL", patience)
        await _answers(volatile, "the volatile Redis", "TIDEGATE_SESSION_REDIS_URL", patience)
        stock = StockLedger(
            durable,
            settings.stock,
            epoch=await current_epoch(database),
            partition_orders=orders_in_each(settings.database),
        )
        yield Parts(
            database,
            durable,
            streams,
            volatile,
            cache,
            stock,
            tokens,
            providers,
            _chosen(settings, providers),
        )
    finally:
        for provider in providers.values():
            await provider.close()
        for client in (durable, streams, volatile, cache):
            await client.aclose()
        await database.close()


def _providers(settings: Settings) -> dict[str, PaymentProvider]:
    """Every provider that is set up: also one that takes no new orders has refunds and late news."""
    providers: dict[str, PaymentProvider] = {"sandbox": SandboxProvider(settings)}
    if settings.stripe_api_key is not None:
        webhook_secret = settings.stripe_webhook_secret
        providers["stripe"] = StripeProvider(
            api_key=settings.stripe_api_key.get_secret_value(),
            webhook_secret=webhook_secret.get_secret_value() if webhook_secret else "",
            public_url=settings.public_url,
            base_url=settings.stripe_url,
        )
    return providers


def _chosen(settings: Settings, providers: Mapping[str, PaymentProvider]) -> PaymentProvider:
    if settings.provider == "stripe":
        settings.require("stripe_api_key")
        settings.require("stripe_webhook_secret")  # without it every callback would be refused
    return providers[settings.provider]


async def _answers(client: Redis, what: str, variable: str, patience: float) -> None:
    deadline = time.monotonic() + patience
    while True:
        try:
            ping: Any = client.ping()
            await ping
        except (RedisError, OSError) as error:
            if time.monotonic() > deadline:
                raise SetupError(f"{what} does not answer ({error}); check {variable}") from error
            _log.info("waiting for %s: %s", what, error)
            await asyncio.sleep(0.5)
        else:
            return
