"""A lean HTTP/1.1 client: the load shares two cores with what it measures."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from urllib.parse import urlsplit

_TIMEOUT = 15.0  # seconds; nobody waits longer for a shop


class Broken(Exception):  # noqa: N818 - an outcome among others
    """The connection was refused or cut, or no answer came in time."""


class Answer:
    """Status and body of one answer."""

    __slots__ = ("body", "head", "status")

    def __init__(self, status: int, head: bytes, body: bytes) -> None:
        self.status = status
        self.head = head
        self.body = body

    def json(self) -> Any:  # noqa: ANN401 - whatever the server says
        """The body, read."""
        return json.loads(self.body)

    def pause(self) -> float:
        """Retry-After in seconds; 1 when it is not said."""
        told = self.head.lower().partition(b"\r\nretry-after:")[2].partition(b"\r\n")[0].strip()
        return float(told) if told.isdigit() else 1.0


class _Stream(asyncio.Protocol):
    """One connection; one request at a time."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self.waiting: asyncio.Future[Answer] | None = None
        self._data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]  # TCP gives a Transport

    def data_received(self, data: bytes) -> None:
        self._data = data = self._data + data if self._data else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = data[:end]
        told = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0].strip()
        whole = end + 4 + (int(told) if told else 0)
        if len(data) < whole:
            return
        self._data = b""
        waiting, self.waiting = self.waiting, None
        if waiting is not None and not waiting.done():
            waiting.set_result(Answer(int(head[9:12]), head, data[end + 4 : whole]))

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.transport = None
        if self.waiting is not None and not self.waiting.done():
            self.waiting.set_exception(Broken("the connection was cut"))


class Line:
    """A connection to one server that is kept, and opened again when it was closed.

    Args:
        url: `http://host:port`.
    """

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port = parts.hostname or "127.0.0.1", parts.port or 80
        self._tail = f" HTTP/1.1\r\nHost: {parts.netloc}\r\n"
        self._stream: _Stream | None = None

    async def ask(self, method: str, path: str, headers: str = "", body: bytes = b"") -> Answer:
        """One exchange. `headers` are lines, each with its end.

        Raises:
            Broken: nobody knows what came of it.
        """
        if body:
            headers += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        elif method == "POST":
            headers += "Content-Length: 0\r\n"
        loop = asyncio.get_running_loop()
        try:
            transport, stream = await self._open()
            waiting: asyncio.Future[Answer] = loop.create_future()
            stream.waiting = waiting
            transport.write(f"{method} {path}{self._tail}{headers}\r\n".encode() + body)
            late = loop.call_later(_TIMEOUT, _give_up, waiting)
            try:
                return await waiting
            finally:
                late.cancel()
        except (OSError, Broken) as error:
            self.close()
            raise Broken(str(error)) from error

    async def _open(self) -> tuple[asyncio.Transport, _Stream]:
        stream = self._stream
        if stream is not None and stream.transport is not None:
            return stream.transport, stream
        loop = asyncio.get_running_loop()
        transport, self._stream = await loop.create_connection(_Stream, self._host, self._port)
        return transport, self._stream

    def close(self) -> None:
        """Cut it."""
        if self._stream is not None and self._stream.transport is not None:
            self._stream.transport.abort()
        self._stream = None


def _give_up(waiting: asyncio.Future[Answer]) -> None:
    if not waiting.done():
        waiting.set_exception(Broken("no answer in time"))
