"""One keep-alive connection to a gateway, for loads that wrk can't offer."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; the head as it stood on the wire."""

    status: int
    head: bytes
    body: bytes

    def field(self, name: str) -> str:
        """A header field's value; "" without it."""
        _, found, rest = self.head.lower().partition(b"\r\n" + name.lower().encode() + b":")
        return rest.partition(b"\r\n")[0].strip().decode("latin-1") if found else ""


class Line:
    """Requests one after the other over one connection.

    Attributes:
        own_port: our end of it.
    """

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.own_port: int = writer.get_extra_info("sockname")[1]

    @classmethod
    async def open(cls, port: int) -> Self:
        """To a port of the loopback.

        Raises:
            OSError: it was refused.
        """
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def get(self, path: str, *fields: str) -> Answer:
        """The whole answer to a GET.

        Raises:
            OSError, asyncio.IncompleteReadError: the connection was cut.
        """
        more = "".join(f"{field}\r\n" for field in fields)
        self._writer.write(f"GET {path} HTTP/1.1\r\nHost: shop.test\r\n{more}\r\n".encode())
        head = await self._reader.readuntil(b"\r\n\r\n")
        told = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        body = await self._reader.readexactly(int(told or 0))
        return Answer(int(head[9:12]), head, body)

    def close(self) -> None:
        """Hang up."""
        self._writer.close()
