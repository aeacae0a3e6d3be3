"""For which SKU a key was used: of use where the SKUs are spread over slots that no script sees together."""

from __future__ import annotations

from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shop_backend.stock import keys
from shop_backend.stock.refusals import away, reused


class Claims:
    """Remembers them; with one shard there is nothing to remember.

    Args:
        lifetime: seconds.
    """

    def __init__(self, redis: Redis, shards: int, *, lifetime: float) -> None:
        self._redis = redis
        self._shards = shards
        self._lifetime = int(lifetime * 1000)

    async def make(self, seed: str, sku: str) -> None:
        """Notice a key that was used for an SKU of another shard, whose hold the script can't see.

        Between two such requests at the same moment both may be held; SQL takes one and gives the other back.

        Raises:
            KeyReused: that SKU has a hold under this seed.
            Unavailable: Redis gave no answer.
        """
        if self._shards == 1:
            return
        name = self._key(seed)
        try:
            claimed: Any = await self._redis.set(name, sku, nx=True, get=True, px=self._lifetime)
            if claimed is None or claimed == sku:
                return
            shard = keys.shard_of(claimed, self._shards)
            if shard != keys.shard_of(sku, self._shards):
                if await self._redis.exists(keys.on(shard, keys.HOLD) + seed):
                    raise reused()
                await self._redis.set(name, sku, px=self._lifetime)  # it was refused then
        except RedisError as error:
            raise away(error) from error

    async def shard_of(self, seed: str) -> int:
        """Where the hold of a seed is, if there is one.

        Raises:
            RedisError: Redis gave no answer.
        """
        if self._shards == 1:
            return 0
        sku: Any = self._redis.get(self._key(seed))
        return keys.shard_of(await sku or "", self._shards)

    def _key(self, seed: str) -> str:
        return keys.on(keys.shard_of(seed, self._shards), keys.CLAIM) + seed
