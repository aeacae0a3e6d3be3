"""Redis whose every call ends in time, and that is left alone for a moment after it gave no answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.cluster import ClusterPipeline, RedisCluster
from redis.exceptions import ResponseError
from redis.exceptions import TimeoutError as RedisTimeoutError

_AWAY_FOR = 0.75  # seconds without calls after a server gave nobody an answer


class Away(RedisTimeoutError):  # noqa: N818 - reads as what it says
    """Redis does not answer: this call was given up, or not even made."""


class Patience:
    """How long calls to one server may take, and whether it is worth calling now.

    A call that runs out of time while others get their answers is only late. When nobody was answered
    since it began, the server is away: calls then fail at once for a moment, and after that one call
    at a time finds out whether it is back.

    Args:
        limit: seconds that one call may take, waiting for a connection and retries included.
        away_for: seconds in which nobody asks a server that is away.
        clock: monotonic seconds.
    """

    def __init__(
        self, limit: float, *, away_for: float = _AWAY_FOR, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit
        self._away_for = away_for
        self._clock = clock
        self._away_until: float | None = None  # by the clock; None: it answers
        self._answered_at = float("-inf")
        self._probing = False

    @asynccontextmanager
    async def call(self) -> AsyncIterator[None]:
        """Around one call.

        Raises:
            Away: it took too long, or the server is away.
        """
        began = self._clock()
        probe = self._away_until is not None
        if self._away_until is not None:
            if began < self._away_until or self._probing:
                raise Away("Redis gave no answer a moment ago; not asked again yet")
            self._probing = True
        try:
            async with asyncio.timeout(self._limit):
                yield
        except (TimeoutError, RedisTimeoutError) as error:
            if self._answered_at < began:
                self._away_until = self._clock() + self._away_for
            raise Away(f"Redis gave no answer in {self._limit:g} s") from error
        except ResponseError:
            self._answered()
            raise
        else:
            self._answered()
        finally:
            if probe:
                self._probing = False

    def _answered(self) -> None:
        self._answered_at = self._clock()
        self._away_until = None


class BoundedRedis(Redis):
    """A client whose commands, scripts and pipelines end within `limit` seconds.

    The limits of redis-py are for single reads and writes; reconnecting and retrying add up. A call that
    is cut short closes its connection (redis-py does so on cancellation): no later caller reads its answer.
    """

    patience: Patience

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as redis-py has it
        """As in redis-py; raises Away when there is no answer in time."""
        async with self.patience.call():
            return await super().execute_command(*args, **options)  # type: ignore[no-untyped-call]  # as above

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> Pipeline:
        """As in redis-py; its `execute` raises Away when there is no answer in time."""
        pipe = _BoundedPipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipe.patience = self.patience
        return pipe


class BoundedCluster(RedisCluster):
    """The same before a Redis Cluster: following a slot to another node counts as part of the call."""

    patience: Patience

    async def execute_command(self, *args: Any, **options: Any) -> Any:  # noqa: ANN401 - as redis-py has it
        """As in redis-py; raises Away when there is no answer in time."""
        async with self.patience.call():
            return await super().execute_command(*args, **options)

    def pipeline(self, transaction: Any = None, shard_hint: Any = None) -> ClusterPipeline:  # noqa: ANN401 - the same
        """As in redis-py; its `execute` raises Away when there is no answer in time."""
        del shard_hint  # which slot it is, the keys say
        pipe = _BoundedClusterPipeline(self, transaction)  # type: ignore[abstract]  # redis-py's own slip
        pipe.patience = self.patience
        return pipe


class _BoundedClusterPipeline(ClusterPipeline):
    patience: Patience

    async def execute(self, raise_on_error: bool = True, allow_redirections: bool = True) -> list[Any]:
        """All commands, by slot; raises Away when there is no answer in time."""
        async with self.patience.call():
            return await super().execute(raise_on_error, allow_redirections)


class _BoundedPipeline(Pipeline):
    patience: Patience

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """All commands at once; raises Away when there is no answer in time."""
        async with self.patience.call():
            return await super().execute(raise_on_error)
