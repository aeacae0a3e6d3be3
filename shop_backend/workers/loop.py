"""Work that is asked for again and again."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from redis.exceptions import RedisError

from shop_backend.providers import ProviderError
from shop_backend.storage.database import is_outage

_log = logging.getLogger(__name__)

_LONGEST = 5.0  # seconds between two tries while a server is away


class Loop:
    """Calls `work` until told to stop: at once while there is some, every `interval` seconds when idle.

    Attributes:
        wake: set it to end the pause early.
    """

    def __init__(self, name: str, work: Callable[[], Awaitable[int]], interval: float) -> None:
        self._name = name
        self._work = work
        self._interval = interval
        self.wake = asyncio.Event()

    async def run(self, stop: asyncio.Event) -> None:
        """Work until told to stop; errors are logged and waited out, longer each time."""
        failures = 0
        while not stop.is_set():
            done = 0
            self.wake.clear()  # before the work: what is woken for meanwhile must not be lost
            try:
                done = await self._work()
                failures = 0
            except Exception as error:  # noqa: BLE001 - a loop that ends on an error serves nobody
                failures += 1
                if isinstance(error, RedisError | ProviderError) or is_outage(error):
                    _log.warning("%s: waiting: %s", self._name, f"{type(error).__name__}: {error}"[:300])
                else:
                    _log.exception("%s: unexpected error", self._name)
            if not done or failures:
                await self._pause(stop, min(self._interval * 2**failures, max(_LONGEST, self._interval)))

    async def _pause(self, stop: asyncio.Event, seconds: float) -> None:
        waiting = [asyncio.create_task(stop.wait()), asyncio.create_task(self.wake.wait())]
        try:
            await asyncio.wait(waiting, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in waiting:
                task.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await task
