"""Until when somebody waits for the answer, by the gateway's Tidegate-Deadline; work beyond it is dropped.

Under overload most of a slow shop's work is for clients who have been told "too late" already, and it keeps
those who still wait from being served in time.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Literal

from starlette.types import ASGIApp, Receive, Scope, Send

from shop_backend.errors import TooLate, problem
from shop_backend.metrics import DROPPED

HEADER = b"tidegate-deadline"  # milliseconds that are left
_LEAST = 0.005  # seconds; with less, an answer that is begun now comes too late
_DIGITS = 9  # more would be years

At = Literal["arrival", "stock", "database"]

_until: ContextVar[float | None] = ContextVar("deadline", default=None)  # monotonic


class Deadlines:
    """ASGI middleware: a request has as long as its Tidegate-Deadline says; without one, all it takes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, unless it is too late already."""
        until = _read(scope) if scope["type"] == "http" else None
        token = _until.set(until)
        try:
            if until is not None:
                check("arrival")
            await self._app(scope, receive, send)
        except TooLate as late:  # the app turns its own into answers
            await problem(late)(scope, receive, send)
        finally:
            _until.reset(token)


def _read(scope: Scope) -> float | None:
    given = [value for name, value in scope["headers"] if name == HEADER]
    if len(given) != 1 or not given[0].isdigit() or len(given[0]) > _DIGITS:
        return None
    return time.monotonic() + int(given[0]) / 1000


def left() -> float | None:
    """Seconds until nobody waits any more, perhaps negative; None when that is not known."""
    until = _until.get()
    return None if until is None else until - time.monotonic()


def check(at: At) -> None:
    """To be asked before work that can't be taken back or costs much.

    Raises:
        TooLate: nobody waits for it.
    """
    remaining = left()
    if remaining is not None and remaining < _LEAST:
        raise _too_late(at)


@contextlib.asynccontextmanager
async def bounded(at: At) -> AsyncIterator[None]:
    """Around work that ends when nobody waits for it any more: a statement that runs is cancelled.

    Raises:
        TooLate: that came before its end.
    """
    remaining = left()
    if remaining is None:
        yield
        return
    if remaining < _LEAST:
        raise _too_late(at)
    timer = asyncio.timeout(remaining)
    try:
        async with timer:
            yield
    except TimeoutError:
        if not timer.expired():
            raise
        raise _too_late(at) from None


def lift() -> None:
    """For a task that works for several: the deadline of the one who began it is not theirs."""
    _until.set(None)


def _too_late(at: At) -> TooLate:
    DROPPED.labels(at).inc()
    return TooLate("the time for this answer is over; try again", retry_after=1)
