"""Requests that come whole: what becomes of their answers when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from gateway.app import Gateway
from gateway.exchange import Exchange, Reply
from gateway.head import WholeRequest
from gateway.metrics import WorkerMetrics
from gateway.parts import Parts
from gateway.whole import CLOSED, WholeTurn

REQUEST = WholeRequest("GET", b"/events", "/events", [], b"shop.test", True, b"")


class Events:
    """A stream that never ends by itself."""

    def __init__(self) -> None:
        self.closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        await asyncio.sleep(0)
        return b"data: tick\n\n"

    async def aclose(self) -> None:
        self.closed = True


class Line:
    """A client's connection, and the app behind it: answers as the test says, ends as the gateway does."""

    def __init__(self, answer: Callable[[], Awaitable[Reply]]) -> None:
        self.loop = asyncio.get_running_loop()
        self.blocked = False
        self.written = b""
        self.statuses: list[int] = []
        self.ended = self.loop.create_future()
        self._answer = answer
        self._gateway = Gateway(Parts(1, WorkerMetrics()))
        self.receive, self.finish = self._gateway.receive, self._gateway.finish
        self.added, self.send = self._gateway.added, self._gateway.send

    def begin(self, _: Exchange) -> Awaitable[Reply]:
        return self._answer()

    def account(self, exchange: Exchange, status: int, _: int) -> None:
        exchange.finish()
        self.statuses.append(status)

    def write(self, data: bytes) -> None:
        self.written += data

    async def drained(self) -> None: ...

    def took(self) -> None: ...

    def last(self) -> bool:
        return False

    def date(self) -> bytes:
        return b"date: Fri, 27 Nov 2026 22:00:00 GMT\r\n"

    def abort(self) -> None: ...

    def over(self, _: WholeTurn) -> None:
        self.ended.set_result(None)


@pytest.mark.parametrize("turns", range(-1, 8))
async def test_a_stream_ends_when_its_client_leaves(turns: int) -> None:
    """At whatever moment: also between the end of the task that brought the reply, and its being sent."""
    events = Events()

    async def answer() -> Reply:
        await asyncio.sleep(0)
        if turns < 0:
            line.loop.call_soon(turn.leave)  # before anybody hears that the reply is there
        return Reply(200, [], stream=events)

    line = Line(answer)
    turn = WholeTurn(line, line, REQUEST, "192.0.2.7")
    turn.go()
    for _ in range(turns):
        await asyncio.sleep(0)
    if turns >= 0:
        turn.leave()

    await asyncio.wait_for(line.ended, 10)

    assert line.statuses == [CLOSED]
    assert events.closed or turns in {0, 1}  # then there was none yet
