"""The proxy before Redis: passes on, holds back, lets through late."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import redis.asyncio
from redis.exceptions import RedisError

from tests.chaos.proxy import Proxy


@pytest.fixture
async def proxy(redis_volatile_url: str) -> AsyncIterator[Proxy]:
    proxy = Proxy(Path(redis_volatile_url.removeprefix("unix://").partition("?")[0]))
    await proxy.open()
    yield proxy
    await proxy.close()


def _client(proxy: Proxy, patience: float) -> redis.asyncio.Redis:
    return redis.asyncio.Redis(
        port=proxy.port, socket_timeout=patience, socket_connect_timeout=patience, decode_responses=True
    )


async def test_what_is_sent_into_a_hole_arrives_late(proxy: Proxy) -> None:
    """Nobody is answered meanwhile, also not on new connections; afterwards the command is done."""
    async with _client(proxy, 0.1) as hasty, _client(proxy, 30.0) as patient:
        await patient.set("a", 1, ex=60)
        proxy.hole()
        late = asyncio.ensure_future(patient.incr("a"))
        with pytest.raises(RedisError):
            await hasty.get("a")
        assert not late.done()
        proxy.heal()

        assert await late == 2
        assert await patient.get("a") == "2"


async def test_a_slow_way_passes_everything_on(proxy: Proxy) -> None:
    """Large values arrive whole, in both directions."""
    async with _client(proxy, 30.0) as client:
        proxy.slow(0.001)
        await client.set("large", "x" * 1_000_000, ex=60)

        assert await client.get("large") == "x" * 1_000_000


async def test_a_server_that_is_away_closes_the_connection(tmp_path: Path) -> None:
    """As the server itself would: the client learns at once, and need not wait."""
    proxy = Proxy(tmp_path / "nobody.sock")
    await proxy.open()
    async with _client(proxy, 30.0) as client:
        with pytest.raises(redis.ConnectionError):
            await client.ping()
    await proxy.close()
