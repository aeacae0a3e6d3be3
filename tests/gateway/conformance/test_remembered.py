"""What is remembered of one client's header never shows in another's request or answer."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
import pytest_asyncio

from tests.gateway.conformance.conftest import Stand
from tests.gateway.conformance.wire import Message

pytestmark = pytest.mark.asyncio(loop_scope="module")

# What a client says, and whether the upstream may hear of it.
SAID = [
    (b"Accept: text/html", True),
    (b"Cookie: session=%b", True),
    (b"Cookie: a=1; session=%b", True),
    (b"Authorization: Bearer %b", True),
    (b"X-Own: %b", True),
    (b"x-own:  %b\t", True),
    (b"X-Long: " + b"l" * 1500 + b"%b", True),  # remembered with its block only
    (b"Tidegate-User: %b", False),
    (b"Tidegate_User: %b", False),
    (b"Tidegate-Deadline: %b", False),
    (b"X-Forwarded-For: %b", False),
    (b"X-Forwarded-Proto: https", False),
    (b"X_Forwarded_Host: %b", False),
    (b"Forwarded: for=%b", False),
    (b"X-Request-Id: %b", False),
    (b"Connection: keep-alive", False),
    (b"Keep-Alive: timeout=%b", False),
    (b"TE: trailers", False),
    (b"Proxy-Authorization: Basic %b", False),
    (b"Content_Length: 3", False),
]
OURS = {
    *(b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-request-id"),
    *(b"tidegate-deadline", b"traceparent"),
}


@pytest_asyncio.fixture(autouse=True, loop_scope="module")
async def _clean(stand: Stand) -> Any:
    stand.upstream.seen.clear()
    yield
    stand.upstream.scripts.clear()
    assert stand.upstream.violations == []


def said_by(name: bytes, dice: random.Random) -> list[tuple[bytes, bool]]:
    """Some of it, in the words of one client."""
    some = dice.sample(SAID, dice.randint(1, 8))
    return [(line.replace(b"%b", name), passed) for line, passed in some]


def heard(message: Message) -> list[tuple[bytes, bytes]]:
    """Of a request at the upstream, what is not ours."""
    return [
        (name, value) for name, value in message.fields if name not in {*OURS, b"host", b"content-length"}
    ]


def as_sent(lines: list[tuple[bytes, bool]]) -> list[tuple[bytes, bytes]]:
    pairs = [line.split(b":", 1) for line, passed in lines if passed]
    return [(name.lower(), value.strip(b" \t")) for name, value in pairs]


async def test_each_request_arrives_with_its_own_header(stand: Stand, seed: int) -> None:
    """Clients in turn, each with headers that come again over any connection, with any method and body."""
    dice = random.Random(seed)
    people = [(b"n%d" % number, said_by(b"n%d" % number, dice)) for number in range(40)]
    clients = [await stand.client() for _ in range(4)]
    for turn in range(1200):
        name, lines = dice.choice(people)
        client = dice.choice(clients)
        method, body = dice.choice(
            [(b"GET", b""), (b"HEAD", b""), (b"POST", b"hello"), (b"PUT", b""), (b"DELETE", b"")]
        )
        head = b"\r\n".join([b"Host: h-%b.example" % name, *[line for line, _ in lines]])
        if body or dice.random() < 0.3:
            head += b"\r\nContent-Length: %d" % len(body)
        client.send(b"%b /%d?%b HTTP/1.1\r\n%b\r\n\r\n%b" % (method, turn, name, head, body))
        answer = await client.answer(method)
        assert answer is not None
        assert answer.status == 200
        (seen,) = stand.upstream.seen
        stand.upstream.seen.clear()
        assert (seen.method, seen.target, seen.body) == (method, b"/%d?%b" % (turn, name), body)
        assert heard(seen) == as_sent(lines)
        assert seen.values(b"host") == seen.values(b"x-forwarded-host") == [b"h-%b.example" % name]
        assert seen.values(b"x-forwarded-for") == [b"127.0.0.1"]
        assert seen.values(b"x-forwarded-proto") == [b"http"]
        assert answer.values(b"x-request-id") == seen.values(b"x-request-id")
        assert int(seen.values(b"tidegate-deadline")[0]) <= 60_000
        assert all(len(seen.values(own)) == 1 for own in OURS)
    for client in clients:
        client.writer.close()


async def test_what_connection_names_is_struck_each_time(stand: Stand) -> None:
    """Of headers that differ in Connection only, one passes the field and the others do not; ours always."""
    async with await stand.client() as client:
        for names in [b"keep-alive", b"keep-alive, X-Own, Tidegate-User, X-Forwarded-For", b"x-own"] * 4:
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Own: 1\r\nConnection: %b\r\n\r\n" % names)
            answer = await client.answer()
            assert answer is not None
            (seen,) = stand.upstream.seen
            stand.upstream.seen.clear()
            assert seen.values(b"x-own") == ([] if b"own" in names.lower() else [b"1"])
            assert seen.values(b"x-forwarded-for") == [b"127.0.0.1"]
            assert seen.values(b"connection") == []


async def test_the_same_answer_header_means_what_the_request_makes_of_it(stand: Stand) -> None:
    """Byte for byte the same header to GET, HEAD and a conditional GET: with a body, or without one.

    The next request's answer begins where this one ends.
    """
    lines = b"Content-Type: text/plain\r\nSet-Cookie: a=%b\r\nContent-Length: 5\r\n\r\n"

    async def same(message: Message, writer: asyncio.StreamWriter) -> None:
        name = message.target.partition(b"?")[2]
        status = {b"304": b"304 Not Modified", b"206": b"206 Partial Content"}.get(
            b"".join(message.values(b"x-status")), b"200 OK"
        )
        bare = message.method == b"HEAD" or status.startswith(b"304")
        writer.write(
            b"HTTP/1.1 %b\r\n" % status + lines.replace(b"%b", name) + (b"" if bare else b"%5b" % name[:5])
        )

    stand.upstream.scripts[b"/same"] = same
    dice = random.Random(7)
    async with await stand.client() as client:
        for _ in range(300):
            name = b"u%d" % dice.randrange(6)
            method, status = dice.choice(
                [(b"GET", 200), (b"HEAD", 200), (b"GET", 304), (b"GET", 206), (b"HEAD", 304)]
            )
            request = b"%b /same?%b HTTP/1.1\r\nHost: a\r\nX-Status: %d\r\n\r\n" % (method, name, status)
            client.send(request)
            answer = await client.answer(method)
            assert answer is not None
            assert (answer.status, answer.closes) == (status, False)
            assert answer.values(b"set-cookie") == [b"a=%b" % name]
            assert answer.values(b"content-length") in ([b"5"], [] if status == 304 else [b"5"])
            assert answer.body == (b"" if method == b"HEAD" or status == 304 else b"%5b" % name)
            assert len(answer.values(b"date")) == 1
            assert answer.values(b"transfer-encoding") == []


async def test_a_remembered_header_hides_no_second_request(stand: Stand) -> None:
    """With a header known by heart, a body that is longer or shorter than it says is cut where it says."""
    header = b"Host: a\r\nContent-Length: 5\r\n\r\n"
    async with await stand.client() as client:
        for _ in range(3):
            client.send(b"POST /known HTTP/1.1\r\n" + header + b"hello")
            await client.answer()
        stand.upstream.seen.clear()
        client.send(b"GET /known HTTP/1.1\r\n" + header + b"helloGET /next HTTP/1.1\r\nHost: a\r\n\r\n")
        assert [answer.body for answer in [await client.answer(), await client.answer()] if answer] == [
            b"GET /known hello",
            b"GET /next ",
        ]
        client.send(b"POST /known HTTP/1.1\r\n" + header + b"GET ")
        client.send(b"/")
        await client.answer()
        client.send(b"POST /known HTTP/1.1\r\n" + header)
        await _seen(stand, 3)
        client.send(b"GET /GET /last HTTP/1.1\r\nHost: a\r\n\r\n")
        assert [answer.body for answer in [await client.answer(), await client.answer()] if answer] == [
            b"POST /known GET /",
            b"GET /last ",
        ]
    assert [(message.target, message.body) for message in stand.upstream.seen] == [
        (b"/known", b"hello"),
        (b"/next", b""),
        (b"/known", b"GET /"),
        (b"/known", b"GET /"),
        (b"/last", b""),
    ]


async def _seen(stand: Stand, count: int) -> None:
    async with await stand.client() as other:
        other.send(b"GET /other HTTP/1.1\r\nHost: b\r\n\r\n")
        await other.answer()
    stand.upstream.seen.remove(next(one for one in stand.upstream.seen if one.target == b"/other"))
    assert len(stand.upstream.seen) == count


async def test_close_and_keep_alive_are_each_requests_own(stand: Stand) -> None:
    """A header that asks to close, known by heart, closes its own connection and no other."""
    keeping = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: keep-alive\r\n\r\n"
    async with await stand.client() as kept:
        for _ in range(4):
            async with await stand.client() as client:
                client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                answer = await client.answer()
                assert answer is not None
                assert answer.closes
                assert await client.rest() == b""
            kept.send(keeping)
            answer = await kept.answer()
            assert answer is not None
            assert not answer.closes


async def test_nothing_of_an_upstream_that_closes_is_remembered_of_others(stand: Stand, until: Any) -> None:
    """An answer that ends its connection ends the upstream's, not the client's."""

    async def closing(_: Message, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
        writer.close()

    stand.upstream.scripts[b"/closing"] = closing
    async with await stand.client() as client:
        for path in [b"/closing", b"/closing", b"/", b"/closing", b"/"] * 3:
            client.send(b"GET %b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
            answer = await client.answer()
            assert answer is not None
            assert (answer.status, answer.closes) == (200, False)
    await until(lambda: all(not writer.is_closing() for writer in stand.upstream.connections))
