"""A small TCP proxy before a Redis: it lets everything through, late, or nothing at all."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

_PIECE = 65536  # bytes


class Proxy:
    """Accepts on a loopback port and passes on to a unix socket.

    Attributes:
        port: where it listens, once `open` was awaited.
    """

    def __init__(self, socket: Path) -> None:
        self.port = 0
        self._socket = socket
        self._delay = 0.0
        self._open = asyncio.Event()
        self._open.set()
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Begin to listen."""
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # ---- what goes wrong ---------------------------------------------------------------------

    def hole(self) -> None:
        """Nothing passes; what is sent meanwhile arrives late, as after a network's hiccup."""
        self._open.clear()

    def slow(self, seconds: float) -> None:
        """Each piece waits so long, each way."""
        self._delay = seconds

    def heal(self) -> None:
        """Everything passes at once."""
        self._delay = 0.0
        self._open.set()

    # ---- passing on --------------------------------------------------------------------------

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            await self._open.wait()  # the kernel accepted; nobody answers
            with contextlib.suppress(OSError):
                there = await asyncio.open_unix_connection(str(self._socket))
                await self._both((reader, writer), there)
        except asyncio.CancelledError:
            return  # we are closing; asyncio's server would report it as an error
        finally:
            writer.close()
            self._tasks.discard(task)

    async def _both(
        self,
        here: tuple[asyncio.StreamReader, asyncio.StreamWriter],
        there: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        ways = [
            asyncio.ensure_future(self._pass(here[0], there[1])),
            asyncio.ensure_future(self._pass(there[0], here[1])),
        ]
        try:
            # Redis has no half-closed connections: when one end is gone, so is the other.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
            there[1].close()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(_PIECE):
                if self._delay:
                    await asyncio.sleep(self._delay)
                await self._open.wait()
                writer.write(piece)
                await writer.drain()
