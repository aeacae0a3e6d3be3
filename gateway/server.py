"""uvicorn, made fit for the open: it accepts, drains and counts; the connections are our own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import uvicorn

from gateway.client import ClientConnection
from gateway.config import Listen


def protocol_for(listen: Listen) -> type[asyncio.Protocol]:
    """The connection class with these bounds built in; uvicorn wants a class, not an instance."""
    return type("BoundedConnection", (ClientConnection,), {"listen": listen})


class QuietServer(uvicorn.Server):
    """A server whose process handles signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the process."""
        yield


async def serve_admin(app: Any, sock: socket.socket) -> Callable[[], Awaitable[None]]:  # noqa: ANN401 - an ASGI app
    """Serve an app on a bound socket in the background; returns what stops it."""
    server = QuietServer(
        uvicorn.Config(
            app,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
    )
    task = asyncio.create_task(server.serve(sockets=[sock]), name="admin")

    async def stop() -> None:
        server.should_exit = True
        await task

    return stop
