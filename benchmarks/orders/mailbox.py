"""A mail server that takes its time for each mail, as real ones do; counts what it took."""

from __future__ import annotations

import asyncio


class Mailbox:
    """SMTP, as far as mailers speak it.

    Args:
        latency: seconds between the end of a mail and the word that it was taken.
    """

    def __init__(self, latency: float) -> None:
        self._latency = latency
        self._server: asyncio.Server | None = None
        self.taken = 0

    async def open(self) -> int:
        """Listen on a port of the loopback, which is returned."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=4096)
        return int(self._server.sockets[0].getsockname()[1])

    def close(self) -> None:
        """Listen no more."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.test\r\n")
        try:
            while line := await reader.readline():
                word = line[:4].upper()
                if word == b"DATA":
                    writer.write(b"354 go on\r\n")
                    await reader.readuntil(b"\r\n.\r\n")
                    await asyncio.sleep(self._latency)
                    self.taken += 1
                writer.write(b"221 bye\r\n" if word == b"QUIT" else b"250 ok\r\n")
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
