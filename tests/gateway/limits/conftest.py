"""Shared limits on a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import redis

from gateway.state.limits import SharedLimits
from tests.waiting import until

NewStore = Callable[..., Awaitable[SharedLimits]]


@pytest.fixture
def limits_url(redis_volatile_url: str) -> Iterator[str]:
    """An empty Redis; afterwards no key in it may live for ever."""
    yield redis_volatile_url
    with redis.Redis.from_url(redis_volatile_url) as client:
        immortal = [key for key in client.scan_iter() if client.pttl(key) == -1]
    assert not immortal


@pytest.fixture
async def new_store(limits_url: str) -> AsyncIterator[NewStore]:
    """A started store for each call; all are closed at the end."""
    stores: list[SharedLimits] = []

    async def start(url: str = limits_url, **settings: Any) -> SharedLimits:
        # A loaded test machine may hold a worker up; only tests of the time-out want it short.
        store = SharedLimits(url, **{"timeout": 5.0, "prefix": "test", "workers": 2} | settings)
        stores.append(store)
        await store.start()
        if url == limits_url:
            await until(lambda: store.up)  # the first attempt may come too late on a busy machine
        return store

    yield start
    for store in stores:
        await store.aclose()
