"""Listening sockets: bound once by the master, and said where."""

from __future__ import annotations

import asyncio
import socket
import time
from dataclasses import dataclass

_BACKLOG = 4096
_STALLED = 15.0  # seconds
_USER_TIMEOUT: int | None = getattr(socket, "TCP_USER_TIMEOUT", None)  # Linux
_BIND_PATIENCE = 2.0  # seconds; a port just left by another process may need a moment


class StartError(Exception):
    """The gateway can't start; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Sockets:
    """Where shoppers and operators come in."""

    public: socket.socket
    admin: socket.socket

    @classmethod
    async def bound(cls, public: tuple[str, int], admin: tuple[str, int]) -> Sockets:
        """Both, listening there.

        Raises:
            StartError: one of the ports is taken.
        """
        listener = await bind(*public, "listen.port")
        try:
            operators = await bind(*admin, "admin.port")
        except StartError:
            listener.close()
            raise
        if _USER_TIMEOUT is not None:
            # A console that takes nothing more is cut off by the kernel; its connections inherit this.
            operators.setsockopt(socket.IPPROTO_TCP, _USER_TIMEOUT, int(_STALLED * 1000))
        return cls(listener, operators)


async def bind(host: str, port: int, key: str) -> socket.socket:
    """A socket that listens there.

    Args:
        host: an address.
        port: 0 takes a free one.
        key: of the configuration, for the error.

    Raises:
        StartError: the port is taken, or not ours to take.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    deadline = time.monotonic() + _BIND_PATIENCE
    while True:
        sock = socket.socket(family)
        # Lets a restart take over from connections in TIME_WAIT; never from a living listener.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            sock.listen(_BACKLOG)
        except OSError as error:
            sock.close()
            if time.monotonic() < deadline:
                await asyncio.sleep(0.1)
                continue
            said = (error.strerror or str(error)).lower()
            raise StartError(
                f"can't listen on {host}:{port}: {said}; choose another {key}, "
                f"or give --{key.removeprefix('listen.').replace('.', '-')}"
            ) from None
        else:
            return sock


def where(sock: socket.socket) -> str:
    """Its host and port, as a URL has them."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
