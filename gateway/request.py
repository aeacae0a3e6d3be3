"""Bytes of requests in; heads, pieces of bodies and ends out. Bounds what may be held. Does no I/O.

Section numbers are those of RFC 9112 unless another is named.
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

import httptools

from gateway.config import Listen
from gateway.errors import BadRequest, GatewayError, HeadersTooLarge, UriTooLong
from gateway.exchange import Headers

SLICE: Final = 8 << 10  # bytes to feed at once, so that one segment can't hold thousands of requests
# Bytes of framing that a chunked body may cost, besides _OVERHEAD_RATIO x its length.
_OVERHEAD: Final = 16 << 10
_OVERHEAD_RATIO: Final = 8  # chunks of one byte cost six


class Head(NamedTuple):
    """A request line and its header fields, as received; names in lower case."""

    method: str
    target: bytes
    version: str
    headers: Headers
    keep_alive: bool
    expects: bool  # Expect: 100-continue


class Sink(Protocol):
    """Who hears of what was read; called while `feed` runs."""

    def began(self) -> None:
        """The first byte of a request came."""
        ...

    def head(self, head: Head) -> None:
        """A header section is whole."""
        ...

    def piece(self, body: bytes) -> None:
        """A piece of a body."""
        ...

    def ended(self) -> None:
        """A request ended where its framing says."""
        ...


class RequestReader:
    """One request after another from the bytes of one connection.

    Attributes:
        in_header: a header section has begun and is not whole.
        listen: what is allowed; may change between two requests.
        upgraded: what follows is in no protocol of ours.
    """

    __slots__ = (
        *("_body", "_expects", "_fed", "_header_bytes", "_headers", "_in_body", "_parser"),
        *("_refusal", "_sink", "_target", "in_header", "listen", "upgraded"),
    )

    def __init__(self, sink: Sink, listen: Listen) -> None:
        self._sink = sink
        self.listen = listen
        self.in_header = False
        self.upgraded = False
        self._target = b""
        self._headers: Headers = []
        self._header_bytes = 0  # of whole fields
        self._expects = False
        self._in_body = False
        self._body = 0  # bytes of it so far
        self._fed = 0  # bytes since the header or the body began
        self._refusal: GatewayError | None = None
        self._parser = httptools.HttpRequestParser(self)

    def feed(self, data: bytes) -> None:
        """Take what the connection read, at most `SLICE` bytes.

        Raises:
            GatewayError: it is no valid request, or one larger than allowed. No more can be fed.
        """
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self.upgraded = True
            return
        except httptools.HttpParserError:
            raise self._refusal or BadRequest("the request is not valid HTTP/1.1") from None
        self._fed += len(data)
        if self.in_header:  # the parser tells of a field only when it is whole
            if self._fed > self.listen.max_header_bytes + self.listen.max_target + SLICE:
                raise self._too_large()
        elif self._in_body and self._fed - self._body > _OVERHEAD + _OVERHEAD_RATIO * self._body:
            raise BadRequest("the body has far more framing than content")

    # ---- called by the parser ----------------------------------------------------------------

    def on_message_begin(self) -> None:
        """A request begins."""
        self.in_header = True
        self._target = b""
        self._headers = []
        self._header_bytes = self._fed = 0
        self._expects = False
        self._sink.began()

    def on_url(self, url: bytes) -> None:
        """A piece of the target."""
        self._target = self._target + url if self._target else url
        if len(self._target) > self.listen.max_target:
            self._refuse(UriTooLong(f"the target is longer than {self.listen.max_target} bytes"))

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header field; or one of a trailer section, which is counted and dropped (7.1.2)."""
        self._header_bytes += len(name) + len(value) + 4
        if self._header_bytes > self.listen.max_header_bytes:
            self._refuse(self._too_large())
        if not self.in_header:
            return
        name = name.lower()
        if name == b"expect" and value.lower() == b"100-continue":
            self._expects = True
        self._headers.append((name, value.rstrip(b" \t")))  # 5.1: no part of the value
        if len(self._headers) > self.listen.max_headers:
            self._refuse(HeadersTooLarge(f"more than {self.listen.max_headers} header fields"))

    def on_headers_complete(self) -> None:
        """The header is whole."""
        self.in_header = False
        self._in_body = True
        self._body = self._fed = 0
        parser = self._parser
        self._sink.head(
            Head(
                parser.get_method().decode("ascii"),
                self._target,
                parser.get_http_version(),
                self._headers,
                parser.should_keep_alive(),
                self._expects,
            )
        )

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        self._body += len(body)
        self._sink.piece(body)

    def on_message_complete(self) -> None:
        """The request ended where its framing says."""
        self._in_body = False
        self._sink.ended()

    def _refuse(self, error: GatewayError) -> None:
        self._refusal = error
        raise error  # the parser stops here, and `feed` goes on with the refusal

    def _too_large(self) -> HeadersTooLarge:
        return HeadersTooLarge(f"the header is larger than {self.listen.max_header_bytes} bytes")
