"""One request and its answer on a client's connection, as an ASGI app takes and gives them.

Section numbers are those of RFC 9112 unless another is named.
"""

from __future__ import annotations

import asyncio
import http
from typing import Any, Protocol

from gateway.errors import GatewayError
from gateway.exchange import Headers

DRAIN = 64 << 10  # bytes; so much of a body that nobody asked for is read, to keep the connection
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


def _status_line(status: int) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode())


_STATUS_LINES = {status: _status_line(status) for status in range(200, 600)}


class Wire(Protocol):
    """What a turn needs of its connection."""

    loop: asyncio.AbstractEventLoop
    blocked: bool  # the client reads slower than we write

    def write(self, data: bytes) -> None:
        """Send bytes; the loop puts those of one round into one segment."""
        ...

    async def drained(self) -> None:
        """Wait until the client has taken enough to be sent more, or is gone."""
        ...

    def took(self) -> None:
        """The app took what there was of the body; more may come."""
        ...

    def last(self, turn: Turn) -> bool:
        """Whether no request can follow this one."""
        ...

    def date(self) -> bytes:
        """The time of day as a Date field's value."""
        ...

    def abort(self) -> None:
        """Cut the connection off."""
        ...


class Turn:
    """A request and its answer.

    Attributes:
        scope: as ASGI has it, as far as the gateway asks.
        more: the request's body has not ended yet.
        size: bytes of the body that wait for the app.
        seen: bytes of the body that came.
        error: why the rest of the request can't be had; raised where the body is read.
        gone: nobody waits for the answer.
        started: the answer's header is written; complete: all of it is.
        keep_alive: another request may follow.
        old: the client speaks HTTP/1.0.
    """

    __slots__ = (
        "_chunked",
        "_chunks",
        "_expects",
        "_left",
        "_told",
        "_unsent",
        "_until_close",
        "_waiter",
        "_wire",
        "complete",
        "error",
        "gone",
        "keep_alive",
        "more",
        "old",
        "scope",
        "seen",
        "size",
        "started",
    )

    def __init__(
        self, wire: Wire, scope: dict[str, Any], *, keep_alive: bool, expects: bool = False, more: bool = True
    ) -> None:
        self._wire = wire
        self.scope = scope
        self.keep_alive = keep_alive
        self.old: bool = scope["http_version"] == "1.0"
        self._expects = expects and not self.old  # RFC 9110, 10.1.1
        self.more = more
        self._chunks: list[bytes] = []
        self.size = 0
        self.seen = 0
        self.error: GatewayError | None = None
        self._told = False  # that the body has ended
        self._waiter: asyncio.Future[None] | None = None
        self.gone = False
        self.started = False
        self.complete = False
        self._chunked = False
        self._until_close = False
        self._unsent = b""  # the answer's header, until a piece of the body comes
        self._left: int | None = None  # bytes of the answer still to come, when announced

    # ---- the request's body ------------------------------------------------------------------

    def feed(self, chunk: bytes) -> None:
        """A piece came."""
        self.seen += len(chunk)
        if not self.complete:
            self._chunks.append(chunk)
            self.size += len(chunk)
            self.wake()

    def end(self) -> None:
        """It came whole."""
        self.more = False
        self.wake()

    def fail(self, error: GatewayError) -> None:
        """The rest of it will not come, and this is why."""
        self.error = error
        self.wake()

    def leave(self) -> None:
        """The client is gone."""
        self.gone = True
        self.wake()

    def wake(self) -> None:
        """Let whoever waits look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def receive(self) -> dict[str, Any]:
        """ASGI's receive.

        Raises:
            GatewayError: the rest of the body can't be had; the answer to give.
        """
        if self._expects:
            self._expects = False
            if self.more and not self.seen and not self.gone:
                self._wire.write(_CONTINUE)
        while not (self.gone or self.complete):
            if self.error is not None:
                raise self.error
            if self.size or not (self.more or self._told):
                chunks, self._chunks, self.size = self._chunks, [], 0
                body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
                message = {"type": "http.request", "body": body, "more_body": self.more}
                self._told = not self.more
                self._wire.took()  # may bring the next pieces at once
                return message
            self._waiter = self._wire.loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return {"type": "http.disconnect"}

    # ---- the answer --------------------------------------------------------------------------

    async def send(self, message: dict[str, Any]) -> None:
        """ASGI's send; dropped when the client is gone.

        Raises:
            RuntimeError: the app breaks HTTP. The connection is cut off then.
        """
        if self._wire.blocked and not self.gone:
            await self._wire.drained()
        if self.gone:
            return
        if not self.started:
            self.started = True
            self._head(message["status"], message["headers"])
        elif not self.complete:
            self._body(message.get("body", b""), more=message.get("more_body", False))

    def probe(self) -> None:
        """Send what a client that only stopped sending skips (RFC 9110, 15.2), and one that left resets."""
        if not (self.started or self.old):
            self._wire.write(_CONTINUE)

    def _head(self, status: int, headers: Headers) -> None:
        length: int | None = None
        dated = close = False
        lines = [_STATUS_LINES[status]]
        for field in headers:
            name = field[0]
            if name == b"content-length":
                length = int(field[1])
            elif name == b"date":
                dated = True
            elif name == b"connection":
                close = True  # an app has nothing else to say of it
            lines.append(b"%b: %b\r\n" % field)
        if not dated:  # RFC 9110, 6.6.1: also a proxy must, when the upstream did not
            lines.append(b"date: %b\r\n" % self._wire.date())
        keep = self.keep_alive and not close and not self._wire.last(self)
        if self.more and not self._drainable():
            keep = False
        if status in {204, 304} or self.scope["method"] == "HEAD":
            pass  # no body, whatever is announced
        elif length is not None:
            self._left = length
        elif self.old:
            keep = False  # 6.1: it would not understand chunks, so the end of the connection is the end
            self._until_close = True
        else:
            self._chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        if not keep:
            if not close:
                lines.append(b"connection: close\r\n")
        elif self.old:
            lines.append(b"connection: keep-alive\r\n")
        self.keep_alive = keep
        head = b"".join(lines)
        if head.count(b"\n") != len(lines) or head.count(b"\r") != len(lines):
            self._cut("a header field of the answer holds a line break")
        # Goes out with the first piece of the body, as ASGI wants it: two writes are two system calls.
        self._unsent = head + b"\r\n"

    def _body(self, body: bytes, *, more: bool) -> None:
        data = b""
        if self._chunked:
            end = b"" if more else b"0\r\n\r\n"
            data = b"%x\r\n%b\r\n%b" % (len(body), body, end) if body else end
        elif self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                self._cut("the answer's body is not as long as announced")
            data = body
        elif self._until_close:
            data = body
        head, self._unsent = self._unsent, b""
        if head or data:
            self._wire.write(head + data if head else data)
        self.complete = not more

    def _cut(self, why: str) -> None:
        self.gone = True
        self._wire.abort()
        raise RuntimeError(why)

    def _drainable(self) -> bool:
        """Whether what is left of the body may be read and forgotten (9.3), and another request follow."""
        if self._expects or self.error is not None:
            return False  # the client may send it or not (RFC 9110, 10.1.1): what follows is anyone's guess
        for name, value in self.scope["headers"]:
            if name == b"content-length":
                return int(value) - self.seen <= DRAIN
        return False
