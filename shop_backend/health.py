"""Whether the process lives, and whether its servers answer: asked by anyone, so cheap and quick."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shop_backend import deadline
from shop_backend.context import Context

_PATIENCE = 0.8  # seconds one answer may take
_FRESH_FOR = 0.5  # seconds an answer is given again
_NO_STORE = {"cache-control": "no-store"}


class Readiness:
    """Asks every server at the same time, once for all who want to know.

    Args:
        probes: by the server's name; each raises when its server is away.
        patience: seconds after which a server counts as away.
        fresh_for: seconds in which nobody is asked again.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        probes: Mapping[str, Callable[[], Awaitable[Any]]],
        *,
        patience: float = _PATIENCE,
        fresh_for: float = _FRESH_FOR,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._probes = probes
        self._patience = patience
        self._fresh_for = fresh_for
        self._clock = clock
        self._running: dict[str, asyncio.Task[Any]] = {}  # also those nobody waits for any longer
        self._asking: asyncio.Task[dict[str, str]] | None = None
        self._asked_at = float("-inf")

    @property
    def names(self) -> tuple[str, ...]:
        """The servers that are asked."""
        return tuple(self._probes)

    async def state(self) -> dict[str, str]:
        """By server: "ok", or the name of the error."""
        if self._asking is None or (
            self._asking.done() and self._clock() - self._asked_at >= self._fresh_for
        ):
            self._asked_at = self._clock()
            self._asking = asyncio.create_task(self._ask())
        return await asyncio.shield(self._asking)

    async def close(self) -> None:
        """Stop asking."""
        tasks = [*self._running.values(), *([self._asking] if self._asking else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask(self) -> dict[str, str]:
        deadline.lift()
        for name, probe in self._probes.items():
            # A probe that hangs is not joined by a second one.
            if name not in self._running:
                task = asyncio.ensure_future(probe())
                self._running[name] = task
                task.add_done_callback(lambda done, name=name: self._ended(name, done))  # type: ignore[misc]  # a default binds the name
        asked = dict(self._running)
        await asyncio.wait(asked.values(), timeout=self._patience)
        return {name: _word(asked[name]) for name in self._probes}

    def _ended(self, name: str, task: asyncio.Task[Any]) -> None:
        del self._running[name]
        with contextlib.suppress(asyncio.CancelledError):
            task.exception()  # looked at, so that nobody complains


def _word(task: asyncio.Task[Any]) -> str:
    if not task.done():
        return "no answer"
    error = asyncio.CancelledError() if task.cancelled() else task.exception()
    return "ok" if error is None else type(error).__name__


def readiness(context: Context) -> Readiness:
    """What this shop stands on."""

    async def ask_database() -> None:
        async with context.database.primary() as connection:
            await connection.execute("SELECT 1")

    async def ask_stock() -> None:
        await cast("Awaitable[Any]", context.redis_durable.ping())

    async def ask_sessions() -> None:
        await cast("Awaitable[Any]", context.redis_volatile.ping())

    return Readiness({"database": ask_database, "stock": ask_stock, "sessions": ask_sessions})


def routes(servers: Readiness) -> list[Route]:
    """`/livez` and `/readyz`."""

    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers=_NO_STORE)

    async def readyz(_: Request) -> Response:
        state = await servers.state()
        # Without sessions Redis the shop still sells: that must not take it out of the gateway.
        ready = state["database"] == state["stock"] == "ok"
        return JSONResponse(state, 200 if ready else 503, _NO_STORE)

    return [Route("/livez", livez, methods=["GET"]), Route("/readyz", readyz, methods=["GET"])]
