"""Bodies both ways: as they come, in bounded memory, and given up cleanly."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from typing import Any

import pytest

from gateway.errors import BadRequest, PayloadTooLarge, PoolExhausted, RequestTimeout, UpstreamError
from gateway.exchange import ClientGone
from gateway.upstream.http1 import READ_HIGH
from tests.clock import Clock
from tests.gateway.upstream.scripted import OK, Bench, Peer, always, make_exchange, settled
from tests.waiting import until

MIB = 1 << 20


async def test_events_are_flushed_as_they_come(bench: Bench) -> None:
    """Each server-sent event arrives before the next is sent."""
    heard = asyncio.Event()

    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for number in range(5):
            await peer.say(b"8\r\ndata: %d\n\r\n" % number)
            await heard.wait()
            heard.clear()
        await peer.say(b"0\r\n\r\n")
        await peer.hung_up()

    upstream = await bench.front(talk)
    reply = await upstream(make_exchange())
    assert reply.stream is not None
    events = []
    async for event in reply.stream:
        events.append(event)
        heard.set()
    assert events == [b"data: %d\n" % number for number in range(5)]
    assert upstream.servers()[0] | {"url": ""} == {
        "url": "",
        "healthy": True,
        "in_flight": 0,
        "idle": 1,
        "failures": 0,
        "seconds_left": 0.0,
    }


async def test_a_slow_reader_holds_the_upstream_back(bench: Bench) -> None:
    """64 MiB to a reader that stops: the gateway holds one bounded buffer, and loses no byte."""
    sent = 0

    async def talk(peer: Peer) -> None:
        nonlocal sent
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (64 * MIB))
        for _ in range(256):
            await peer.say(b"x" * (256 << 10))
            sent += 256 << 10
        await peer.hung_up()

    upstream = await bench.front(talk)
    reply = await upstream(make_exchange())
    stream: Any = reply.stream
    reader = stream._connection.reader
    await settled(lambda: sent)
    assert READ_HIGH < reader.buffered <= READ_HIGH + (256 << 10)
    assert sent < 32 * MIB  # the rest of it lies in the kernel's socket buffers
    got = 0
    async for piece in stream:
        assert len(piece) <= READ_HIGH + (256 << 10)
        got += len(piece)
    assert got == 64 * MIB
    assert upstream.servers()[0]["idle"] == 1


async def test_a_slow_upstream_holds_the_client_back(bench: Bench) -> None:
    """64 MiB to an upstream that does not read: the client is asked for a bounded part of it."""
    asked = 0
    go_on = asyncio.Event()
    got = 0

    async def receive() -> dict[str, Any]:
        nonlocal asked
        asked += 256 << 10
        return {"type": "http.request", "body": b"x" * (256 << 10), "more_body": asked < 64 * MIB}

    async def talk(peer: Peer) -> None:
        nonlocal got
        await peer.reader.readuntil(b"\r\n\r\n")
        await go_on.wait()
        while got < 64 * MIB:
            got += len(await peer.reader.read(MIB))
        await peer.say(OK)
        await peer.hung_up()

    upstream = await bench.front(talk, total=30)
    task = asyncio.ensure_future(upstream(make_exchange("POST", receive=receive, length=64 * MIB)))
    await settled(lambda: asked)
    assert asked < 32 * MIB
    go_on.set()
    assert (await task).body == b"ok"
    assert got == 64 * MIB
    assert upstream.servers()[0]["idle"] == 1


@pytest.mark.parametrize("length", [None, 5])
async def test_the_body_arrives_as_it_was_sent(bench: Bench, length: int | None) -> None:
    """Announced or chunked, the upstream reads the same bytes; the connection serves on."""
    bodies = []

    async def talk(peer: Peer) -> None:
        while True:
            head = await peer.request()
            if b"chunked" in head:
                bodies.append(await peer.reader.readuntil(b"0\r\n\r\n"))
            else:
                bodies.append(head.partition(b"\r\n\r\n")[2])
            await peer.say(OK)

    server, url = await bench.server(talk)
    upstream = await bench.upstream(url)
    for _ in range(2):
        reply = await upstream(make_exchange("POST", body=[b"he", b"", b"llo"], length=length))
        assert reply.body == b"ok"
    assert bodies == [b"hello" if length else b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"] * 2
    assert server.connections == 1


@pytest.mark.parametrize("announced", [4, 6, 100_000])
async def test_a_body_of_another_length_never_reaches_the_next_request(bench: Bench, announced: int) -> None:
    """More or less than Content-Length announced: refused, and the connection is not used again."""
    body = [b"hello" if announced < 10 else b"x" * 100_001]
    upstream = await bench.front(always())
    with pytest.raises(BadRequest):
        await upstream(make_exchange("POST", body=body, length=announced))
    assert upstream.servers()[0]["in_flight"] == upstream.servers()[0]["idle"] == 0


async def test_an_early_answer_is_handed_on(bench: Bench) -> None:
    """The upstream refuses a body before its end: its answer counts, and the connection ends."""
    asked_in_vain = 0

    async def never() -> dict[str, Any]:
        nonlocal asked_in_vain
        asked_in_vain += 1
        try:
            await asyncio.Event().wait()
        finally:
            asked_in_vain -= 1
        raise AssertionError

    async def talk(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.say(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno")
        await peer.hung_up()

    server, url = await bench.server(talk)
    upstream = await bench.upstream(url)
    reply = await upstream(make_exchange("POST", receive=never, length=MIB))
    assert (reply.status, reply.body) == (413, b"no")
    await until(lambda: server.open == 0)
    await until(lambda: asked_in_vain == 0)  # nobody reads from the client any more
    assert upstream.servers()[0]["in_flight"] == upstream.servers()[0]["idle"] == 0


async def test_a_last_answer_is_read_though_sending_fails_first(bench: Bench) -> None:
    """Whoever refuses a body hangs up amid it, and resets us: what it said before is its answer."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        async def body() -> dict[str, Any]:
            if sent:
                await asyncio.sleep(0)
            else:
                server, _ = listener.accept()
                server.setblocking(False)
                assert await asyncio.get_running_loop().sock_recv(server, 1) == b"P"
                server.sendall(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno")
                server.close()  # what it has not read makes that a reset
            sent.append(MIB)
            return {"type": "http.request", "body": b"x" * MIB, "more_body": True}

        upstream = await bench.upstream(f"http://127.0.0.1:{listener.getsockname()[1]}")
        for _ in range(5):
            sent: list[int] = []
            reply = await upstream(make_exchange("POST", receive=body, length=100 * MIB, max_body=100 * MIB))
            assert (reply.status, reply.body) == (413, b"no")
    assert upstream.servers()[0]["failures"] == 0
    assert upstream.servers()[0]["in_flight"] == 0


@pytest.mark.parametrize("length", [10, MIB, None])
async def test_a_client_too_slow_with_its_body_gets_408(bench: Bench, length: int | None) -> None:
    """The upstream is not to blame, and no connection stays with it."""

    async def stuck() -> dict[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    upstream = await bench.front(always() if length else _mute, total=1.0)
    with pytest.raises(RequestTimeout):
        await upstream(make_exchange("POST", receive=stuck, length=length))
    assert upstream.servers()[0]["in_flight"] == 0


async def _mute(peer: Peer) -> None:
    await peer.hung_up()


@pytest.mark.parametrize("length", [30, None])
async def test_a_client_slow_with_its_body_makes_no_slow_upstream(bench: Bench, length: int | None) -> None:
    """The time to the answer begins when the body has ended: a breaker opens by it."""
    clock = Clock()
    pieces = [b"x" * 10] * 3

    async def slow() -> dict[str, Any]:
        clock.advance(10)
        return {"type": "http.request", "body": pieces.pop(), "more_body": bool(pieces)}

    async def talk(peer: Peer) -> None:
        head = await peer.reader.readuntil(b"\r\n\r\n")
        await (peer.reader.readuntil(b"\r\n0\r\n\r\n") if b"chunked" in head else peer.reader.readexactly(30))
        clock.advance(1)
        await peer.say(OK)

    upstream = await bench.front(talk, clock=clock)
    exchange = make_exchange("POST", receive=slow, length=length)
    assert (await upstream(exchange)).body == b"ok"
    assert exchange.upstream_seconds == 1


@pytest.mark.parametrize("length", [10, MIB, None])
async def test_a_client_that_leaves_is_no_fault_of_the_upstream(bench: Bench, length: int | None) -> None:
    """ClientGone passes through, and the connection with half a request is closed."""
    messages = [
        {"type": "http.request", "body": b"hi", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def leaving() -> dict[str, Any]:
        return messages.pop(0)

    server, url = await bench.server(_mute)
    upstream = await bench.upstream(url)
    with pytest.raises(ClientGone):
        await upstream(make_exchange("POST", receive=leaving, length=length))
    await until(lambda: server.open == 0)
    assert upstream.servers()[0]["in_flight"] == 0


async def test_a_body_too_large_ends_the_exchange(bench: Bench) -> None:
    """A chunked body beyond max_body is 413, and the upstream sees a broken request."""
    upstream = await bench.front(_mute)
    with pytest.raises(PayloadTooLarge):
        await upstream(make_exchange("POST", body=[b"x" * 600, b"x" * 600], max_body=1000))
    assert upstream.servers()[0]["in_flight"] == 0


@pytest.mark.parametrize("taken", [0, 1])
async def test_a_stream_dropped_half_read_closes_its_connection(bench: Bench, taken: int) -> None:
    """`aclose` leaves nothing in use; a second one does nothing."""

    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nx")
        await peer.hung_up()

    server, url = await bench.server(talk)
    upstream = await bench.upstream(url)
    reply = await upstream(make_exchange())
    assert reply.stream is not None
    for _ in range(taken):
        await anext(reply.stream)
    await reply.aclose()
    await reply.aclose()
    assert [piece async for piece in reply.stream] == []
    await until(lambda: server.open == 0)
    assert upstream.servers()[0]["in_flight"] == upstream.servers()[0]["idle"] == 0


async def test_a_full_pool_is_our_own_fault(bench: Bench) -> None:
    """Waiting for a connection ends in PoolExhausted, which no breaker counts; and nothing leaks."""
    upstream = await bench.front(_mute, max_connections=1, total=1.0)
    deadline = time.monotonic() + 1.0  # of all four: else who waits may have time for a try of its own
    sending = (upstream.send(make_exchange(), deadline) for _ in range(4))
    results = await asyncio.gather(*sending, return_exceptions=True)
    assert [type(result).__name__ for result in results].count("UpstreamTimeout") == 1
    assert sum(isinstance(result, PoolExhausted) for result in results) == 3
    assert upstream.servers()[0]["in_flight"] == 0


@pytest.mark.parametrize("seed", range(3))
async def test_a_storm_of_disconnects_leaves_nothing_in_use(bench: Bench, seed: int) -> None:
    """400 exchanges of all kinds, cancelled at random at any await: no connection stays in use."""
    rng = random.Random(seed)

    async def talk(peer: Peer) -> None:
        while True:
            head = await peer.request()
            if b"chunked" in head:
                await peer.reader.readuntil(b"0\r\n\r\n")
            if b"/big" in head:
                await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 200_000)
            elif b"/cut" in head:
                await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx")
                return
            else:
                await peer.say(OK)

    server, url = await bench.server(talk)
    upstream = await bench.upstream(url, max_connections=8)

    async def visit(kind: int) -> None:
        target = (b"/", b"/big", b"/cut", b"/")[kind % 4]
        body = [b"x" * 100, b"y"] if kind >= 2 else None
        exchange = make_exchange(
            "POST" if body else "GET", target, body=body, length=101 if kind == 3 else None
        )
        reply = await upstream(exchange)
        try:
            if reply.stream is not None:
                async for _ in reply.stream:
                    await asyncio.sleep(0)
        finally:
            await reply.aclose()

    tasks = [asyncio.ensure_future(visit(rng.randrange(5))) for _ in range(400)]
    while pending := [task for task in tasks if not task.done()]:
        for task in rng.sample(pending, min(len(pending), rng.randrange(4))):
            task.cancel()
        await asyncio.sleep(0)
    results = await asyncio.gather(*tasks, return_exceptions=True)
    unexpected = [r for r in results if r and not isinstance(r, asyncio.CancelledError | UpstreamError)]
    assert unexpected == []
    state = upstream.servers()[0]
    assert state["in_flight"] == 0
    assert (await upstream(make_exchange())).body == b"ok"
    await upstream.aclose()
    await until(lambda: server.open == 0)


async def test_time_to_the_header_is_noted(bench: Bench) -> None:
    """`upstream_seconds` stays None until the upstream has answered."""
    upstream = await bench.front(always())
    exchange = make_exchange()
    assert exchange.upstream_seconds is None
    await upstream(exchange)
    assert exchange.upstream_seconds is not None
    assert exchange.upstream_seconds >= 0


async def test_closing_lets_exchanges_end(bench: Bench) -> None:
    """A reload replaces the upstream while answers flow: they end whole, then the connections go."""
    going = asyncio.Event()

    async def talk(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nha")
        await going.wait()
        await peer.say(b"lf")
        await peer.hung_up()

    server, url = await bench.server(talk)
    upstream = await bench.upstream(url)
    reply = await upstream(make_exchange())
    await upstream.aclose()
    going.set()
    assert reply.stream is not None
    assert b"".join([piece async for piece in reply.stream]) == b"half"
    await until(lambda: server.open == 0)
    assert upstream.servers()[0]["in_flight"] == upstream.servers()[0]["idle"] == 0
