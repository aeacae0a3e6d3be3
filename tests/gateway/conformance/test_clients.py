"""Clients that are slow, odd, rude or clever, over real sockets; what each costs, and what it gets."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import pytest_asyncio

from tests.gateway.conformance.conftest import Stand
from tests.gateway.conformance.wire import Message
from tests.waiting import PATIENCE

pytestmark = pytest.mark.asyncio(loop_scope="module")
GET = b"GET %b HTTP/1.1\r\nHost: shop.example\r\n\r\n"
POST = b"POST %b HTTP/1.1\r\nHost: shop.example\r\nContent-Length: %d\r\n"
BIG = b"x" * (8 << 20)  # more than the sockets' buffers hold


@pytest_asyncio.fixture(autouse=True, loop_scope="module")  # the loop on which the upstream answers
async def _clean(stand: Stand, until: Any) -> Any:
    """Whatever a test did, nothing of it is left in flight."""
    stand.upstream.seen.clear()
    yield
    stand.upstream.scripts.clear()

    async def idle() -> bool:
        return await stand.in_flight() == 0

    await until(idle)
    assert stand.upstream.violations == []


class Door:
    """A path that answers when the test opens it."""

    def __init__(self, stand: Stand, path: bytes, body: bytes = b"late") -> None:
        self._opened = asyncio.Event()
        self._body = body
        self.reached = asyncio.Event()
        stand.upstream.scripts[path] = self._answer

    def open(self) -> None:
        self._opened.set()

    async def _answer(self, _: Message, writer: asyncio.StreamWriter) -> None:
        self.reached.set()
        await self._opened.wait()
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(self._body), self._body))


# ---- slow clients --------------------------------------------------------------------------------


async def test_a_header_in_dribs(stand: Stand) -> None:
    """Bytes that keep coming don't wind the header's clock back: 408 as problem+json, then the end."""
    async with await stand.client() as client:
        for byte in GET % (b"/" + b"a" * 100):  # which takes longer than a worker late by a standstill
            client.send(bytes([byte]))
            try:
                answer = await asyncio.wait_for(client.answer(), 0.1)
            except TimeoutError:
                continue
            break
        assert answer is not None
        assert (answer.status, answer.closes) == (408, True)
        assert await client.rest() in {b"", b"(reset)"}
    assert stand.upstream.seen == []


async def test_empty_lines_are_no_sign_of_life(stand: Stand) -> None:
    """A client that sends nothing but empty lines is hung up on like a silent one."""
    async with await stand.client() as client:
        client.send(b"\r\n")
        async with asyncio.timeout(PATIENCE):
            assert await client.rest() == b""


async def test_a_header_that_never_ends(stand: Stand) -> None:
    """A field that goes on and on is refused with 431 long before it fills the memory."""
    async with await stand.client() as client:
        client.send(GET[:-2].replace(b"%b", b"/") + b"X-A: " + b"a" * 60_000)
        answer = await client.answer()
    assert answer is not None
    assert answer.status == 431


@pytest.mark.parametrize(
    "framing", [b"Content-Length: 100\r\n\r\nhello", b"Transfer-Encoding: chunked\r\n\r\n5\r\nhel"]
)
async def test_a_body_that_does_not_come(stand: Stand, framing: bytes) -> None:
    """408 when the body is late, and the connection ends; the upstream has got nothing whole."""
    async with await stand.client() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + framing)
        answer = await client.answer()
        assert answer is not None
        assert (answer.status, answer.closes) == (408, True)
    assert stand.upstream.seen == []


async def test_a_reader_that_stopped_gives_its_slot_back(stand: Stand, until: Any) -> None:
    """A client that takes nothing of a long answer is cut off after `write_timeout`; nothing stays."""
    door = Door(stand, b"/big", BIG)
    door.open()
    async with await stand.client(receive_buffer=4096) as client:
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a read transport too
        client.send(GET % b"/big")
        await door.reached.wait()

        async def freed() -> bool:
            return await stand.in_flight() == 0

        assert await stand.in_flight() == 1
        await until(freed)


async def test_a_slow_reader_that_goes_on_reading_gets_it_all(stand: Stand) -> None:
    """Reading slowly is allowed: what is taken within each `write_timeout` winds the clock back."""
    door = Door(stand, b"/big", BIG)
    door.open()
    async with await stand.client() as client:
        client.send(GET % b"/big")
        await client.reader.readuntil(b"\r\n\r\n")
        taken = 0
        while taken < len(BIG):
            chunk = await client.reader.read(256 << 10)
            assert chunk
            taken += len(chunk)
            await _others_served(stand, 10)  # slower than the upstream
    assert taken == len(BIG)


async def test_idle_connections_are_let_go(stand: Stand) -> None:
    """Many clients that say nothing are hung up on, while others are served."""
    silent = [await stand.client() for _ in range(300)]
    async with await stand.client() as client:
        client.send(GET % b"/")
        answer = await client.answer()
        assert answer is not None
        assert answer.status == 200
        async with asyncio.timeout(PATIENCE):
            assert set(await asyncio.gather(*(other.rest() for other in silent))) == {b""}
            assert await client.rest() == b""  # idle after its answer
    for other in silent:
        other.writer.close()


async def _others_served(stand: Stand, count: int) -> None:
    async with await stand.client() as other:
        for _ in range(count):
            other.send(GET % b"/other")
            answer = await other.answer()
            assert answer is not None
            assert answer.status == 200


# ---- half-closed and gone ------------------------------------------------------------------------


@pytest.mark.parametrize("body", [b"late", BIG])
async def test_a_half_closed_client_gets_its_answer(stand: Stand, body: bytes) -> None:
    """A client that sends no more may still read (RFC 9112, 9.6): the answer comes, then the end."""
    door = Door(stand, b"/late", body)
    async with await stand.client() as client:
        client.send(GET % b"/late")
        client.end()
        await door.reached.wait()
        await _others_served(stand, 200)  # so long that the gateway has looked whether it is gone
        door.open()
        answer = await client.answer()
        assert answer is not None
        assert (answer.status, answer.body, answer.closes) == (200, body, True)
        assert await client.rest() == b""


async def test_a_half_closed_client_is_told_what_was_wrong_with_its_body(stand: Stand) -> None:
    """A body that breaks HTTP is refused also when the client has stopped sending before anybody reads it."""
    door = Door(stand, b"/slow", b"first")
    async with await stand.client() as client:
        client.send(
            GET % b"/slow" + b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense"
        )
        client.end()
        await door.reached.wait()
        await _others_served(stand, 10)
        door.open()
        first, second = await client.answer(), await client.answer()
        assert first is not None
        assert second is not None
        assert (first.body, second.status, second.closes) == (b"first", 400, True)
    assert all(message.method == b"GET" for message in stand.upstream.seen)


async def test_a_half_closed_pipeline_gets_all_its_answers(stand: Stand) -> None:
    """Requests sent before the client stopped sending are all answered, in order."""
    async with await stand.client() as client:
        client.send(b"".join(GET % (b"/%d" % n) for n in range(5)))
        client.end()
        answers = [await client.answer() for _ in range(5)]
        assert [answer.body for answer in answers if answer] == [b"GET /%d " % n for n in range(5)]
        assert await client.rest() == b""


@pytest.mark.parametrize("rude", [False, True])
async def test_a_client_that_left_is_noticed_at_once(stand: Stand, until: Any, rude: bool) -> None:
    """Closed or reset, the exchange with the upstream ends while that is still at work."""
    before = await stand.gateway.metric("tidegate_requests_total", code="499")
    door = Door(stand, b"/left")
    client = await stand.client()
    client.send(GET % b"/left")
    await door.reached.wait()
    client.reset() if rude else client.writer.close()

    async def counted() -> bool:
        return await stand.gateway.metric("tidegate_requests_total", code="499") == before + 1

    await until(counted)
    assert await stand.in_flight() == 0
    door.open()


# ---- pipelines -----------------------------------------------------------------------------------


async def test_answers_come_in_order(stand: Stand) -> None:
    """A slow first request holds the others back; none overtakes it."""
    door = Door(stand, b"/slow", b"first")
    async with await stand.client() as client:
        client.send(GET % b"/slow" + b"".join(GET % (b"/%d" % n) for n in range(50)))
        await door.reached.wait()
        door.open()
        answers = [await client.answer() for _ in range(51)]
    bodies = [answer.body for answer in answers if answer]
    assert bodies == [b"first", *[b"GET /%d " % n for n in range(50)]]


async def test_a_refusal_waits_for_the_answers_before_it(stand: Stand) -> None:
    """A malformed request behind a good one is refused after that one's answer, not in its place."""
    door = Door(stand, b"/slow", b"first")
    async with await stand.client() as client:
        client.send(GET % b"/slow" + b"NONSENSE\r\n\r\n" + GET % b"/hidden")
        await door.reached.wait()
        door.open()
        first, second = await client.answer(), await client.answer()
        assert first is not None
        assert second is not None
        assert (first.body, second.status, second.closes) == (b"first", 400, True)
        assert await client.rest() == b""
    assert [message.target for message in stand.upstream.seen] == [b"/slow"]


async def test_a_long_pipeline_is_read_as_it_is_answered(stand: Stand) -> None:
    """Thousands of requests at once: few are parsed ahead, each is answered, and the rest waits outside."""
    count = 5000
    async with await stand.client() as client:
        sending = asyncio.create_task(_all(client, b"".join(GET % (b"/%d" % n) for n in range(count))))
        for n in range(count):
            answer = await client.answer()
            assert answer is not None
            assert answer.body == b"GET /%d " % n
        await sending


async def test_a_pipeline_is_bounded(stand: Stand) -> None:
    """Behind an answer that does not come, a flood of requests stays with the client, not in our memory."""
    door = Door(stand, b"/slow", b"first")
    async with await stand.client() as client:
        client.send(GET % b"/slow")
        await door.reached.wait()
        flood = GET % b"/" * 800_000  # some 30 MB, several times what sockets hold
        client.send(flood)
        await _others_served(stand, 300)
        assert client.writer.transport.get_write_buffer_size() > len(flood) // 2
    door.open()


async def _all(client: Any, data: bytes) -> None:
    client.send(data)
    await client.writer.drain()


async def test_reuse_after_refusals(stand: Stand) -> None:
    """A refusal leaves the connection open; a small body that nobody wanted is drained, early or late."""
    limited = POST % (b"/limited", 5)
    async with await stand.client() as client:
        for request in [limited + b"\r\nhello"] * 2:
            client.send(request)
            answer = await client.answer()
        assert answer is not None
        assert (answer.status, answer.closes) == (429, False)
        client.send(limited + b"\r\n")
        answer = await client.answer()  # refused before the body came
        assert answer is not None
        assert (answer.status, answer.closes) == (429, False)
        client.send(b"hello" + GET % b"/after")
        answer = await client.answer()
        assert answer is not None
        assert answer.body == b"GET /after "


# ---- bodies that nobody reads --------------------------------------------------------------------


@pytest.mark.parametrize("size", [2 << 20, 6 << 20])
async def test_a_large_refused_body_does_not_cost_the_answer(stand: Stand, size: int) -> None:
    """The client goes on sending after 413, as most do, and can read the answer all the same."""
    async with await stand.client() as client:
        client.send(POST % (b"/", size) + b"\r\n" + b"x" * size)
        await client.writer.drain()
        answer = await client.answer()
        assert answer is not None
        assert (answer.status, answer.closes) == (413, True)
    assert stand.upstream.seen == []


async def test_a_large_chunked_body_is_cut_at_the_limit(stand: Stand) -> None:
    """A body of unannounced length is refused with 413 when it has grown too large."""
    async with await stand.client() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send((b"%x\r\n" % (64 << 10) + b"x" * (64 << 10) + b"\r\n") * 20 + b"0\r\n\r\n")
        answer = await client.answer()
        assert answer is not None
        assert (answer.status, answer.closes) == (413, True)
    assert stand.upstream.seen == []


async def test_a_body_that_breaks_off_in_nonsense(stand: Stand) -> None:
    """400 to a chunked body that turns out bad after it was begun; the upstream gets nothing whole."""
    async with await stand.client() as client:
        client.send(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        client.send(b"nonsense\r\n\r\n" + GET % b"/hidden")
        answer = await client.answer()
        assert answer is not None
        assert (answer.status, answer.closes) == (400, True)
        assert await client.rest() == b""
    assert stand.upstream.seen == []


# ---- Expect --------------------------------------------------------------------------------------


async def test_continue_is_said_once_before_the_body(stand: Stand) -> None:
    """A client that waits is told to go on, then answered."""
    async with await stand.client() as client:
        client.send(POST % (b"/", 5) + b"Expect: 100-continue\r\n\r\n")
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.send(b"hello")
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 ")
    assert [message.body for message in stand.upstream.seen] == [b"hello"]


@pytest.mark.parametrize(("target", "size", "status"), [(b"/limited", 5, 429), (b"/", 9 << 20, 413)])
async def test_refused_before_the_body(stand: Stand, target: bytes, size: int, status: int) -> None:
    """No 100 to a request that is refused; the connection ends, since the body may come or not."""
    async with await stand.client() as client:
        client.send(POST % (b"/limited", 5) + b"\r\nhello")  # whatever the limit admitted before
        await client.answer()
    async with await stand.client() as client:
        client.send(POST % (target, size) + b"Expect: 100-continue\r\n\r\n")
        head = await client.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 %d " % status)
        assert b"connection: close" in head


async def test_an_answer_that_breaks_http_in_its_body_is_cut_off(stand: Stand) -> None:
    """The client sees what came, and a reset; to the operator it is an upstream's fault, told on one line."""
    begun = asyncio.Event()

    async def rubbish(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await begun.wait()
        writer.write(b"rubbish")

    stand.upstream.scripts[b"/rubbish"] = rubbish
    async with await stand.client() as client:
        client.send(GET % b"/rubbish")
        await client.reader.readuntil(b"5\r\nhello\r\n")
        begun.set()
        assert await client.rest() == b"(reset)"
    await stand.gateway.says("the body broke off after 5 bytes")
    assert "ERROR" not in stand.gateway.log()


# ---- HTTP/1.0 ------------------------------------------------------------------------------------


async def test_no_chunks_for_http_1_0(stand: Stand) -> None:
    """An answer of unknown length ends with the connection for a client that knows no chunks (6.1)."""
    begun = asyncio.Event()

    async def unsized(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await begun.wait()
        writer.write(b"6\r\n world\r\n0\r\n\r\n")

    stand.upstream.scripts[b"/unsized"] = unsized
    async with await stand.client() as client:
        client.send(b"GET /unsized HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
        head = await client.reader.readuntil(b"\r\n\r\n")
        begun.set()
        assert b"transfer-encoding" not in head
        assert b"connection: close" in head
        assert await client.rest() == b"hello world"


async def test_http_1_0_keeps_alive_when_asked(stand: Stand) -> None:
    """With `Connection: keep-alive` and a known length the connection stays, and says so."""
    async with await stand.client() as client:
        for _ in range(3):
            client.send(b"GET / HTTP/1.0\r\nHost: a\r\nConnection: keep-alive\r\n\r\n")
            answer = await client.answer()
            assert answer is not None
            assert answer.values(b"connection") == [b"keep-alive"]


async def test_a_cut_answer_is_seen_by_http_1_0_too(stand: Stand) -> None:
    """The end of the connection ends the body there, so a body that broke off ends in a reset."""

    async def cut(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await writer.drain()
        writer.transport.abort()

    stand.upstream.scripts[b"/cut"] = cut
    async with await stand.client() as client:
        client.send(b"GET /cut HTTP/1.0\r\nHost: a\r\n\r\n")
        assert await client.rest() == b"(reset)"
