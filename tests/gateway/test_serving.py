"""The gateway before an upstream, over real sockets."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from tests.gateway.two_hosts import store_is


async def test_a_request_goes_through_and_comes_back_whole(start_gateway: Any, shop: Any) -> None:
    """The upstream's answer comes back byte for byte, with a request id; the upstream learns who asks."""
    gateway = await start_gateway()

    answer = await gateway.fresh(
        "/api/products?page=2", headers={"tidegate-user": "admin", "x-request-id": "mine"}
    )

    assert (answer.status_code, answer.json()) == (200, {"ok": True})
    seen = shop.seen[0]
    assert seen.target == "/api/products?page=2"
    assert seen.values("x-request-id") == [answer.headers["x-request-id"]]
    assert seen.values("tidegate-user") == []  # a client can't name itself
    assert seen.values("x-forwarded-for") == ["127.0.0.1"]
    assert answer.headers["x-request-id"] != "mine"


async def test_a_posted_body_arrives_and_head_has_none(start_gateway: Any, shop: Any) -> None:
    """POST bodies arrive as sent, chunked or not; HEAD keeps the length and has no body."""
    gateway = await start_gateway()

    async def echo(_: Any, writer: asyncio.StreamWriter, seen: Any) -> None:
        writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: %d\r\n\r\n%s" % (len(seen.body), seen.body))

    shop.scripts["/echo"] = echo
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        posted = await client.post("/echo", content=b"x" * 100_000)
        head = await client.head("/echo2")

    assert (posted.status_code, posted.content) == (201, b"x" * 100_000)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, "12", b"")


async def test_head_of_unknown_length_and_an_echoed_id(start_gateway: Any, shop: Any) -> None:
    """A HEAD answered without a length gets none; an upstream's own X-Request-Id is not sent twice."""
    gateway = await start_gateway()

    async def answer(_: Any, writer: asyncio.StreamWriter, __: Any) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nX-Request-Id: theirs\r\nTransfer-Encoding: chunked\r\n\r\n")

    shop.scripts["/"] = answer
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        head = await client.head("/")

    assert "content-length" not in head.headers
    assert head.headers.get_list("x-request-id") == shop.seen[0].values("x-request-id")


async def test_nothing_matches(start_gateway: Any) -> None:
    """Unknown paths are 404 and known ones with another method 405 with Allow, as problem+json."""
    gateway = await start_gateway(routes=[{"match": "/orders", "methods": ["POST"], "upstream": "shop"}])

    missing, wrong = await gateway.fresh("/nothing"), await gateway.fresh("/orders")

    assert (missing.status_code, wrong.status_code, wrong.headers["allow"]) == (404, 405, "POST")
    for answer in (missing, wrong):
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.json()["status"] == answer.status_code
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),  # RFC 9112, 3.2: no Host
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GARBAGE\r\n\r\n", 400),
        (b"GET /%00 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        (
            b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            400,
        ),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999\r\n\r\n", 413),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n", 501),
        (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    ],
)
async def test_what_http_must_never_pass(one_gateway: Any, request_bytes: bytes, status: int) -> None:
    """Malformed requests are refused with the right status as problem+json, and the connection is closed."""
    answer = await one_gateway.raw(request_bytes)

    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    assert b"connection: close" in head.lower()
    assert json.loads(body)["status"] == status


async def test_a_slow_header_is_timed_out(start_gateway: Any, shop: Any) -> None:
    """A client that dribbles its header is told 408; one that says nothing is just hung up on."""
    gateway = await start_gateway(listen={"port": 0, "workers": 1, "header_timeout": "3s"})

    dribbled, silent = await asyncio.gather(gateway.raw(b"GET / HTTP/1.1\r\nHost:"), gateway.raw(b""))

    assert dribbled.startswith(b"HTTP/1.1 408 ")
    assert silent == b""
    assert shop.seen == []


async def test_an_upstream_that_is_not_there(start_gateway: Any, shop: Any, until: Any) -> None:
    """502 as problem+json; then the breaker opens, refuses at once with 503, and closes again by itself."""
    breaker = {"min_requests": 5, "open_for": "3s", "probes": 1}
    gateway = await start_gateway(
        listen={"port": 0, "workers": 2},
        upstreams={"shop": {"servers": [f"http://127.0.0.1:{shop.port}"], "breaker": breaker}},
    )
    await shop.stop()

    first = await gateway.fresh()
    assert first.status_code == 502
    assert first.json()["type"] == "urn:tidegate:bad-gateway"

    async def refused() -> httpx.Response | None:
        answer: httpx.Response = await gateway.fresh()
        return answer if answer.status_code == 503 else None

    refusal = await until(refused)
    assert refusal.json()["type"] == "urn:tidegate:upstream-unavailable"
    assert int(refusal.headers["retry-after"]) >= 1

    async def is_open() -> bool:  # each failed probe opens it again
        await gateway.fresh()
        return bool(await gateway.metric("tidegate_breaker_state", upstream="shop", state="open") == 1)

    await until(is_open)

    await shop.start()

    async def well() -> bool:
        return (await gateway.fresh()).status_code == 200

    await until(well)


async def test_a_body_that_breaks_off_never_looks_whole(start_gateway: Any, shop: Any, until: Any) -> None:
    """When the upstream breaks off in mid-body the client's connection is cut, whatever the framing."""
    gateway = await start_gateway()

    async def cut(_: Any, writer: asyncio.StreamWriter, seen: Any) -> None:
        framing = b"Content-Length: 100" if seen.target.endswith("1") else b"Transfer-Encoding: chunked"
        writer.write(b"HTTP/1.1 200 OK\r\n%s\r\n\r\n5\r\nhello\r\n" % framing)
        await writer.drain()
        writer.transport.abort()

    shop.scripts["/cut"] = cut
    for target in ("/cut?1", "/cut?2"):
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await gateway.fresh(target)

    async def counted() -> bool:
        return await gateway.metric("tidegate_requests_total", outcome="failed") == 2

    await until(counted)


async def test_a_client_that_leaves_frees_what_it_held(start_gateway: Any, shop: Any, until: Any) -> None:
    """A disconnect ends the upstream's exchange at once and gives the slot back; it is no failure."""
    gateway = await start_gateway(
        upstreams={
            "shop": {
                "servers": [f"http://127.0.0.1:{shop.port}"],
                "breaker": {"min_requests": 1},
                "concurrency": {},
            }
        }
    )
    gone = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, _: asyncio.StreamWriter, __: Any) -> None:
        await reader.read()  # ends when the gateway hangs up
        gone.set()

    shop.scripts["/hang"] = hang
    _, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(b"GET /hang HTTP/1.1\r\nHost: a\r\n\r\n")
    await until(lambda: shop.seen)
    assert await gateway.metric("tidegate_in_flight", upstream="shop") == 1
    writer.close()

    await until(gone.is_set)

    async def freed() -> bool:
        return (
            await gateway.metric("tidegate_in_flight", upstream="shop") == 0
            and await gateway.metric("tidegate_requests_total", code="499") == 1
        )

    await until(freed)
    assert await gateway.metric("tidegate_breaker_state", state="closed") == 1


async def test_limits_are_told_and_kept(start_gateway: Any, redis_volatile_url: str, until: Any) -> None:
    """Two workers share one limit through Redis: so many pass, the rest is told which and when."""
    gateway = await start_gateway(
        redis={"url": redis_volatile_url, "timeout": "5s"},
        limits={"user": {"rate": "10/day", "per": "user", "algorithm": "fixed-window"}},
        routes=[{"match": "/**", "upstream": "shop", "limits": ["user"]}],
    )
    await store_is(until, 1, gateway)

    answers = await asyncio.gather(*(gateway.fresh() for _ in range(30)))

    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == 20
    assert refused[0].json()["violated-policies"] == ["user"]
    assert refused[0].json()["type"].endswith("#quota-exceeded")
    assert int(refused[0].headers["retry-after"]) >= 1
    assert refused[0].headers["ratelimit-policy"] == '"user";q=10;w=86400'
    assert await gateway.metric("tidegate_limit_checks_total", limit="user", decision="denied") == len(
        refused
    )
