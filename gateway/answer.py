"""One answer on a client's connection, as bytes: its header, and a body framed so that its end is plain.

Section numbers are those of RFC 9112 unless another is named.
"""

from __future__ import annotations

import asyncio
import http
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, Final, Protocol

from gateway.exchange import Header
from gateway.field import CR, LF, Block, Field
from gateway.fields import Pair, values


def _status_line(status: int) -> bytes:
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode())


_STATUS_LINES: Final = {status: _status_line(status) for status in range(200, 600)}
CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"


class Wire(Protocol):
    """What an answer needs of its connection."""

    __slots__ = ()
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

    def last(self) -> bool:
        """Whether no request can follow the one that is being answered."""
        ...

    def date(self) -> bytes:
        """The line of a Date field that says now."""
        ...

    def abort(self) -> None:
        """Cut the connection off."""
        ...

    def over(self, answer: Answer) -> None:
        """Nothing more comes of it."""
        ...


class Answer:
    """The answer to one request.

    Attributes:
        method: the request's.
        old: the client speaks HTTP/1.0.
        gone: nobody waits for the answer.
        started: its header is written; complete: all of it is.
        keep_alive: another request may follow.
    """

    __slots__ = (
        "_chunked",
        "_left",
        "_unsent",
        "_until_close",
        "_wire",
        "complete",
        "gone",
        "keep_alive",
        "method",
        "old",
        "started",
    )

    def __init__(self, wire: Wire, method: str, *, old: bool, keep_alive: bool) -> None:
        self._wire = wire
        self.method = method
        self.old = old
        self.keep_alive = keep_alive
        self.gone = False
        self.started = False
        self.complete = False
        self._unsent = b""  # the header, until there is something to send with it

    def probe(self) -> None:
        """Send what a client that only stopped sending skips (RFC 9110, 15.2), and one that left resets."""
        if not (self.started or self.old):
            self._wire.write(CONTINUE)

    def may_follow(self) -> bool:
        """Whether the request leaves the connection in a state from which another may be read."""
        return True

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
            self.begin(message["status"], message["headers"])
        elif not self.complete:
            self.go_on(message.get("body", b""), more=message.get("more_body", False))

    @abstractmethod
    def leave(self) -> None:
        """The client is gone."""

    # ---- its bytes ---------------------------------------------------------------------------

    def give(self, status: int, headers: Header, added: Sequence[Pair], body: bytes) -> None:
        """Send the whole answer in one write.

        Args:
            status: as a number.
            headers: as `framed` leaves them.
            added: further fields, none of which says anything of the framing.
            body: all of it.

        Raises:
            RuntimeError: the answer breaks HTTP. The connection is cut off then.
        """
        self.begin(status, headers, added)
        if self._left != len(body):
            self.go_on(body, more=False)
            return
        self._wire.write(self._unsent + body)
        self._unsent = b""
        self.complete = True

    def begin(self, status: int, headers: Header, added: Sequence[Pair] = ()) -> None:
        """Frame the header; it goes out with the first piece of the body: two writes are two system calls.

        Raises:
            RuntimeError: as `give`.
        """
        self.started = True
        close = False
        known = _STATUS_LINES[status]
        lines: list[bytes] = []
        if type(headers) is Block:  # what is passed on as it came: Connection is not among it
            passed, length, dated = headers.sent or self._put_together(headers)
            known += passed
        else:
            length, dated, close = self._read(headers, lines)
        for field in added:
            lines.append(self._line(field))  # noqa: PERF401 - few
        if not dated:  # RFC 9110, 6.6.1: also a proxy must, when the upstream did not
            lines.append(self._wire.date())
        keep = self.keep_alive and not close and not self._wire.last() and self.may_follow()
        self._chunked = self._until_close = False
        self._left: int | None = None  # bytes of the answer still to come, when announced
        if status in {204, 304} or self.method == "HEAD":
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
        lines.append(b"\r\n")
        self._unsent = known + b"".join(lines)

    def _put_together(self, block: Block) -> tuple[bytes, int | None, bool]:
        lines: list[bytes] = []
        length, dated, _ = self._read(block, lines)
        sent = block.sent = b"".join(lines), length, dated
        return sent

    def _read(self, headers: Sequence[Pair], lines: list[bytes]) -> tuple[int | None, bool, bool]:
        """Content-Length in bytes, whether there is a Date, and a Connection; their lines are added."""
        length: int | None = None
        dated = close = False
        for field in headers:
            if type(field) is Field and field.plain:
                lines.append(field.line)
                continue
            name, value = field
            if name == b"content-length":
                length = int(value)
            elif name == b"date":
                dated = True
            elif name == b"connection":
                close = True  # an app has nothing else to say of it
            lines.append(self._line(field))
        return length, dated, close

    def _line(self, field: Pair) -> bytes:
        if type(field) is Field:
            return field.line
        name: bytes
        value: bytes
        name, value = field
        if LF in value or CR in value or LF in name or CR in name:
            self._cut("a header field of the answer holds a line break")
        return b"%b: %b\r\n" % (name, value)

    def go_on(self, body: bytes, *, more: bool) -> None:
        """Send a piece of the body, the last one unless there is `more`.

        Raises:
            RuntimeError: the body is not as long as announced. The connection is cut off then.
        """
        data = b""
        if self._left is not None:
            self._left -= len(body)
            if self._left < 0 or (self._left and not more):
                self._cut("the answer's body is not as long as announced")
            data = body
        elif self._chunked:
            end = b"" if more else b"0\r\n\r\n"
            data = b"%x\r\n%b\r\n%b" % (len(body), body, end) if body else end
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


def framed(status: int, headers: Header, body: bytes, method: str) -> Header:
    """The fields of an answer with its length, where a body may be and nobody has said how long it is."""
    if type(headers) is Block or status in {204, 304} or values(headers, b"content-length"):
        return headers
    if method == "HEAD" and not body:
        return headers  # it is the upstream's to tell
    return [*headers, (b"content-length", b"%d" % len(body))]
