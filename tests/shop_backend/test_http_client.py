"""The client of what is asked about every order: bounded, and none of its calls spoils another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from shop_backend.http_client import Answer, HttpClient, NoAnswer

Talk = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@contextlib.asynccontextmanager
async def served(talk: Talk) -> AsyncIterator[str]:
    """A server that reads each request's head and then does as `talk` does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while not writer.is_closing():
                await reader.readuntil(b"\r\n\r\n")
                await talk(reader, writer)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@contextlib.asynccontextmanager
async def client(
    *, at_once: int = 1, patience: float = 30.0, max_answer: int = 1000
) -> AsyncIterator[HttpClient]:
    http = HttpClient(at_once=at_once, timeout=patience, max_answer=max_answer)
    try:
        yield http
    finally:
        await http.close()


async def test_no_more_calls_at_once_than_allowed() -> None:
    """A crowd passes by three slots, and each connection serves again."""
    busy = most = answered = 0
    connections: set[int] = set()

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal busy, most, answered
        connections.add(id(writer))
        busy += 1
        most = max(most, busy)
        for _turn in range(5):
            await asyncio.sleep(0)
        busy -= 1
        answered += 1
        writer.write(OK)

    async with served(talk) as url, client(at_once=3) as http:
        answers = await asyncio.gather(*(http.ask("GET", url) for _ in range(30)))
    assert answers == [Answer(200, b"ok")] * 30
    assert (answered, most, len(connections)) == (30, 3, 3)


async def test_a_failure_leaves_its_place_free() -> None:
    """Refused and cancelled calls give their slot back."""
    async with client() as http:
        cancelled = asyncio.create_task(http.ask("GET", "http://127.0.0.1:1"))
        await asyncio.sleep(0)
        cancelled.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await cancelled
        for _ in range(2):
            with pytest.raises(NoAnswer, match=r"^ClientConnectorError: "):
                await http.ask("GET", "http://127.0.0.1:1")


async def test_a_cancelled_call_answers_no_other() -> None:
    """What comes for a caller that has left is not given to the next one."""
    asked = asyncio.Event()
    left = asyncio.Event()
    numbers = iter((b"11", b"22"))

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(numbers)
        asked.set()
        if number == b"11":
            await left.wait()
        writer.write(OK[:-2] + number)

    async with served(talk) as url, client() as http:
        first = asyncio.create_task(http.ask("GET", url))
        await asked.wait()
        first.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await first
        left.set()
        assert (await http.ask("GET", url)).body == b"22"


async def test_an_answer_without_end_is_read_to_its_limit() -> None:
    """A server that never stops talking is heard for `max_answer` bytes; the next call is answered."""
    heads = iter((b"HTTP/1.1 503 Busy\r\nContent-Length: 100000\r\n\r\n" + b"x" * 5000, OK))

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(next(heads))

    async with served(talk) as url, client() as http:
        assert await http.ask("GET", url) == Answer(503, b"x" * 1000)
        assert (await http.ask("GET", url)).body == b"ok"


async def test_a_redirect_is_an_answer() -> None:
    """It is not followed: it may lead where nothing of ours should go."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")

    async with served(talk) as url, client() as http:
        assert (await http.ask("POST", url, body=b"{}")).status == 302


@pytest.mark.parametrize(
    "said", [b"", b"SSH-2.0-secret\r\nmore\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nshort"]
)
async def test_what_is_no_answer_is_told_on_one_line(said: bytes) -> None:
    """Hung up, another protocol, broken off: NoAnswer, with nothing of what was sent but a line."""

    async def talk(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        writer.close()

    async with served(talk) as url, client() as http:
        with pytest.raises(NoAnswer) as told:
            await http.ask("GET", url)
    assert "\n" not in str(told.value)
    assert "secret" not in str(told.value)


async def test_patience_ends() -> None:
    """A server that says nothing is given up, by the client's own clock."""

    async def talk(_: asyncio.StreamReader, __: asyncio.StreamWriter) -> None:
        await asyncio.get_running_loop().create_future()

    async with served(talk) as url, client(patience=0.05) as http:
        with pytest.raises(NoAnswer, match="Timeout"):
            await http.ask("GET", url)


@pytest.mark.parametrize(
    "url", ["", "nonsense", "http://", "ftp://127.0.0.1/", "http://[::1", "http://127.0.0.1:99999/"]
)
async def test_an_address_that_is_none_gets_no_answer(url: str) -> None:
    """Nothing but NoAnswer comes of a malformed address."""
    async with client() as http:
        with pytest.raises(NoAnswer):
            await http.ask("GET", url)
