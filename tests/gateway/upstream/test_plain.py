"""Answers read without the parser: whatever is taken, the parser would have read alike."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.errors import UpstreamError
from gateway.field import Block
from gateway.upstream import response
from gateway.upstream.plain import read_head
from gateway.upstream.response import ResponseReader

lines = st.one_of(
    st.sampled_from(
        [
            *(b"Content-Length: 5", b"content-length:5 ", b"Content-Length: 0", b"Content-Length: 05"),
            *(b"Content-Length: 5, 5", b"Connection: keep-alive", b"Connection: close", b"Connection: X-A"),
            *(b"Transfer-Encoding: chunked", b"Upgrade: h2c", b"Keep-Alive: timeout=5", b"Date: now"),
            *(b"Set-Cookie: a=b", b"Set-Cookie: c=d", b"X-A: \xff\t b", b"X-A : b", b" folded", b"X-A:\x00"),
            *(b"Tidegate-Shut: sku=a; for=5", b"X-Request-Id: 1", b"Trailer: X-A", b": x"),
        ]
    ),
    st.binary(max_size=20),
)
status_lines = st.one_of(
    st.sampled_from(
        [
            *(b"HTTP/1.1 200 OK", b"HTTP/1.1 404 Not Found", b"HTTP/1.1 503 ", b"HTTP/1.1 200"),
            *(b"HTTP/1.0 200 OK",),
            *(b"HTTP/1.1 100 Continue", b"HTTP/1.1 101 Go", b"HTTP/1.1 204 None", b"HTTP/1.1 304 Same"),
            *(b"HTTP/1.1 99 x", b"HTTP/1.1 600 x", b"HTTP/1.1 2000 x", b"HTTP/2 200", b"ICY 200 OK"),
        ]
    ),
    st.builds(lambda tail: b"HTTP/1.1 2" + tail, st.binary(max_size=12)),
)  # fmt: skip


def read(data: bytes) -> tuple[Any, ...] | str:
    """All that the reader says of these bytes."""
    reader = ResponseReader()
    try:
        reader.feed(data)
    except UpstreamError:
        return "refused"
    headers = [tuple(field) for field in reader.headers]
    return (
        *(reader.status, headers, reader.take(), reader.length, reader.keep_alive),
        *(reader.head_done, reader.complete, reader.stray, reader.eof()),
    )


@settings(max_examples=600, deadline=None)
@given(
    first=status_lines,
    fields=st.lists(lines, max_size=6),
    length=st.booleans(),
    body=st.sampled_from([b"", b"hel", b"hello", b"hello"]),
    end=st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"]),
)
def test_what_is_taken_is_read_alike(
    first: bytes, fields: list[bytes], length: bool, body: bytes, end: bytes
) -> None:
    """Status, fields, body, framing and the connection's fate are what the parser makes of them."""
    data = end.join([first, *fields, *([b"Content-Length: 5"] if length else []), b"", body])
    plainly = read(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(response, "read_head", lambda _: None)  # the parser alone
        assert plainly == read(data)


def test_the_usual_is_taken() -> None:
    """Else all this would be in vain."""
    data = b"HTTP/1.1 200 OK\r\nServer: x\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok"
    head = read_head(data)
    assert head == (len(data) - 2, 200, ((b"server", b"x"), (b"content-length", b"2")), 2, True)
    again = read_head(data[:-2] + b"no")
    assert head is not None
    assert again == head._replace(fields=Block(head.fields))
    assert again is not None
    assert type(again.fields) is Block, "what comes twice is remembered whole"
    assert read_head(data) is again


@pytest.mark.parametrize("more", [b"x", b"HTTP/1.1 200 OK\r\n\r\n"])
def test_bytes_after_the_end_are_stray(more: bytes) -> None:
    """In the same piece or the next: the connection can't be trusted any more."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    for pieces in ([answer + b"ok" + more], [answer + b"o", b"k" + more], [answer, b"ok" + more]):
        reader = ResponseReader()
        for piece in pieces:
            reader.feed(piece)
        assert reader.take() == b"ok"
        assert reader.complete
        assert reader.stray


def test_a_body_cut_short_is_not_complete() -> None:
    """The end of the connection is no end of such a body."""
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")
    assert not reader.eof()
