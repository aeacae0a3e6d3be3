"""Bytes of an upstream's answer in, status, header and body out. Does no I/O."""

from __future__ import annotations

from typing import Final

import httptools

from gateway.errors import UpstreamError
from gateway.exchange import Header, Headers
from gateway.field import HOP_BY_HOP
from gateway.upstream.plain import read_head

MAX_HEAD: Final = 64 << 10  # bytes of one header section, interim answers and trailers included
MAX_FIELDS: Final = 200  # header fields of one answer, trailers included

# Content-Length is judged apart: it is kept, but never trusted.
_SPECIAL: Final = HOP_BY_HOP | {b"content-length"}
# These name no field.
_PLAIN_CONNECTION: Final = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close"})
_STATUS_LINE: Final = b"HTTP/1."


def connection_tokens(value: bytes) -> set[bytes]:
    """The field names and options in one Connection field, in lower case."""
    return {token.strip().lower() for token in value.split(b",")}


class ResponseReader:
    """One answer after another from the bytes of one connection.

    Attributes:
        answered: at least one byte of this answer came.
        head_done: status and headers are valid.
        headers: end-to-end fields, names in lower case, order and repetitions kept.
        chunks: body bytes not taken yet; `buffered` is their sum.
        length: the Content-Length among them, if it is there, in bytes.
        complete: the answer ended where its framing says.
        keep_alive: the upstream lets the connection live on.
        stray: bytes came that belong to no answer; what follows can't be trusted.
    """

    __slots__ = (
        "_error",
        "_fields",
        "_head_only",
        "_left",
        "_overhead",
        "_parser",
        "_parser_spent",
        "_prefix",
        "_raw",
        "_until_close",
        "answered",
        "buffered",
        "chunks",
        "complete",
        "head_done",
        "headers",
        "keep_alive",
        "length",
        "status",
        "stray",
    )

    def __init__(self) -> None:
        self._parser_spent = True
        self.stray = False
        self.begin(head_only=False)

    def begin(self, *, head_only: bool) -> None:
        """Expect the answer to a new request; `head_only` when that was a HEAD."""
        if self._parser_spent:
            self._parser = httptools.HttpResponseParser(self)
            self._parser_spent = False
        self._head_only = head_only
        self._prefix: bytes | None = b""
        self._overhead = 0  # bytes since the last progress; bounds endless headers, trailers, extensions
        self._fields = 0
        self._until_close = False
        self._left: int | None = None  # bytes of the body still to come, when the parser is not asked
        self._error: UpstreamError | None = None
        self.answered = False
        self.head_done = False
        self.complete = False
        self.keep_alive = False
        self.length: int | None = None
        self.status = 0
        self.headers: Header = ()
        self._raw: Headers = []  # the header as the parser gives it
        self.chunks: list[bytes] = []
        self.buffered = 0

    # ---- bytes ----

    def feed(self, data: bytes) -> None:
        """Take what the connection read.

        Raises:
            UpstreamError: it is no valid HTTP/1 answer, or its header is too large.
        """
        self.answered = True
        if self._left is not None:
            self._go_on(data)
            return
        if self._prefix is not None:
            if not (self._prefix or self._head_only) and self._begin_plainly(data):
                return
            # llhttp also takes leading empty lines, RTSP/ and ICE/; an HTTP upstream sends none of these.
            data = self._prefix + data
            if not data.startswith(_STATUS_LINE):
                if _STATUS_LINE.startswith(data):
                    self._prefix = data
                    return
                raise UpstreamError("the upstream did not answer in HTTP/1")
            self._prefix = None
        before = self.buffered
        self._overhead += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._parser_spent = True
            if self.complete:  # a whole answer, then rubbish
                self.stray = True
                return
            raise self._error or UpstreamError(f"the upstream's answer breaks HTTP/1: {error}") from error
        if self.buffered != before:
            self._overhead = 0
        elif self._overhead > MAX_HEAD and not self.complete:
            raise UpstreamError(f"the upstream's header is larger than {MAX_HEAD} bytes")

    def _begin_plainly(self, data: bytes) -> bool:
        """Read an answer that is as simple as most are without the parser; False when it is not."""
        head = read_head(data)
        if head is None:
            return False
        end, self.status, self.headers, length, self.keep_alive = head
        body = data[end:]
        if len(body) > length:
            return False  # the parser says what is wrong
        self._prefix = None
        self.length = length
        self.head_done = True
        self._left = length
        self._go_on(body)
        return True

    def _go_on(self, body: bytes) -> None:
        """A piece of the body of such an answer."""
        left = (self._left or 0) - len(body)
        if left < 0 or self.complete:
            self.stray = True  # more than was announced
            body = body[: self._left]
            left = 0
        if body:
            self.chunks.append(body)
            self.buffered += len(body)
        self._left = left
        if not left:
            self.complete = True

    def eof(self) -> bool:
        """The upstream sends no more; whether that completes its answer."""
        if self.head_done and self._until_close:
            self.complete = True
        return self.complete

    def take(self) -> bytes:
        """The body bytes that came since the last call."""
        chunks = self.chunks
        if not chunks:
            return b""
        data = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        self.chunks = []
        self.buffered = 0
        return data

    # ---- called by httptools ----

    def on_message_begin(self) -> None:
        """A status line begins."""
        if self.complete:
            self.stray = True  # an answer nobody asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the header, or of the trailer."""
        self._fields += 1
        if self._fields > MAX_FIELDS:
            self._refuse(f"the upstream's answer has more than {MAX_FIELDS} header fields")
        if not self.head_done:
            self._raw.append((name.lower(), value.rstrip(b" \t")))  # RFC 9112, 5.1: no part of the value

    def on_headers_complete(self) -> None:
        """The header ended."""
        if self.complete:
            return
        status: int = self._parser.get_status_code()
        if status < 200:
            if status < 100 or status == 101:
                self._refuse(f"the upstream answered {status}, which nobody asked for")
            self._raw = []  # interim (RFC 9110, 15.2); the final answer follows
            return
        if status > 599:
            self._refuse(f"the upstream answered {status}, which is no HTTP status")
        # What was fed may include the start of the body, so only then look closely.
        if self._overhead > MAX_HEAD < sum(len(name) + len(value) + 4 for name, value in self._raw):
            self._refuse(f"the upstream's header is larger than {MAX_HEAD} bytes")
        self._overhead = 0
        self.status = status
        self._judge_headers(bodiless=status in {204, 304})
        self.head_done = True

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self.complete:
            self.stray = True  # a body after HEAD
            return
        self.chunks.append(data)
        self.buffered += len(data)

    def on_message_complete(self) -> None:
        """The answer ended where its framing says; interim answers end here too."""
        if self.head_done:
            self.complete = True

    # ---- the header's meaning ----

    def _judge_headers(self, *, bodiless: bool) -> None:
        """Keep the end-to-end fields, and find out how the body is framed."""
        kept: Headers = []
        named: set[bytes] = set()
        length: tuple[bytes, bytes] | None = None
        framed = close = False
        for field in self._raw:
            name, value = field
            if name == b"x-request-id":
                continue  # ours, as told to the upstream; one that echoes it says nothing new
            if name not in _SPECIAL:
                kept.append(field)
            elif name == b"content-length":
                length = field  # llhttp has refused repeated and malformed ones, and those beside chunks
            elif name == b"connection":
                if value not in _PLAIN_CONNECTION:
                    named |= connection_tokens(value)
                elif value[:1] in b"cC":
                    close = True
            elif name == b"transfer-encoding":
                if value.strip().lower() != b"chunked" or framed:
                    self._refuse("the upstream uses a transfer coding other than chunked")
                if self._parser.get_http_version() == "1.0":
                    self._refuse("the upstream uses a transfer coding in HTTP/1.0")
                framed = True
        if named:
            kept = [field for field in kept if field[0] not in named]
            close = close or b"close" in named
        if length is not None and self.status not in {204, 304}:
            kept.append(length)
            self.length = int(length[1])
        self.headers = kept
        if self._head_only:
            # llhttp can't know that no body follows, so it is of no more use after this.
            self._parser_spent = True
            self.keep_alive = not close and self._parser.get_http_version() == "1.1"
            self.complete = True
        else:
            self.keep_alive = self._parser.should_keep_alive()
            self._until_close = not (bodiless or framed or length is not None)

    def _refuse(self, detail: str) -> None:
        self._error = UpstreamError(detail)
        raise self._error
