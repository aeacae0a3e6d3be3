"""What upstreams do wrong, and what comes of it."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import UpstreamError, UpstreamTimeout
from gateway.exchange import Reply
from tests.gateway.upstream.scripted import OK, Bench, Peer, always, answers, make_exchange

OK_LINE = b"HTTP/1.1 200 OK\r\n"
BIG = OK_LINE + b"X-Big: " + b"x" * (70 << 10) + b"\r\nContent-Length: 2\r\n\r\nok"
MANY = OK_LINE + b"".join(b"X-%d: y\r\n" % n for n in range(250)) + b"\r\n"

GARBAGE = {
    "closed at once": b"",
    "status line cut": b"HTTP/1.1 2",
    "header cut": OK_LINE + b"Content-Le",
    "not HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "another protocol": b"RTSP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    "leading empty line": b"\r\n" + OK,
    "status of two digits": b"HTTP/1.1 20 OK\r\n\r\n",
    "status of four digits": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status 999": b"HTTP/1.1 999 OK\r\n\r\n",
    "status 099": b"HTTP/1.1 099 OK\r\n\r\n",
    "switching protocols": b"HTTP/1.1 101 Sure\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "space before the colon": OK_LINE + b"Content-Length : 0\r\n\r\n",
    "folded field": OK_LINE + b"A: b\r\n c\r\nContent-Length: 0\r\n\r\n",
    "NUL in a field": OK_LINE + b"A: b\x00c\r\nContent-Length: 0\r\n\r\n",
    "length and chunks": OK_LINE + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": OK_LINE + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two lengths": OK_LINE + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab",
    "negative length": OK_LINE + b"Content-Length: -1\r\n\r\n",
    "length in words": OK_LINE + b"Content-Length: two\r\n\r\nok",
    "length too long": OK_LINE + b"Content-Length: 99999999999999999999999\r\n\r\n",
    "another coding": OK_LINE + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "coding twice": OK_LINE + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "coding in HTTP/1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "header too large": BIG,
    "too many fields": MANY,
}


@pytest.mark.parametrize("answer", GARBAGE.values(), ids=GARBAGE.keys())
async def test_garbage_is_a_bad_gateway(bench: Bench, answer: bytes) -> None:
    """An answer that breaks HTTP, or ends before its header does, is 502 and leaves nothing in use."""
    upstream = await bench.front(answers(answer))
    with pytest.raises(UpstreamError) as caught:
        await upstream(make_exchange("POST"))
    assert caught.value.status == 502
    assert upstream.servers()[0]["in_flight"] == upstream.servers()[0]["idle"] == 0


@pytest.mark.parametrize(
    "flood",
    [b"x", b"HTTP/1.1 103 Hm\r\n\r\n", b"X-A: b\r\n"],
    ids=["one endless field", "interim answers", "endless fields"],
)
async def test_an_endless_header_is_cut(bench: Bench, flood: bytes) -> None:
    """An upstream that never ends its header costs bounded memory, then 502."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"" if flood.startswith(b"HTTP") else OK_LINE + b"X: ")
        while True:
            await peer.say(flood * 1000)

    upstream = await bench.front(talk)
    with pytest.raises(UpstreamError) as caught:
        await upstream(make_exchange("POST"))
    assert caught.value.status == 502


CUT = {
    "length": OK_LINE + b"Content-Length: 10\r\n\r\nhalf",
    "chunk": OK_LINE + b"Transfer-Encoding: chunked\r\n\r\na\r\nhalf",
    "between chunks": OK_LINE + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    "bad chunk": OK_LINE + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
    "endless trailer": OK_LINE
    + b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n0\r\nX: "
    + b"x" * (1 << 20),
}


async def read(reply: Reply) -> bytes:
    if reply.stream is None:
        return reply.body
    return b"".join([piece async for piece in reply.stream])


@pytest.mark.parametrize("answer", CUT.values(), ids=CUT.keys())
async def test_a_cut_body_never_looks_whole(bench: Bench, answer: bytes) -> None:
    """The stream raises after what came, and says that the upstream broke off."""
    ending = asyncio.Event()

    async def talk(peer: Peer) -> None:
        await peer.request()
        head, half, rest = answer.partition(b"half")
        await peer.say(head + half)
        await ending.wait()
        await peer.say(rest)

    upstream = await bench.front(talk)
    exchange = make_exchange()
    reply = await upstream(exchange)
    assert reply.stream is not None
    assert await anext(reply.stream) == b"half"
    ending.set()
    with pytest.raises(UpstreamError):
        await anext(reply.stream)
    assert exchange.broke_off
    assert upstream.servers()[0]["in_flight"] == upstream.servers()[0]["idle"] == 0


WHOLE = {
    "length": (OK_LINE + b"Content-Length: 2\r\n\r\nhi", b"hi", True),
    "empty": (OK_LINE + b"Content-Length: 0\r\n\r\n", b"", True),
    "chunked": (
        OK_LINE + b"Transfer-Encoding: chunked\r\n\r\n1\r\nh\r\n1;e=x\r\ni\r\n0\r\n\r\n",
        b"hi",
        True,
    ),
    "trailers": (
        OK_LINE + b"Transfer-Encoding: Chunked\r\n\r\n2\r\nhi\r\n0\r\nX-T: 1\r\n\r\n",
        b"hi",
        True,
    ),
    "until close": (OK_LINE + b"\r\nhi", b"hi", False),
    "until close, 1.0": (b"HTTP/1.0 200 OK\r\n\r\nhi", b"hi", False),
    "interim": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n" + OK, b"ok", True),
    "close": (OK_LINE + b"Connection: close\r\nContent-Length: 2\r\n\r\nhi", b"hi", False),
    "HTTP/1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"hi", False),
    "204": (b"HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n", b"", True),
    "304": (b"HTTP/1.1 304 No\r\nContent-Length: 900\r\nETag: x\r\n\r\n", b"", True),
    "stray bytes": (OK + b"stray", b"ok", False),
    "a second answer": (OK + OK, b"ok", False),
    "the start of a second answer": (OK + b"HTTP/1.1 2", b"ok", False),
    "no reason phrase": (b"HTTP/1.1 200\r\nContent-Length: 2\r\n\r\nhi", b"hi", True),
}


@pytest.mark.parametrize(("answer", "body", "reused"), WHOLE.values(), ids=WHOLE.keys())
async def test_whole_answers(bench: Bench, answer: bytes, body: bytes, reused: bool) -> None:
    """Every framing is read to its end, and only a clean connection is used again."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(answer)
        if reused:
            await peer.hung_up()

    upstream = await bench.front(talk)
    reply = await upstream(make_exchange())
    assert await read(reply) == body
    names = [name for name, _ in reply.headers]
    assert not {b"transfer-encoding", b"connection", b"x-t"} & set(names)
    assert names.count(b"content-length") <= (reply.status == 200)
    assert upstream.servers()[0]["in_flight"] == 0
    assert upstream.servers()[0]["idle"] == reused


@pytest.mark.parametrize(
    ("status", "challenge", "reused"),
    [
        (401, b"WWW-Authenticate: Basic realm=a", True),
        (401, b"WWW-Authenticate: Bearer", True),
        (401, b"WWW-Authenticate: NTLM", False),
        (401, b"WWW-Authenticate: Negotiate", False),
        (401, b"WWW-Authenticate: Basic realm=a\r\nWWW-Authenticate: ntlm TlRMTVNTUA==", False),
        (407, b"Proxy-Authenticate: Negotiate", False),
    ],
)
async def test_who_is_known_by_a_connection_shares_it_with_nobody(
    bench: Bench, status: int, challenge: bytes, reused: bool
) -> None:
    """NTLM proves once who is at the end of a connection: the next one sent on it would be taken for it."""
    answer = b"HTTP/1.1 %d No\r\n%b\r\nContent-Length: 0\r\n\r\n" % (status, challenge)
    upstream = await bench.front(always(answer))
    assert (await upstream(make_exchange())).status == status
    assert upstream.servers()[0]["idle"] == reused


async def test_a_short_body_goes_out_in_one_piece(bench: Bench) -> None:
    """Header and body in two segments, as most servers send them, still make one whole reply."""
    pause = asyncio.Event()

    async def talk(peer: Peer) -> None:
        await peer.request()
        for piece in (b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n", b"abcdef"):
            await peer.say(piece)
            await pause.wait()
            pause.clear()
        await peer.hung_up()

    upstream = await bench.front(talk)
    task = asyncio.ensure_future(upstream(make_exchange()))
    while not task.done():
        pause.set()
        await asyncio.sleep(0)
    assert (task.result().body, task.result().stream) == (b"abcdef", None)
    pause.set()


@pytest.mark.parametrize("begun", [b"", b"half"])
async def test_a_break_after_the_header_is_no_bad_gateway(bench: Bench, begun: bytes) -> None:
    """Even at once after it: the reply has the status, and a stream that raises."""
    upstream = await bench.front(answers(OK_LINE + b"Content-Length: 10\r\n\r\n" + begun))
    for _ in range(20):
        exchange = make_exchange("POST")
        reply = await upstream(exchange)
        assert reply.status == 200
        with pytest.raises(UpstreamError):
            await read(reply)
        assert exchange.broke_off
    assert upstream.servers()[0]["in_flight"] == 0


async def test_head_has_no_body_and_keeps_the_length(bench: Bench) -> None:
    """HEAD announces a length and sends nothing; the connection serves on."""
    scripted, url = await bench.server(always(OK_LINE + b"Content-Length: 900\r\n\r\n"))
    upstream = await bench.upstream(url)
    for _ in range(3):
        reply = await upstream(make_exchange("HEAD"))
        assert (reply.status, reply.body, reply.stream) == (200, b"", None)
        assert (b"content-length", b"900") in reply.headers
    assert scripted.connections == 1


@pytest.mark.parametrize("rest", [b"", b"body", OK])
async def test_a_body_after_head_ends_the_connection(bench: Bench, rest: bytes) -> None:
    """An upstream that sends a body with HEAD must not poison the next exchange."""
    scripted, url = await bench.server(always(OK_LINE + b"Content-Length: 4\r\n\r\n" + rest))
    upstream = await bench.upstream(url)
    await upstream(make_exchange("HEAD"))
    await upstream(make_exchange("HEAD"))
    assert scripted.connections == (2 if rest else 1)


async def test_a_slow_header_times_out(bench: Bench) -> None:
    """One byte at a time does not extend the deadline for the header."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        for byte in OK_LINE + b"X-A: " + b"a" * 1000:
            await peer.say(bytes([byte]))
            await asyncio.sleep(0.01)

    upstream = await bench.front(talk, total=1.0)
    with pytest.raises(UpstreamTimeout) as caught:
        await upstream(make_exchange())
    assert caught.value.status == 504
    assert upstream.servers()[0]["in_flight"] == 0


async def test_a_body_that_stops_times_out(bench: Bench) -> None:
    """Between two pieces of the body no more than the timeout may pass."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(OK_LINE + b"Content-Length: 10\r\n\r\nhalf")
        await peer.hung_up()

    upstream = await bench.front(talk, total=1.0)
    exchange = make_exchange()
    reply = await upstream(exchange)
    with pytest.raises(UpstreamTimeout):
        await read(reply)
    assert exchange.broke_off
    assert upstream.servers()[0]["in_flight"] == 0


async def test_a_refused_connection_is_a_bad_gateway(bench: Bench) -> None:
    """Nobody listens: 502, and the pool is empty again."""
    scripted, url = await bench.server(always())
    await scripted.aclose()
    upstream = await bench.upstream(url)
    with pytest.raises(UpstreamError) as caught:
        await upstream(make_exchange())
    assert caught.value.status == 502
    assert upstream.servers()[0]["in_flight"] == 0
