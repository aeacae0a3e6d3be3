"""Shared limits on a real Redis, and a Redis of a test's own to stop and start."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from gateway.state.limits import SharedLimits
from ops import embedded

Eventually = Callable[[Callable[[], object]], Awaitable[None]]
NewStore = Callable[..., Awaitable[SharedLimits]]


@pytest.fixture
def eventually() -> Eventually:
    """Wait, without holding up the loop, until a condition is true."""

    async def wait(condition: Callable[[], object], within: float = 15.0) -> None:
        async with asyncio.timeout(within):
            while not condition():  # noqa: ASYNC110 - what happens is outside this process
                await asyncio.sleep(0.005)

    return wait


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
        return store

    yield start
    for store in stores:
        await store.aclose()


class OwnRedis:
    """A Redis server that a test may freeze, kill and start again."""

    def __init__(self, folder: Path) -> None:
        self._server = embedded.EmbeddedRedis("volatile", folder / "data", folder)
        self._log = folder / "redis.log"
        self.url = self._server.url()
        self.start()

    def start(self) -> None:
        self._service = self._server.service()
        self._process = embedded.start(self._service, self._log)

    def stop(self) -> None:
        self.thaw()
        embedded.stop(self._process, self._service)

    def freeze(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGCONT)


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory, short_tmp: Path) -> Iterator[OwnRedis]:
    """A Redis of this test's own."""
    folder = short_tmp / tmp_path_factory.mktemp("own").name
    folder.mkdir()
    server = OwnRedis(folder)
    yield server
    server.stop()
