"""One connection over a transport without a socket."""

from __future__ import annotations

import asyncio

import pytest

from gateway.errors import UpstreamError, UpstreamTimeout
from gateway.upstream.http1 import READ_HIGH, Connection
from gateway.upstream.scripted_transport import ScriptedTransport
from tests.clock import Clock

FAR = 1e9  # a deadline nobody reaches


def pair(clock: Clock | None = None) -> tuple[Connection, ScriptedTransport]:
    connection = Connection(clock=clock or Clock())
    connection.leased = True
    return connection, ScriptedTransport(connection)


async def test_a_request_and_its_answer() -> None:
    """Bytes in, bytes out; then the connection is good for another."""
    connection, wire = pair()
    for _ in range(2):
        connection.send(b"GET / HTTP/1.1\r\n\r\n")
        assert not connection.reusable
        wire.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        await connection.head(FAR)
        assert connection.take() == b"hi"
        assert connection.reusable
    assert wire.written == b"GET / HTTP/1.1\r\n\r\n" * 2


async def test_reading_pauses_until_the_body_is_taken() -> None:
    """A slow reader holds the upstream back at the bound."""
    connection, wire = pair()
    connection.send(b"GET / HTTP/1.1\r\n\r\n")
    wire.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 9999999\r\n\r\n")
    wire.receive(b"x" * READ_HIGH)
    assert wire.reading
    wire.receive(b"x")
    assert not wire.reading
    assert len(connection.take()) == READ_HIGH + 1
    assert wire.reading


async def test_writers_wait_for_a_slow_upstream() -> None:
    """`drain` blocks while the transport is full, and returns when the connection ends."""
    connection, wire = pair()
    connection.send(b"POST / HTTP/1.1\r\n\r\n", whole=False)
    for release in (connection.resume_writing, connection.abort):
        connection.pause_writing()
        waiting = asyncio.ensure_future(connection.drain())
        await asyncio.sleep(0)
        assert not waiting.done()
        release()
        await waiting
    assert wire.aborted


@pytest.mark.parametrize("late", [b"x", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"])
async def test_bytes_at_rest_end_the_connection(late: bytes) -> None:
    """What answers no request is never read as the answer to the next."""
    connection, wire = pair()
    connection.send(b"GET / HTTP/1.1\r\n\r\n")
    wire.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    connection.rest(FAR)
    connection.leased = False
    wire.receive(late)
    assert wire.aborted
    assert connection.closed
    assert not connection.reusable


async def test_a_request_half_sent_is_not_followed_by_another() -> None:
    """An early answer leaves the connection unusable."""
    connection, wire = pair()
    connection.send(b"POST / HTTP/1.1\r\n\r\n", whole=False)
    wire.receive(b"HTTP/1.1 413 No\r\nContent-Length: 0\r\n\r\n")
    await connection.head(FAR)
    assert connection.reader.status == 413
    assert not connection.reusable


@pytest.mark.parametrize("error", [None, ConnectionResetError()])
async def test_the_end_before_an_answer_wakes_the_waiter(error: Exception | None) -> None:
    """Closed or broken: the waiter gets an UpstreamError, and so does whoever comes later."""
    connection, wire = pair()
    connection.send(b"GET / HTTP/1.1\r\n\r\n")
    waiting = asyncio.ensure_future(connection.head(FAR))
    await asyncio.sleep(0)
    wire.end(error)
    with pytest.raises(UpstreamError):
        await waiting
    connection.send(b"GET / HTTP/1.1\r\n\r\n")
    with pytest.raises(UpstreamError):
        await connection.head(FAR)


async def test_only_a_clean_end_completes_a_body_without_length() -> None:
    """Until-close bodies are whole after EOF, and cut after a reset."""
    for error, whole in ((None, True), (ConnectionResetError(), False)):
        connection, wire = pair()
        connection.send(b"GET / HTTP/1.1\r\n\r\n")
        wire.receive(b"HTTP/1.1 200 OK\r\n\r\nhi")
        wire.end(error)
        await connection.head(FAR)
        assert connection.take() == b"hi"
        assert connection.reader.complete is whole
        if not whole:
            with pytest.raises(UpstreamError):
                await connection.more(FAR)


async def test_one_timer_serves_many_deadlines() -> None:
    """The timer of an earlier request does not end a later one before its time; its own does."""
    clock = Clock()
    connection, wire = pair(clock)
    connection.send(b"GET / HTTP/1.1\r\n\r\n")
    first = asyncio.ensure_future(connection.head(clock.now + 0.02))
    await asyncio.sleep(0)
    wire.receive(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    await first
    connection.send(b"GET / HTTP/1.1\r\n\r\n")
    second = asyncio.ensure_future(connection.head(clock.now + 0.05))
    done, _ = await asyncio.wait([second], timeout=0.1)  # the timers fire, but the clock stands still
    assert not done
    clock.now += 1
    with pytest.raises(UpstreamTimeout):
        await second
    assert wire.aborted


async def test_a_rest_ends_by_itself() -> None:
    """An idle connection is closed when its time is over."""
    clock = Clock()
    connection, wire = pair(clock)
    connection.rest(clock.now + 0.01)
    connection.leased = False
    clock.now += 1
    lost = asyncio.get_running_loop().time() + 5
    while not wire.aborted:
        assert asyncio.get_running_loop().time() < lost
        await asyncio.sleep(0.001)


async def test_a_connection_given_up_while_opening_closes() -> None:
    """Cancelled before `connection_made`: nothing stays open."""
    connection = Connection(clock=Clock())
    connection.abort()
    assert ScriptedTransport(connection).aborted
