"""The reader of answers, fed bytes."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import UpstreamError
from gateway.upstream.response import MAX_HEAD, ResponseReader

TOKEN = st.text("abcdefghijklmnopqrstuvwxyz-", min_size=1, max_size=12).map(
    lambda text: b"x-" + text.encode()
)
VALUE = st.text('abcXYZ 0123456789,;="/', max_size=30).map(lambda text: text.strip().encode())
SPACE = st.text(" \t", max_size=2).map(str.encode)  # around a value, and no part of it (RFC 9112, 5.1)


def feed(reader: ResponseReader, data: bytes, cuts: list[int]) -> bytes:
    """Feed in pieces; what came of the body."""
    body = b""
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, end in itertools.pairwise(edges):
        if start != end:
            reader.feed(data[start:end])
            body += reader.take()
    return body


@given(
    fields=st.lists(st.tuples(TOKEN, VALUE), max_size=8),
    spaces=st.tuples(SPACE, SPACE),
    chunks=st.lists(st.binary(min_size=1, max_size=50), max_size=6),
    chunked=st.booleans(),
    interim=st.integers(0, 2),
    cuts=st.lists(st.integers(0, 5000), max_size=12),
)
def test_an_answer_reads_the_same_however_it_is_cut(
    fields: list[tuple[bytes, bytes]],
    spaces: tuple[bytes, bytes],
    chunks: list[bytes],
    chunked: bool,
    interim: int,
    cuts: list[int],
) -> None:
    """Fields, order and body come through whatever the pieces; twice on one connection."""
    body = b"".join(chunks)
    before, after = spaces
    head = b"".join(b"%b:%b%b%b\r\n" % (name, before, value, after) for name, value in fields)
    if chunked:
        framed = (
            b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\nX-Trailer: t\r\n\r\n"
        )
        head += b"Transfer-Encoding: chunked\r\n\r\n"
    else:
        framed = body
        head += b"Content-Length: %d\r\n\r\n" % len(body)
    data = b"HTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" * interim + b"HTTP/1.1 201 Made\r\n" + head + framed
    reader = ResponseReader()
    for _ in range(2):
        reader.begin(head_only=False)
        assert feed(reader, data, cuts) == body
        assert reader.complete
        assert reader.keep_alive
        assert not reader.stray
        assert reader.status == 201
        assert [field for field in reader.headers if field[0] != b"content-length"] == fields


@given(data=st.binary(max_size=300), cuts=st.lists(st.integers(0, 300), max_size=4), prefix=st.booleans())
def test_noise_never_does_worse_than_an_upstream_error(data: bytes, cuts: list[int], prefix: bool) -> None:
    """Whatever the bytes, the reader takes them or raises UpstreamError."""
    reader = ResponseReader()
    try:
        feed(reader, b"HTTP/1.1 200 OK\r\n" * prefix + data, cuts)
    except UpstreamError:
        assert not reader.complete


@pytest.mark.parametrize("size", [1, 1000, 1 << 18])
def test_the_header_bound_is_exact_to_one_piece(size: int) -> None:
    """No piece size gets a header past the bound, or memory much beyond it."""
    answer = b"HTTP/1.1 200 OK\r\nX: " + b"x" * (MAX_HEAD + size) + b"\r\n\r\n"
    with pytest.raises(UpstreamError, match="larger than"):
        feed(ResponseReader(), answer, list(range(0, len(answer), size)))


def test_a_large_body_in_the_first_piece_is_no_large_header() -> None:
    """The bound counts the header alone."""
    reader = ResponseReader()
    reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200000)
    assert reader.complete


def test_named_and_hop_by_hop_fields_end_here() -> None:
    """Connection strikes what it names, and never the length."""
    reader = ResponseReader()
    reader.feed(
        b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nConnection: X-Mine, content-length\r\n"
        b"X-Mine: 1\r\nKeep-Alive: 5\r\n"
        b"Set-Cookie: b=2\r\nUpgrade: h2c\r\nTrailer: x\r\nTE: y\r\nProxy-Connection: z\r\n"
        b"Content-Length: 0\r\n\r\n"
    )
    assert reader.headers == [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"content-length", b"0")]


@pytest.mark.parametrize(
    ("answer", "keeps"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True),
        (b"HTTP/1.1 200 OK\r\nConnection: Close\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nConnection: x, close\r\n\r\n", False),
        (b"HTTP/1.0 200 OK\r\n\r\n", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", True),
    ],
)
def test_head_knows_whether_the_connection_lives_on(answer: bytes, keeps: bool) -> None:
    """The parser can't tell for HEAD, so we do."""
    reader = ResponseReader()
    for _ in range(2):
        reader.begin(head_only=True)
        reader.feed(answer)
        assert reader.complete
        assert reader.keep_alive is keeps
        assert not reader.stray
