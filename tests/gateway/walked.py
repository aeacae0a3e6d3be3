"""Coroutines of a test, run as those of requests are."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from gateway.walk import Walk


class Walked:
    """A coroutine that is run as a request's is: without a task until it needs one.

    Attributes:
        end: what came of it.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        loop = asyncio.get_running_loop()
        self.end: asyncio.Future[None] = loop.create_future()
        self._walk = Walk(coroutine, loop, self._ended)
        self._walk.resume()

    def cancel(self) -> None:
        """Its client leaves."""
        if not self.end.done():
            self._walk.cancel()

    def _ended(self, _: None, error: BaseException | None) -> None:
        if error is None:
            self.end.set_result(None)
        elif isinstance(error, asyncio.CancelledError):
            self.end.cancel()
        else:
            self.end.set_exception(error)
