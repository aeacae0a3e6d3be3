"""The two ends of the gateway as strict as can be: an upstream that counts, a client that reads answers."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

_REQUEST_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+) (/[!-~]*) HTTP/1\.1")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+): ?([\t -~\x80-\xff]*)")
_STATUS_LINE = re.compile(rb"HTTP/1\.1 ([1-5][0-9]{2}) [ -~]*")
_CHUNK_SIZE = re.compile(rb"[0-9a-f]{1,8}")
RESET = struct.pack("ii", 1, 0)  # linger: closing resets


class Violation(Exception):  # noqa: N818 - what it is named for
    """Bytes that break HTTP/1.1."""


@dataclass
class Message:
    """A request or an answer, whole."""

    first: bytes
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    status: int = 0
    until_close: bool = False

    def values(self, name: bytes) -> list[bytes]:
        return [value for field_name, value in self.fields if field_name.lower() == name]

    @property
    def method(self) -> bytes:
        return self.first.split(b" ")[0]

    @property
    def target(self) -> bytes:
        return self.first.split(b" ")[1]

    @property
    def closes(self) -> bool:
        return self.until_close or b"close" in self.values(b"connection")


async def _head(reader: asyncio.StreamReader, line: re.Pattern[bytes]) -> Message | None:
    """The next header section; None at a clean end."""
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as end:
        if end.partial:
            raise Violation(f"cut off in a header: {end.partial[:200]!r}") from None
        return None
    first, *lines = head[:-4].split(b"\r\n")
    if not line.fullmatch(first):
        raise Violation(f"no such first line: {first!r}")
    fields = []
    for text in lines:
        match = _FIELD.fullmatch(text)
        if match is None:
            raise Violation(f"no such field: {text!r}")
        fields.append((match[1], match[2]))
    return Message(first, fields)


async def _body(reader: asyncio.StreamReader, message: Message) -> bytes:
    lengths, codings = message.values(b"content-length"), message.values(b"transfer-encoding")
    if len(lengths) + len(codings) > 1:
        raise Violation(f"framed more than once: {lengths} {codings}")
    if lengths:
        if not lengths[0].isdigit():
            raise Violation(f"no length: {lengths[0]!r}")
        return await reader.readexactly(int(lengths[0]))
    if not codings:
        return b""
    if codings != [b"chunked"]:
        raise Violation(f"no such coding: {codings}")
    body = b""
    while True:
        size = (await reader.readuntil(b"\r\n"))[:-2]
        if not _CHUNK_SIZE.fullmatch(size):
            raise Violation(f"no chunk size: {size!r}")
        chunk = await reader.readexactly(int(size, 16) + 2)
        if chunk[-2:] != b"\r\n":
            raise Violation(f"a chunk that ends in {chunk[-2:]!r}")
        if len(chunk) == 2:
            return body
        body += chunk[:-2]


async def read_request(reader: asyncio.StreamReader) -> Message | None:
    """One request, or None when no more comes."""
    message = await _head(reader, _REQUEST_LINE)
    if message is not None:
        if len(message.values(b"host")) != 1:
            raise Violation(f"not one Host: {message.fields}")
        message.body = await _body(reader, message)
    return message


async def read_answer(reader: asyncio.StreamReader, method: bytes = b"GET") -> Message | None:
    """One final answer, interim ones left out; None when the connection ended before it."""
    while True:
        message = await _head(reader, _STATUS_LINE)
        if message is None:
            return None
        message.status = int(message.first.split(b" ")[1])
        if message.status >= 200:
            break
    if method == b"HEAD" or message.status in {204, 304}:
        return message
    if not message.values(b"content-length") and not message.values(b"transfer-encoding"):
        message.until_close = True
        message.body = await reader.read()
    else:
        message.body = await _body(reader, message)
    return message


Handler = Callable[["Message", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Upstream:
    """Counts whole requests, notes every violation, answers with what it got unless a path is scripted."""

    seen: list[Message] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    scripts: dict[bytes, Handler] = field(default_factory=dict)
    connections: set[asyncio.StreamWriter] = field(default_factory=set)
    port: int = 0
    _server: asyncio.Server | None = None

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=1024)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in list(self.connections):
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections.add(writer)
        try:
            while (message := await read_request(reader)) is not None:
                self.seen.append(message)
                await self.scripts.get(message.target.partition(b"?")[0], echo)(message, writer)
                await writer.drain()
        except Violation as violation:
            self.violations.append(str(violation))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # cut off in mid-body: not a whole request
        finally:
            self.connections.discard(writer)
            writer.close()


async def echo(message: Message, writer: asyncio.StreamWriter) -> None:
    body = b"%b %b %b" % (message.method, message.target, message.body)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body)
    writer.write(head if message.method == b"HEAD" else head + body)


class Client:
    """A connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    @classmethod
    async def to(cls, port: int, *, receive_buffer: int = 0) -> Client:
        sock = socket.socket()
        if receive_buffer:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", port))
        return cls(*await asyncio.open_connection(sock=sock))

    async def __aenter__(self) -> Client:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.writer.transport.abort()

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def end(self) -> None:
        """Send no more."""
        with contextlib.suppress(OSError):  # the gateway was first
            self.writer.write_eof()

    def reset(self) -> None:
        """Leave rudely."""
        with contextlib.suppress(OSError):  # the gateway was first
            self.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.writer.transport.abort()

    async def answer(self, method: bytes = b"GET") -> Message | None:
        return await read_answer(self.reader, method)

    async def rest(self) -> bytes:
        """All that comes until the gateway closes."""
        with contextlib.suppress(ConnectionError):
            return await self.reader.read()
        return b"(reset)"
