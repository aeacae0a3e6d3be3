"""A scripted upstream on a real socket, and what the tests build upon it."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from typing import Any

from gateway import config
from gateway.exchange import Clock, Exchange, Headers
from gateway.upstream.proxy import Upstream

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

Talk = Callable[["Peer"], Awaitable[None]]


class Peer:
    """The upstream's end of one connection."""

    def __init__(self, number: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.number = number  # of the connection, from 0
        self.reader = reader
        self.writer = writer

    async def request(self) -> bytes:
        """The next request's head and announced body; raises when the gateway hung up."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        for line in head.split(b"\r\n"):
            name, _, value = line.partition(b": ")
            if name.lower() == b"content-length":
                return head + await self.reader.readexactly(int(value))
        return head

    async def say(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def hung_up(self) -> None:
        """Wait until the gateway closes."""
        while await self.reader.read(65536):
            pass


class Scripted:
    """A server that does with each connection what its script says, and remembers."""

    def __init__(self, talk: Talk) -> None:
        self._talk = talk
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self.connections = 0
        self.open = 0

    async def start(self, tls: ssl.SSLContext | None = None) -> str:
        self._server = await asyncio.start_server(
            self._serve, "127.0.0.1", 0, backlog=4096, limit=1 << 20, ssl=tls
        )
        port = self._server.sockets[0].getsockname()[1]
        return f"http{'s' if tls else ''}://127.0.0.1:{port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        peer = Peer(self.connections, reader, writer)
        self.connections += 1
        self.open += 1
        try:
            await self._talk(peer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            self._tasks.discard(task)
            writer.transport.abort() if writer.transport.is_closing() else writer.close()

    async def aclose(self) -> None:
        assert self._server is not None
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def settled(figure: Callable[[], int]) -> int:
    """Wait until a figure that has begun to grow no longer does, and return it."""
    before, same = 0, 0
    while same < 10:
        await asyncio.sleep(0.005)
        same = same + 1 if figure() == before > 0 else 0
        before = figure()
    return before


def answers(*scripts: bytes, close: bool = True) -> Talk:
    """One script per request of a connection; then the connection ends, or lies open."""

    async def talk(peer: Peer) -> None:
        for script in scripts:
            await peer.request()
            await peer.say(script)
        if not close:
            await peer.hung_up()

    return talk


def always(script: bytes = OK) -> Talk:
    """The same answer to every request."""

    async def talk(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.say(script)

    return talk


def make_exchange(
    method: str = "GET",
    target: bytes = b"/x?y=%2f",
    headers: Headers | None = None,
    *,
    body: list[bytes] | None = None,
    length: int | None = None,
    receive: Callable[[], Awaitable[dict[str, Any]]] | None = None,
    max_body: int = 1 << 30,
) -> Exchange:
    """A request; `body` are its pieces, announced when `length` is given."""
    pieces = list(body or [])

    async def from_list() -> dict[str, Any]:
        piece = pieces.pop(0) if pieces else b""
        return {"type": "http.request", "body": piece, "more_body": bool(pieces)}

    return Exchange(
        method=method,
        target=target,
        path="/x",
        headers=headers or [],
        host=b"shop.example",
        address="192.0.2.7",
        receive=receive or from_list,
        started=time.monotonic(),
        content_length=length,
        has_body=body is not None or receive is not None,
        max_body=max_body,
        request_id=b"0af7651916cd43dd8448eb211c80319c",
    )


class Bench:
    """Starts scripted servers and upstreams, and ends them with the test."""

    def __init__(self) -> None:
        self._closers: list[Callable[[], Awaitable[None]]] = []

    async def server(self, talk: Talk, *, tls: ssl.SSLContext | None = None) -> tuple[Scripted, str]:
        scripted = Scripted(talk)
        url = await scripted.start(tls)
        self._closers.append(scripted.aclose)
        return scripted, url

    async def upstream(
        self,
        *urls: str,
        total: float = 60.0,
        connect: float = 60.0,
        clock: Clock = time.monotonic,
        **keys: Any,
    ) -> Upstream:
        settings = config.Upstream.model_validate(
            {"servers": urls, "timeout": {"total": total, "connect": connect}, **keys}
        )
        upstream = Upstream("shop", settings, clock=clock)
        await upstream.start()
        self._closers.append(upstream.aclose)
        return upstream

    async def front(self, talk: Talk, **keys: Any) -> Upstream:
        """An upstream on one server with that script."""
        _, url = await self.server(talk)
        return await self.upstream(url, **keys)

    async def aclose(self) -> None:
        for close in reversed(self._closers):
            await close()
