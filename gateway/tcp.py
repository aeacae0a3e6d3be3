"""What TCP says of a client, and is told, that no event loop knows."""

from __future__ import annotations

import asyncio
import os
import socket

_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)  # Linux
_TCP_CLOSE = 7  # its first byte when the peer has reset the connection
_RESET = b"\1\0\0\0\0\0\0\0"  # struct linger: closing resets
_LAST = 256 << 10  # bytes; as much as event loops read at once


def has_reset(transport: asyncio.BaseTransport) -> bool:
    """Whether the peer has reset the connection; a loop that no longer reads does not notice."""
    sock = transport.get_extra_info("socket")
    return _TCP_INFO is not None and sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0] == _TCP_CLOSE


def reset(transport: asyncio.WriteTransport) -> None:
    """End the connection by a reset, the only sign in HTTP/1.0 that a body is not whole."""
    sock = transport.get_extra_info("socket")
    if sock is not None and sock.family != socket.AF_UNIX:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()


def last_words(transport: asyncio.BaseTransport) -> bytes:
    """What the peer had sent when the connection broke; a loop that fails to write does not read it any more.

    To be asked while `connection_lost` runs, when the socket is still there.
    """
    sock = transport.get_extra_info("socket")
    if sock is None or transport.get_extra_info("ssl_object") is not None or sock.fileno() < 0:
        return b""
    try:
        return os.read(sock.fileno(), _LAST)
    except OSError:
        return b""
