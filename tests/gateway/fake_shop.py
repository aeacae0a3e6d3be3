"""An upstream that the test scripts, over real sockets."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Any

from tests.running_stack import free_port

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter, "Seen"], Awaitable[None]]


class Seen:
    """One request as the upstream got it."""

    def __init__(self, head: bytes, body: bytes) -> None:
        lines = head.split(b"\r\n")
        self.method, self.target, _ = lines[0].decode("latin-1").split(" ")
        self.fields = [tuple(line.decode("latin-1").split(": ", 1)) for line in lines[1:] if line]
        self.body = body

    def values(self, name: str) -> list[str]:
        return [value for field, value in self.fields if field.lower() == name.lower()]


class FakeShop:
    """An upstream over real sockets; answers 200 with a small JSON unless a path is scripted."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.scripts: dict[str, Answer] = {}
        self.lost = 0  # connections that were closed on us while we answered
        self.port = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        self.port = self.port or free_port()  # of those that stay free while it is stopped
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=4096)

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?im)^content-length: (\d+)\r$", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                seen = Seen(head, body)
                self.seen.append(seen)
                await self.scripts.get(seen.target.partition("?")[0], self.ok)(reader, writer, seen)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    @staticmethod
    async def ok(_: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen) -> None:
        body = b'{"ok": true}'
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head if seen.method == "HEAD" else head + body)
