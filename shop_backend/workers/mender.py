"""Second copies of orders, made again when the volatile Redis has lost its data.

It asks two Redis servers and nothing else, and begins before all other work of a worker: one that is born
while PostgreSQL is away may wait for that for long, and orders are accepted meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import AsyncIterator, Iterable
from typing import Any

from redis.asyncio import Redis

from shop_backend.config import Settings
from shop_backend.parts import durable_redis, volatile_redis
from shop_backend.stock import keys
from shop_backend.stock.second_copy import LIFE, NAME, write
from shop_backend.workers.loop import Loop

_log = logging.getLogger(__name__)

_MARK = "orders:second-copy:whole"  # there while nothing was forgotten
_CHUNK = 500
_INTERVAL = 1.0  # seconds


class Mender:
    """Looks whether the volatile Redis forgot.

    Args:
        volatile: where the copies are.
        durable: where the order streams are.
        streams: their names.
    """

    def __init__(self, volatile: Redis, durable: Redis, streams: Iterable[str]) -> None:
        self._volatile = volatile
        self._durable = durable
        self._streams = tuple(streams)

    async def mend(self) -> int:
        """Copy again what still waits in the order streams, when the volatile Redis has lost its data.

        An intent may be copied twice, which does no harm.

        Returns:
            How many were copied.

        Raises:
            RedisError: one of the two gives no answer; call again.
        """
        waiting = [stream for stream in self._streams if await self._durable.xlen(stream)]
        async with self._volatile.pipeline(transaction=False) as pipe:
            pipe.get(_MARK)
            pipe.exists(NAME)
            pipe.expire(_MARK, LIFE)
            mark, there, _ = await pipe.execute()
        if mark == "yes" and (there or not waiting):
            return 0
        # Not "yes" yet: what is lost while we copy would not be noticed.
        token = uuid.uuid4().hex
        await self._volatile.set(_MARK, token, ex=LIFE)
        copied = 0
        for stream in waiting:
            copied += await self._copy(stream)
        if await self._volatile.get(_MARK) == token:
            await self._volatile.set(_MARK, "yes", ex=LIFE)
        if copied:
            _log.warning("%d waiting orders copied again: the volatile Redis had lost its data", copied)
        return copied

    async def _copy(self, stream: str) -> int:
        copied, after = 0, "-"
        while True:
            found: Any = await self._durable.xrange(stream, min=after, count=_CHUNK)
            if not found:
                return copied
            await write(self._volatile, [fields for _, fields in found])
            copied += len(found)
            after = f"({found[-1][0]}"


@contextlib.asynccontextmanager
async def mending(settings: Settings) -> AsyncIterator[None]:
    """Look every second, over connections of our own, until the block ends.

    Raises:
        SetupError: a Redis is not set, or its URL malformed.
    """
    durable, volatile = durable_redis(settings), volatile_redis(settings)
    streams = [keys.on(shard, keys.ORDERS) for shard in range(settings.stock.shards)]
    mender = Mender(volatile, durable, streams)

    async def once() -> int:
        await mender.mend()
        return 0  # there is never more to do at once

    over = asyncio.Event()
    loop = asyncio.create_task(Loop("second copies", once, _INTERVAL).run(over))
    try:
        yield
    finally:
        over.set()
        await loop
        await durable.aclose()
        await volatile.aclose()
