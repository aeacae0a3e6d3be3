"""Accepted orders, kept a second time on another server until SQL surely has them.

The durable Redis survives kill -9 by itself. It does not survive its disk: an order that was answered 202 and
that no worker has read yet would be gone. So its intent also goes to the volatile Redis, before the answer;
both have to be lost within the same moment for an order to be lost. What the volatile Redis forgets, a worker
copies again from the streams, so that this moment stays short also while workers can't write.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import AsyncIterator, Iterable
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shop_backend.stock.records import Hold, Intent

_log = logging.getLogger(__name__)

NAME = "orders:second-copy"
_MARK = "orders:second-copy:whole"  # there while nothing was forgotten
_KEPT = 100_000  # intents; workers are far behind when so many are not in SQL yet
_LIFE = 3600  # seconds
_CHUNK = 500


class SecondCopy:
    """The intents of the last hour, oldest first, as the order stream has them."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def keep(self, intent: Intent, hold: Hold, mark: str) -> bool:
        """Write an intent that was accepted under the epoch `mark` down again; whether that worked.

        An order is not refused for want of a second copy: the first one is durable.
        """
        fields: dict[Any, Any] = {
            # As reserve.lua writes them.
            "order_id": hold.order_id,
            "user": intent.user,
            "sku": intent.sku,
            "quantity": intent.quantity,
            "email": intent.email,
            "unit_cents": intent.unit_cents,
            "currency": intent.currency,
            "expires_ms": hold.expires_ms,
            "at_ms": hold.round // 1000,
            "round": hold.round,
            "epoch": mark,
            "trace": intent.trace,
            "language": intent.language,
            "phone": intent.phone,
            "body": intent.body,
        }
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                pipe.xadd(NAME, fields, maxlen=_KEPT, approximate=True)
                pipe.expire(NAME, _LIFE)
                await pipe.execute()
        except RedisError as error:
            _log.warning("order %s has no second copy: %s", hold.order_id, type(error).__name__)
            return False
        return True

    async def mend(self, durable: Redis, streams: Iterable[str]) -> int:
        """Copy again what still waits in the order streams, when the volatile Redis has lost its data.

        An intent may be copied twice, which does no harm.

        Returns:
            How many were copied.

        Raises:
            RedisError: one of the two gives no answer; call again.
        """
        waiting = [stream for stream in streams if await durable.xlen(stream)]
        async with self._redis.pipeline(transaction=False) as pipe:
            pipe.get(_MARK)
            pipe.exists(NAME)
            pipe.expire(_MARK, _LIFE)
            mark, there, _ = await pipe.execute()
        if mark == "yes" and (there or not waiting):
            return 0
        # Not "yes" yet: what is lost while we copy would not be noticed.
        token = uuid.uuid4().hex
        await self._redis.set(_MARK, token, ex=_LIFE)
        copied = 0
        for stream in waiting:
            copied += await self._copy(durable, stream)
        if await self._redis.get(_MARK) == token:
            await self._redis.set(_MARK, "yes", ex=_LIFE)
        if copied:
            _log.warning("%d waiting orders copied again: the volatile Redis had lost its data", copied)
        return copied

    async def _copy(self, durable: Redis, stream: str) -> int:
        copied, after = 0, "-"
        while True:
            found: Any = await durable.xrange(stream, min=after, count=_CHUNK)
            if not found:
                return copied
            async with self._redis.pipeline(transaction=False) as pipe:
                for _, fields in found:
                    pipe.xadd(NAME, fields, maxlen=_KEPT, approximate=True)
                pipe.expire(NAME, _LIFE)
                await pipe.execute()
            copied += len(found)
            after = f"({found[-1][0]}"

    async def chunks(self) -> AsyncIterator[list[dict[str, str]]]:
        """Every intent, some at a time.

        Raises:
            RedisError: the volatile Redis gives no answer.
        """
        after = "-"
        while True:
            found: Any = await self._redis.xrange(NAME, min=after, count=_CHUNK)
            if not found:
                return
            yield [fields for _, fields in found]
            after = f"({found[-1][0]}"
