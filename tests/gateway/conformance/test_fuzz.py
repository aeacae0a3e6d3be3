"""Generated requests: valid ones arrive as they were sent, mangled ones break nothing."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.gateway.conformance.conftest import Stand
from tests.gateway.conformance.wire import Client, Message, Violation
from tests.waiting import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")
FUZZ = settings(
    max_examples=250,
    deadline=None,
    # one gateway serves every example, on purpose: what one leaves behind, the next would meet
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
ALLOWED = {200, 400, 404, 413, 414, 431, 501}

tokens = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789-!#$%&'*+.^`|~", min_size=1, max_size=12)
targets = st.builds(
    lambda path, query: f"/{path}{'?' + query if query else ''}".encode(),
    st.text("abcXYZ019-_~!$&'()*+,=:@", max_size=20),
    st.text("abcXYZ019-._~!$&'()*+,;=:@/?%{}|^`\"<>[]", max_size=20),
)
values = st.binary(max_size=30).map(lambda v: bytes(b for b in v if b >= 0x20 and b != 0x7F).strip(b" "))
fields = st.lists(st.tuples(tokens.map(lambda t: b"X-" + t.encode()), values), max_size=4)


@st.composite
def bodies(draw: st.DrawFn) -> tuple[bytes, bytes, bytes]:
    """Framing field, bytes on the wire, and the body that they carry."""
    pieces = draw(st.lists(st.binary(min_size=1, max_size=300), max_size=4))
    body = b"".join(pieces)
    if draw(st.booleans()):
        return b"Content-Length: %d\r\n" % len(body), body, body
    extension = draw(st.sampled_from([b"", b";a", b";a=b", b';a="b"']))
    trailer = draw(st.sampled_from([b"", b"X-Sum: 1\r\n", b"Host: evil.example\r\nTidegate-User: 1\r\n"]))
    wire = b"".join(b"%x%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    return b"Transfer-Encoding: chunked\r\n", wire + b"0\r\n" + trailer + b"\r\n", body


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, tuple[bytes, bytes, bytes]]:
    """A valid request, and what the upstream must make of it: method, target, body."""
    method = draw(st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"REPORT"]))
    target = draw(targets)
    framing, wire, body = draw(bodies()) if method != b"GET" or draw(st.booleans()) else (b"", b"", b"")
    lines = b"".join(b"%b: %b\r\n" % field for field in draw(fields))
    head = b"%b %b HTTP/1.1\r\nHost: shop.example\r\n%b%b\r\n" % (method, target, lines, framing)
    return head + wire, (method, target, body)


def split(data: bytes, at: list[int]) -> list[bytes]:
    """`data` cut where `at` says, modulo its length."""
    cuts = sorted({0, len(data), *(cut % (len(data) + 1) for cut in at)})
    return [data[begin:end] for begin, end in itertools.pairwise(cuts)]


async def exchange(client: Client, segments: list[bytes]) -> tuple[list[Message], bool]:
    """Send, end, and read answers to the end; whether that was a clean one."""
    answers: list[Message] = []
    try:
        for segment in segments:
            client.send(segment)
            await asyncio.sleep(0)  # so that it goes out as a segment of its own
        client.end()
        while (answer := await client.answer()) is not None:
            answers.append(answer)
    except (ConnectionError, asyncio.IncompleteReadError, Violation):
        return answers, False
    return answers, True


@FUZZ
@given(drawn=st.lists(requests(), min_size=1, max_size=4), cuts=st.lists(st.integers(0, 5000), max_size=5))
async def test_what_is_valid_arrives_as_it_was_sent(stand: Stand, drawn: Any, cuts: list[int]) -> None:
    """A pipeline of valid requests, cut anywhere: each arrives once, in order, with its very body."""
    stand.upstream.seen.clear()
    async with asyncio.timeout(PATIENCE), await stand.client() as client:
        answers, clean = await exchange(client, split(b"".join(wire for wire, _ in drawn), cuts))
    expected = [meant for _, meant in drawn]
    assert clean
    assert [(seen.method, seen.target, seen.body) for seen in stand.upstream.seen] == expected
    assert [answer.body for answer in answers] == [b"%b %b %b" % meant for meant in expected]
    for seen in stand.upstream.seen:
        assert seen.values(b"host") == [b"shop.example"]
        assert seen.values(b"tidegate-user") == []
    assert stand.upstream.violations == []


NASTY = st.sampled_from(
    [
        *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b"\r\n\r\n", b"\r\n ", b"#", b"%", b"..", b"\xff"),
        *(b"0\r\n\r\n", b"Content-Length: 3\r\n", b"Content-Length: 30\r\n", b"Content-Length: -1\r\n"),
        *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip\r\n", b"Host: evil.example\r\n"),
        *(b"Connection: close\r\n", b"Connection: upgrade\r\nUpgrade: h2c\r\n", b"Expect: 100-continue\r\n"),
        *(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", b"HTTP/1.0", b"HTTP/2.0", b"ffffffff", b"x" * 9000),
    ]
)


@st.composite
def mangled(draw: st.DrawFn) -> bytes:
    """Valid requests with some bytes lost, doubled, moved, or with what smugglers like put in."""
    data = bytearray(b"".join(wire for wire, _ in draw(st.lists(requests(), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        to = min(len(data), at + draw(st.integers(0, 40)))
        kind = draw(st.sampled_from(["insert", "remove", "repeat", "change", "move"]))
        if kind == "insert":
            data[at:at] = draw(NASTY)
        elif kind == "remove":
            del data[at:to]
        elif kind == "repeat":
            data[at:at] = data[at:to]
        elif kind == "change":
            data[at:to] = draw(st.binary(max_size=10))
        else:
            piece = data[at:to]
            del data[at:to]
            where = draw(st.integers(0, len(data)))
            data[where:where] = piece
    return bytes(data)


@FUZZ
@given(data=mangled() | st.binary(max_size=500), cuts=st.lists(st.integers(0, 5000), max_size=4))
async def test_what_is_mangled_breaks_nothing(stand: Stand, data: bytes, cuts: list[int]) -> None:
    """No failure of our own, no hang, nothing unclean to the upstream, whatever bytes come."""
    stand.upstream.seen.clear()
    async with asyncio.timeout(PATIENCE), await stand.client() as client:
        answers, _ = await exchange(client, split(data, cuts))
    assert {answer.status for answer in answers} <= ALLOWED, answers
    assert all(answer.status == 200 for answer in answers[:-1] if not answer.closes or answer.status == 200)
    assert sum(answer.status == 200 for answer in answers) <= len(stand.upstream.seen)
    assert stand.upstream.violations == []


async def test_nothing_is_left_over(stand: Stand, until: Any) -> None:
    """After all of that: no slot taken, no connection open, and the gateway serves as before."""

    async def clean() -> bool:
        return await stand.in_flight() == 0 and stand.connections() == 0

    await until(clean)
    assert await stand.gateway.metric("tidegate_requests_total", code="500") == 0
    assert (await stand.gateway.fresh()).status_code == 200
