"""Deadlines of a client's connection, whichever way its bytes come; minutes pass at once."""

from __future__ import annotations

import asyncio
import math
from types import FunctionType
from typing import Any

import pytest
import uvicorn
from hypothesis import example, given, settings
from hypothesis import strategies as st
from uvicorn.server import ServerState

from gateway.bounds import Bounds
from gateway.client import ClientConnection
from gateway.config import Listen
from gateway.guard import REFUSAL
from gateway.timed import Timed, Wheel
from gateway.upstream.scripted_transport import ScriptedTransport
from tests.gateway import virtual_time

LATE = 0.06  # seconds; a slot of the wheel, and what clocks are rounded by
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
        await asyncio.sleep(0.1)
        assert b" 200 " in client.written
        client.receive(b"llo\r\nno size\r\n")
        began = loop.time()
        for _ in range(1000):
            await asyncio.sleep(0.1)
            if client.is_closing():
                break
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


class Waiting(Timed):
    """Counts on being told once, and soon, that its time has come.

    Attributes:
        until: when; infinity while it waits for nothing.
        told: how often it was.
    """

    def __init__(self, wheel: Wheel) -> None:
        super().__init__(asyncio.get_running_loop(), wheel, rhythm=1.0)
        self.until = math.inf
        self.told = 0
        self.others: list[Waiting] = []  # leave as it is told

    def wait(self, seconds: float, *, reading: bool) -> None:
        """From now on so long."""
        self.until = self.loop.time() + seconds
        self.read_by, self.write_by = (self.until, math.inf) if reading else (math.inf, self.until)
        self.arm()

    def leave(self) -> None:
        """It is gone."""
        self.until = math.inf
        self.disarm()

    def late(self, now: float) -> None:
        """It is told."""
        assert self.until <= now < self.until + LATE
        self.until = self.write_by = math.inf
        self.told += 1
        for other in self.others:
            other.leave()
        raise RuntimeError("and breaks")

    def abort(self) -> None:
        """The same."""
        self.late(self.loop.time())


@pytest.mark.skipif(
    not isinstance(Timed.arm, FunctionType), reason="none can be derived from what is compiled"
)
@settings(max_examples=200, deadline=None)
@given(
    steps=st.lists(
        st.one_of(
            st.tuples(st.integers(0, 5), st.sampled_from([0.0, 0.001, 0.05, 0.051, 1.0, 7.3]), st.booleans()),
            st.tuples(st.integers(0, 5), st.sampled_from(["leave"]), st.booleans()),
            st.sampled_from([0.0, 0.02, 0.05, 0.5, 3.0]),
        ),
        max_size=40,
    ),
    takes_along=st.booleans(),
)
def test_the_wheel_looks_in_time(steps: list[Any], takes_along: bool) -> None:
    """Whoever waits is told once, when its time has come, whatever others do then; nobody who left."""

    async def run() -> None:
        loop, failures = asyncio.get_running_loop(), list[str]()
        loop.set_exception_handler(lambda _, said: failures.append(repr(said["exception"])))
        wheel = Wheel()
        waiting = [Waiting(wheel) for _ in range(6)]
        if takes_along:
            waiting[0].others = waiting[1:3]
        for step in steps:
            if isinstance(step, float):
                await asyncio.sleep(step)
            elif step[1] == "leave":
                waiting[step[0]].leave()
            else:
                waiting[step[0]].wait(step[1], reading=step[2])
            assert all(one.until > loop.time() - LATE for one in waiting)
        await asyncio.sleep(10)
        assert all(one.until == math.inf for one in waiting)
        assert failures == [repr(RuntimeError("and breaks"))] * sum(one.told for one in waiting)
        for one in waiting:
            one.leave()
        assert len(wheel) == 0

    virtual_time.run(run())
