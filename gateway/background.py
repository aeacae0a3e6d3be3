"""Work that goes on beside and that nobody awaits: what fails in it is logged, not lost."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

AGAIN = 1.0  # seconds until a loop that failed begins anew
_log = logging.getLogger("gateway")

Work = Coroutine[Any, Any, None]


class Background:
    """The tasks of one process."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def do(self, work: Work, name: str) -> None:
        """Begin it, now."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def keep(self, work: Callable[[], Work], name: str) -> None:
        """Begin it, now, and anew whenever it fails."""
        self.do(_for_ever(work, name), name)

    def cancel(self) -> None:
        """End all of it."""
        for task in self._tasks:
            task.cancel()

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("%s failed", task.get_name(), exc_info=error)


async def _for_ever(work: Callable[[], Work], name: str) -> None:
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001 - whatever it was, what depends on the loop must not end with it
            _log.exception("%s failed; it begins anew in %g s", name, AGAIN)
        await asyncio.sleep(AGAIN)
