"""What was ordered leaves its buyer's cart."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from pathlib import Path

from redis.asyncio import Redis

_SCRIPT = Path(__file__).with_name("take_out.lua")
_WAITING = 10_000  # lines; while Redis is away the oldest are forgotten, and stay in their carts
_BATCH = 500

Line = tuple[str, str, int]  # user, SKU, quantity


class CartKeeper:
    """Takes ordered lines out of carts, behind the orders' backs: nobody waits for it.

    Args:
        redis: where the carts are.
    """

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._take_out = redis.register_script(_SCRIPT.read_text(encoding="utf-8"))
        self._waiting: deque[Line] = deque(maxlen=_WAITING)

    def ordered(self, lines: Iterable[Line]) -> None:
        """Note what is to be taken out."""
        self._waiting.extend(lines)

    async def work(self) -> int:
        """Take out what is noted; how many lines.

        Raises:
            RedisError: not done; they are tried again.
        """
        batch = [self._waiting.popleft() for _ in range(min(_BATCH, len(self._waiting)))]
        if not batch:
            return 0
        try:
            async with self._redis.pipeline(transaction=False) as pipe:
                for user, sku, quantity in batch:
                    await self._take_out(keys=[f"cart:{user}"], args=[sku, quantity], client=pipe)
                await pipe.execute()
        except BaseException:
            self._waiting.extendleft(reversed(batch[: _WAITING - len(self._waiting)]))
            raise
        return len(batch)
