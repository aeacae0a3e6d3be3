"""A value of this process, loaded by one caller for all who wait."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from shop_backend import deadline
from shop_backend.errors import Unavailable
from shop_backend.metrics import CACHE

T = TypeVar("T")
Clock = Callable[[], float]  # seconds, monotonic

_STALE_FOR = 300.0  # seconds; while SQL is away, old answers are better than none
_JITTER = 0.2  # of `fresh_for`: processes that began together do not ask together for ever


class SingleFlight(Generic[T]):
    """One value, loaded by one caller for all who wait; kept for `fresh_for` seconds.

    The loading goes on when its caller is cancelled or has no more time. When loading fails, the old value
    serves for some minutes more.

    Args:
        load: how the value comes.
        fresh_for: seconds it is kept, up to a fifth less.
        clock: monotonic seconds.
        level: the cache's name in the metrics.
        patience: seconds after which callers no longer wait for a loading; None for as long as it takes.
        stale_for: seconds an old value serves when loading fails.
    """

    def __init__(
        self,
        load: Callable[[], Awaitable[T]],
        fresh_for: float,
        *,
        clock: Clock,
        level: str,
        patience: float | None = None,
        stale_for: float = _STALE_FOR,
    ) -> None:
        self._load = load
        self._fresh_for = fresh_for
        self._clock = clock
        self._level = level
        self._patience = patience
        self._stale_for = stale_for
        self._loading_since = 0.0  # the event loop's time
        self._value: T | None = None
        self._fresh_until = float("-inf")
        self._loaded_at = float("-inf")
        self._loading: asyncio.Task[T] | None = None

    async def get(self) -> T:
        """The value.

        Raises:
            Unavailable: it can't be loaded and there is no old one.
        """
        if self._value is not None and self._clock() < self._fresh_until:
            CACHE.labels(self._level, "hit").inc()
            return self._value
        loading = self._loading
        CACHE.labels(self._level, "miss" if loading is None else "joined").inc()
        if loading is None:
            self._loading = loading = asyncio.create_task(self._fill())
            loading.add_done_callback(self._done)
            self._loading_since = asyncio.get_running_loop().time()
        try:
            until = None if self._patience is None else self._loading_since + self._patience
            left = deadline.left()
            if left is not None:
                soon = asyncio.get_running_loop().time() + left
                until = soon if until is None else min(until, soon)
            async with asyncio.timeout_at(until):
                return await asyncio.shield(loading)
        except Exception as error:
            if self._value is not None and self._clock() - self._loaded_at < self._stale_for:
                CACHE.labels(self._level, "stale").inc()
                return self._value
            raise Unavailable("the catalogue can't be read just now; try again", retry_after=2) from error

    def forget(self) -> None:
        """Load anew at the next call. A loading under way is only for those who wait for it by now."""
        self._fresh_until = float("-inf")
        self._loading = None

    async def _fill(self) -> T:
        deadline.lift()
        asked_at = self._clock()  # a value is as old as its question
        value = await self._load()
        if self._loading is asyncio.current_task():
            self._value = value
            self._loaded_at = asked_at
            self._fresh_until = asked_at + self._fresh_for * (1.0 - _JITTER * random.random())  # noqa: S311 - jitter
        return value

    def _done(self, task: asyncio.Task[T]) -> None:
        if self._loading is task:
            self._loading = None
        with contextlib.suppress(asyncio.CancelledError):
            task.exception()  # the waiting ones got it; nobody waiting is no reason to complain
