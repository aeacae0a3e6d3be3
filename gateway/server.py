"""uvicorn, made fit for the open: it accepts, drains and counts; the connections are our own."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import socket
import struct
import sys
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any, cast

import uvicorn

from gateway.bounds import Bounds
from gateway.client import ClientConnection
from gateway.config import Listen

HANDSHAKE = 0.1  # seconds; round trips that a handshake under way may still take
# Classic BPF on a TCP header: drop what has SYN and not ACK, take the rest.
_NO_NEWCOMERS = (
    (0x30, 0, 0, 13),  # load the byte of flags
    (0x54, 0, 0, 0x12),  # and it with SYN|ACK
    (0x15, 0, 1, 0x02),  # only SYN?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # take
)
_SO_ATTACH_FILTER = 26  # Linux
_HANDLES_CLOSE = 0.01  # seconds; the loop closes its handles on its next turns, not at once


def protocol_for(bounds: Bounds) -> type[asyncio.Protocol]:
    """What makes a connection of these bounds: uvicorn asks for a class, and only calls it."""
    return cast("type[asyncio.Protocol]", partial(ClientConnection, bounds))


def deafen(listener: socket.socket) -> None:
    """Let no new connection begin, while those half made are finished and accepted.

    A listening socket that just closes resets whoever is in its queue, with a request perhaps already sent.
    Newcomers are ignored instead: they ask again within a second, and find the door closed, or a successor's.
    Elsewhere than on Linux this does nothing.
    """
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in _NO_NEWCOMERS)
    buffer = ctypes.create_string_buffer(code)
    program = struct.pack("HL", len(_NO_NEWCOMERS), ctypes.addressof(buffer))
    if sys.platform == "linux":
        with contextlib.suppress(OSError):
            listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)


class QuietServer(uvicorn.Server):
    """A server whose process handles signals itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the process."""
        yield

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the door, then let in whoever has knocked already, so that nobody is reset; then drain."""
        doors = [sock.dup() for sock in sockets or []]
        for server in self.servers:
            server.close()
        for sock in sockets or []:
            sock.close()
        await asyncio.sleep(_HANDLES_CLOSE)
        late: list[socket.socket] = []
        for door in doors:  # in one breath: what knocks after the last accept is reset when the door closes
            with contextlib.suppress(OSError):
                while True:
                    late.append(door.accept()[0])
            door.close()
        for sock in late:
            with contextlib.suppress(OSError):
                await self._admit(sock)
        await super().shutdown(sockets)

    async def _admit(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        make: Callable[..., asyncio.Protocol] = self.config.http_protocol_class  # uvicorn's union of classes
        await asyncio.get_running_loop().connect_accepted_socket(
            lambda: make(config=self.config, server_state=self.server_state, app_state={}), sock
        )


async def serve_admin(
    app: Any,  # noqa: ANN401 - an ASGI app
    sock: socket.socket,
    listen: Listen,
) -> Callable[[], Awaitable[None]]:
    """Serve an app on a bound socket in the background; returns what stops it."""
    server = QuietServer(
        uvicorn.Config(
            app,
            http=protocol_for(Bounds(listen)),
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
