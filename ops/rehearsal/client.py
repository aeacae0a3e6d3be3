"""A small HTTP client for thousands of buyers at once; it costs a fraction of a full one."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

Lost = (OSError, asyncio.IncompleteReadError, EOFError)  # the connection broke; nobody knows what happened


@dataclass(frozen=True)
class Answer:
    """One HTTP answer; field names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:  # noqa: ANN401 - whatever JSON says
        """The body, read as JSON."""
        return json.loads(self.body)


@dataclass
class Client:
    """One keep-alive HTTP/1.1 connection with a cookie jar of one; reconnects when it was closed."""

    url: str
    cookie: str = ""
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = field(default=None, repr=False)

    async def call(self, method: str, path: str, body: object = None, **headers: str) -> Answer:
        """One request; raises one of Lost when the connection breaks before the whole answer."""
        parts = urlsplit(self.url)
        if self._streams is None:
            self._streams = await asyncio.open_connection(parts.hostname, parts.port)
        reader, writer = self._streams
        raw = b"" if body is None else json.dumps(body).encode()
        fields = {"host": parts.netloc, "content-length": str(len(raw)), "content-type": "application/json"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookie:
            fields["cookie"] = self.cookie
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        try:
            writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + raw)
            await writer.drain()
            return await self._answer(reader)
        except BaseException:
            self.close()
            raise

    async def _answer(self, reader: asyncio.StreamReader) -> Answer:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        else:
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection") == "close":
            self.close()
        if headers.get("set-cookie", "").startswith("session="):
            self.cookie = headers["set-cookie"].partition(";")[0]
        return Answer(int(head[0].split()[1]), headers, body)

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None
