"""A value that all processes share in Redis. Its version comes from SQL: only the newest is ever kept."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shop_backend.metrics import CACHE

_FOLDER = Path(__file__).parent
_FLOOR_FOR = 86400.0  # seconds for which the oldest version allowed is remembered; no reader is that slow
_JITTER = 0.2  # of the lifetime: values that were put together do not go together


class SharedValue:
    """One value. Redis being away is a miss, never an error.

    A reader that saw an older version, because it was slow or its replica is behind, can't write it
    back: `put` refuses what is below the floor, or below what is there.

    Args:
        redis: where it is kept.
        name: of its keys, and of the metrics' level.
        lifetime: seconds it is kept, up to a fifth less; 0 keeps nothing.
    """

    def __init__(self, redis: Redis, name: str, lifetime: float) -> None:
        self._redis = redis
        self._lifetime = lifetime
        # One hash slot, so one node: the scripts need both.
        self._keys = [f"cache:{{{name}}}", f"cache:{{{name}}}:floor"]
        self._put = redis.register_script((_FOLDER / "put.lua").read_text(encoding="utf-8"))
        self._outdate = redis.register_script((_FOLDER / "outdate.lua").read_text(encoding="utf-8"))
        self._hit, self._missed, self._away, self._refused = (
            CACHE.labels("shared", result) for result in ("hit", "miss", "away", "refused")
        )

    async def get(self) -> str | None:
        """The value, or None."""
        found: Any = await self._ask(lambda: self._redis.hget(self._keys[0], "body"))
        if found is not None:
            self._hit.inc()
            return str(found)
        return None

    async def version(self) -> int | None:
        """Of the value that is there, or None."""
        found: Any = await self._ask(lambda: self._redis.hget(self._keys[0], "version"))
        return None if found is None else int(found)

    async def put(self, version: int, body: bytes) -> bool:
        """Keep it, unless something newer is known; whether it is kept now."""
        if not self._lifetime:
            return False
        lifetime = self._lifetime * (1.0 - _JITTER * random.random())  # noqa: S311 - jitter
        words: list[int | bytes] = [version, body, max(1, int(lifetime * 1000))]
        kept: Any = await self._ask(lambda: self._put(keys=self._keys, args=words))
        if kept == 0:
            self._refused.inc()
        return bool(kept == 1)

    async def outdate(self, version: int) -> None:
        """What is older than `version` goes, and may not come back: to be called after the commit."""
        words = [version, int(_FLOOR_FOR * 1000)]
        await self._ask(lambda: self._outdate(keys=self._keys, args=words))

    async def _ask(self, call: Any) -> Any:  # noqa: ANN401 - whatever Redis answers
        if not self._lifetime:
            return None
        try:
            answer = await call()
        except RedisError:
            self._away.inc()
            return None
        if answer is None:
            self._missed.inc()
        return answer
