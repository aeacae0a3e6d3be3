"""Deadlines of a client's connection, whichever way its bytes come; minutes pass at once."""

from __future__ import annotations

import asyncio
from typing import Any

import uvicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from gateway.bounds import Bounds
from gateway.client import ClientConnection
from gateway.config import Listen
from gateway.guard import REFUSAL
from gateway.upstream.scripted_transport import ScriptedTransport
from tests.gateway import virtual_time

LISTEN = Listen(header_timeout=2, body_timeout=3, write_timeout=4, idle_timeout=60)
GET = b"GET /12345 HTTP/1.1\r\nHost: a\r\n\r\n"  # a whole number of them is parsed at once
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"


class Client(ScriptedTransport):
    """A client that takes all it is sent."""

    closed = False

    def write_eof(self) -> None:
        """Nothing more comes from us."""

    def close(self) -> None:
        """The end."""
        self.closed = True

    def get_write_buffer_size(self) -> int:
        """It has taken all."""
        return 0

    def is_closing(self) -> bool:
        """Whether the connection ends."""
        return self.closed or self.aborted


async def connect(
    answering: float, *, unread: bool = False, ending: float = 0.0
) -> tuple[ClientConnection, Client]:
    """A connection whose requests are answered after so many seconds.

    Args:
        answering: seconds.
        unread: no body is waited for.
        ending: seconds that an app still takes when it has answered.
    """

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(answering)
        while not unread and (await receive()).get("more_body"):
            pass
        status = scope[REFUSAL].status if REFUSAL in scope else 200
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
        await asyncio.sleep(ending)

    config = uvicorn.Config(app, lifespan="off", log_config=None)
    config.load()
    connection = ClientConnection(Bounds(LISTEN), config, ServerState(), {})
    return connection, Client(connection)


def test_a_body_that_breaks_once_it_is_answered_ends_the_connection() -> None:
    """Also while the app is not done yet: the client may read its answer, and then that was all."""

    async def run() -> tuple[list[str], float]:
        loop, failures = asyncio.get_running_loop(), list[str]()
        loop.set_exception_handler(lambda _, said: failures.append(str(said)))
        connection, client = await connect(0, unread=True, ending=1)
        client.receive(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe")
        while b" 200 " not in client.written:
            await asyncio.sleep(0)
        client.receive(b"llo\r\nno size\r\n")
        began = loop.time()
        while not client.is_closing() and loop.time() - began < LISTEN.idle_timeout:
            await asyncio.sleep(0.1)
        connection.connection_lost(None)
        return failures, loop.time() - began

    failures, took = virtual_time.run(run())
    assert not failures
    assert took < 3


def test_a_header_behind_a_pipeline_is_timed() -> None:
    """It began when its first byte was read; that it was read once others were answered wins it no time."""

    async def run() -> float:
        loop = asyncio.get_running_loop()
        _, client = await connect(0.001)
        client.receive(GET)
        await asyncio.sleep(20)  # idle, so that nobody looks for another 40 s
        client.receive(GET * 400 + GET[:9])
        began = loop.time()
        for _ in range(1000):
            await asyncio.sleep(0.1)
            if client.is_closing() or b" 408 " in client.written:
                break
        assert client.written.count(b" 200 ") == 401
        return loop.time() - began

    assert virtual_time.run(run()) < 3


def test_a_header_that_we_do_not_read_is_not_late() -> None:
    """A pipeline that came whole is answered, however long a header cut by our slices waits for others."""

    async def run() -> bytes:
        _, client = await connect(0.1)
        client.receive(GET.replace(b"5", b"56") * 400)
        await asyncio.sleep(50)
        return client.written

    written = virtual_time.run(run())
    assert (written.count(b" 200 "), written.count(b" 408 ")) == (400, 0)


@settings(max_examples=100, deadline=None)
# What follows the body is no request, and has a shorter time.
@example(answering=0.0, steps=[GET, 2.5, POST, GET])
@given(
    answering=st.sampled_from([0.0, 0.1, 5.0]),
    steps=st.lists(
        st.one_of(
            st.sampled_from(
                [GET, GET * 400, POST, POST + b"123456789", GET * 317 + POST, b"\r\n", b"1", b"x" * 9]
            ),
            st.integers(1, len(GET)).map(lambda cut: GET[:cut]),
            st.integers(1, len(GET)).map(lambda cut: GET * 317 + GET[:cut]),
            st.sampled_from([0.0, 0.01, 1.0, 2.5, 10.0]),
        ),
        max_size=12,
    ),
)
def test_whatever_is_due_is_looked_for(answering: float, steps: list[bytes | float]) -> None:
    """At any moment a timer runs that fires no later than the next deadline."""

    async def run() -> None:
        connection, client = await connect(answering)
        for step in steps:
            if isinstance(step, bytes):
                client.receive(step)
            else:
                await asyncio.sleep(step)
            for _ in range(4):
                if client.is_closing():
                    return
                assert connection.timer_at <= min(connection.read_by, connection.write_by)
                await asyncio.sleep(0)

    virtual_time.run(run())
