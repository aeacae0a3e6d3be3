"""A request that came whole, in one piece, and beyond doubt: read at a fraction of the parser's price.

Whatever is unusual is left to `RequestReader` and `guard`, which have the last word: what is read here they
would have read alike (tests/gateway/guard/test_head.py). Section numbers are those of RFC 9112.
"""

from __future__ import annotations

import re
from typing import Final

from gateway.config import Listen
from gateway.errors import GatewayError
from gateway.exchange import Header
from gateway.field import HALF_BLOCKS, MAX_BLOCK, Block
from gateway.fields import Fields
from gateway.generations import Generations, Seen
from gateway.guard import normalise, valid_host

_REQUEST_LINE: Final = re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[!\"$-~]*) HTTP/1\.1")
_LINES: Final = 1024  # request lines remembered; beyond it all are forgotten
_MAX_LINE: Final = 256  # bytes; longer ones are read anew each time
_REQUESTS: Final = 2048  # whole requests remembered; beyond it all are forgotten
_END: Final = b"\r\n\r\n"


# Made with requests by the thousand: compiled, plain classes cost a third of named tuples.


class WholeRequest:
    """A request, vetted as `guard.inspect` does it."""

    __slots__ = ("body", "headers", "host", "keep_alive", "method", "path", "target")

    def __init__(
        self,
        method: str,
        target: bytes,
        path: str,
        headers: Header,
        host: bytes,
        keep_alive: bool,
        body: bytes,
    ) -> None:
        self.method = method
        self.target = target
        self.path = path
        self.headers = headers
        self.host = host
        self.keep_alive = keep_alive
        self.body = body


class _Header:
    """The fields of a request, and what they say of it.

    Attributes:
        length: of the body, bytes.
    """

    __slots__ = ("fields", "host", "keep_alive", "length")

    def __init__(self, fields: Block, host: bytes, keep_alive: bool, length: int) -> None:
        self.fields = fields
        self.host = host
        self.keep_alive = keep_alive
        self.length = length


class HeadReader:
    """Reads requests of many connections; what comes a third time is not read any more."""

    def __init__(self, listen: Listen) -> None:
        self._listen = listen
        self._fields = Fields()
        self._headers: Generations[bytes, _Header] = Generations(HALF_BLOCKS)
        self._seen = Seen(2 * HALF_BLOCKS)
        self._lines: dict[bytes, tuple[str, bytes, str]] = {}  # by request line: method, target, path
        self._requests: dict[bytes, WholeRequest] = {}  # without a body

    def read(self, data: bytes) -> WholeRequest | None:
        """The one request that these bytes are; None when they are more, less, or unusual."""
        short = len(data) <= MAX_BLOCK
        if short:
            request = self._requests.get(data)
            if request is not None:
                return request
        head, end, body = data.partition(_END)
        if not end or len(head) > self._listen.max_header_bytes:
            return None
        first, _, block = head.partition(b"\r\n")
        line = self._lines.get(first) or self._learn(first)
        if line is None:
            return None
        known = self._headers.get(block) or self._headers.find(block)
        header = known or self._read(block)
        if header is None:
            return None
        if len(body) != header.length:
            return None
        method, target, path = line
        request = WholeRequest(method, target, path, header.fields, header.host, header.keep_alive, body)
        if short and not body and known is not None:
            if len(self._requests) >= _REQUESTS:
                self._requests.clear()
            self._requests[data] = request
        return request

    def _read(self, block: bytes) -> _Header | None:
        """The fields of these lines; None when they are unusual."""
        lines = block.split(b"\r\n")  # a bare line break in one is nobody's to interpret (2.2)
        read = self._fields.read(lines)
        if read is None or len(lines) > self._listen.max_headers:
            return None
        host: bytes | None = None
        length: int | None = None
        keep_alive = True
        for name, value in read.notable:
            if name == b"host":
                if host is not None or not valid_host(value):
                    return None
                host = value
            elif name == b"content-length":
                if length is not None or not value.isdigit() or len(value) > 9:
                    return None
                length = int(value)
            elif name == b"connection":
                if value not in {b"keep-alive", b"Keep-Alive"}:
                    if value not in {b"close", b"Close"}:
                        return None
                    keep_alive = False
            elif name in {b"transfer-encoding", b"upgrade", b"expect"}:
                return None
        if host is None or (length or 0) > self._listen.max_body:
            return None
        fields = Block(read.fields)
        fields.plain, fields.notable = read.plain, read.notable
        header = _Header(fields, host, keep_alive, length or 0)
        if len(block) <= MAX_BLOCK and self._seen.again(block):
            self._headers.add(block, header)
        return header

    def _learn(self, first: bytes) -> tuple[str, bytes, str] | None:
        match = _REQUEST_LINE.fullmatch(first)
        if match is None or len(match[2]) > self._listen.max_target:
            return None
        target = match[2]
        try:
            line = match[1].decode(), target, normalise(target.partition(b"?")[0])
        except GatewayError:
            return None
        if len(first) <= _MAX_LINE:
            if len(self._lines) >= _LINES:
                self._lines.clear()
            self._lines[first] = line
        return line
