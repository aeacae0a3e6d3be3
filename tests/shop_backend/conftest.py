"""A shop of the tests: its settings, its goods, and what starts it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from shop_backend.config import Settings
from tests.shop_backend.driven import SECRET, Shop, open_shop
from tests.shop_backend.goods import CARD_KEY, fill, write_catalog
from tests.waiting import PATIENCE


@pytest.fixture
def shop_settings(
    tmp_path: Path, migrated_database_url: str, redis_durable_url: str, redis_volatile_url: str
) -> Settings:
    """Settings of a shop with every part of its own, migrated, not seeded."""
    key = tmp_path / "session.pem"
    key.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return Settings.model_validate(
        {
            "database_url": migrated_database_url,
            "stock_redis_url": redis_durable_url,
            "redis_url": redis_volatile_url,
            "card_key": CARD_KEY,
            "session_key_file": key,
            "sandbox_secret": SECRET,
            "sandbox_url": "http://sandbox.test",
            "public_url": "http://shop.test",
            "shop_url": "http://127.0.0.1:1",  # nobody listens: the tests send callbacks themselves
            "data_dir": tmp_path,
            # Patient: a thousand buyers at once on a busy machine are no outage.
            "database": {
                "acquire_timeout": PATIENCE,
                "statement_timeout": PATIENCE,
                "lock_timeout": PATIENCE,
            },
            "catalog": {
                "directory": write_catalog(tmp_path / "catalog"),
                "fresh_for": 0,
                "shared_for": 0,
                "shared_timeout": PATIENCE,
                "stock_timeout": PATIENCE,
            },
            "sessions": {"timeout": PATIENCE},
            "stock": {"timeout": PATIENCE},
            "workers": {"block": 0, "retry_after": 0, "abandoned_after": 0},
        }
    )


@pytest.fixture
async def shop(shop_settings: Settings) -> AsyncIterator[Shop]:
    """A seeded shop: `client` speaks to its app, `provider` to the sandbox; workers are called by hand."""
    fill(shop_settings)
    async with open_shop(shop_settings) as running:
        yield running


OpenShop = Callable[[Settings], contextlib.AbstractAsyncContextManager[Shop]]


@pytest.fixture
def fill_shop() -> Callable[[Settings], None]:
    """`fill_shop(settings)`: seed the tests' catalogue."""
    return fill


@pytest.fixture
def start_shop() -> OpenShop:
    """`start_shop(settings)`: a second shop process's worth of parts, or one on changed settings."""
    return open_shop
