"""The line between the master and one worker: JSON messages, one a line, over a socket pair."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

Message = dict[str, Any]  # "type" says which; see master.py and worker.py
_LIMIT = 64 << 20  # bytes in one line; a whole configuration fits


class Channel:
    """One end of the line. Reading ends when the other end is gone."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def over(cls, sock: socket.socket) -> Channel:
        """The end that this socket is."""
        reader, writer = await asyncio.open_connection(sock=sock, limit=_LIMIT)
        return cls(reader, writer)

    def send(self, message: Message) -> None:
        """Send without waiting; messages to a dead end are dropped."""
        if not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    async def receive(self) -> Message | None:
        """The next message, or None when the other end is gone."""
        try:
            line = await self._reader.readline()
        except (OSError, ValueError):
            return None
        return json.loads(line) if line.endswith(b"\n") else None

    def close(self) -> None:
        """Hang up."""
        self._writer.close()
