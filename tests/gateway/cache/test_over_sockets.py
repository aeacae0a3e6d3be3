"""The cache as shoppers meet it: a gateway of two workers over sockets, before an upstream that counts."""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import httpx
import psutil
import pytest

CACHED = {
    "match": "/c/**",
    "upstream": "shop",
    "cache": {"ttl": "60s", "stale_if_error": "60s", "max_body": "1KiB", "wait": "60s"},
}
OTHER = {"match": "/**", "upstream": "shop"}


def says(*lines: str, status: str = "200 OK", body: bytes = b"hello") -> Any:
    async def answer(_: Any, writer: asyncio.StreamWriter, seen: Any) -> None:
        head = "".join(f"{line}\r\n" for line in (*lines, f"Content-Length: {len(body)}"))
        writer.write(f"HTTP/1.1 {status}\r\n{head}\r\n".encode() + (b"" if seen.method == "HEAD" else body))

    return answer


@pytest.fixture
async def client(start_gateway: Any) -> Any:
    """A gateway of one worker with a cached route, and a client of its."""
    gateway = await start_gateway("--workers", "1", routes=[CACHED, OTHER])
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        client.gateway = gateway  # type: ignore[attr-defined]  # the test asks it for metrics
        yield client


async def test_a_hit_does_not_reach_the_upstream(client: Any, shop: Any) -> None:
    """Same body, Age and Cache-Status, outcome cached; other fields as the upstream sent them."""
    shop.scripts["/c/a"] = says(
        "Cache-Control: public, max-age=30", 'ETag: "1"', "X-Kind: a", "X-Request-Id: 7"
    )
    first, second = await client.get("/c/a"), await client.get("/c/a", headers={"cookie": "session=1"})

    assert len(shop.seen) == 1
    assert first.text == second.text == "hello"
    assert "age" not in first.headers
    assert first.headers["cache-status"] == "tidegate; fwd=miss; stored"
    assert second.headers["cache-status"].startswith("tidegate; hit; ttl=")
    assert second.headers["x-kind"] == "a"
    assert len(second.headers.get_list("x-request-id")) == 1
    assert second.headers["x-request-id"] != first.headers["x-request-id"] != "7"
    assert await client.gateway.metric("tidegate_requests_total", outcome="cached") == 1
    assert await client.gateway.metric("tidegate_cache_requests_total", result="hit", route="/c/**") == 1
    assert await client.gateway.metric("tidegate_cache_entries") == 1


async def test_a_conditional_hit_is_304(client: Any, shop: Any) -> None:
    """Framed without a body; the connection lives on. HEAD has the length of the GET."""
    shop.scripts["/c/a"] = says("Cache-Control: max-age=30", 'ETag: "1"')
    await client.get("/c/a")
    not_modified = await client.get("/c/a", headers={"if-none-match": '"1"'})
    head = await client.head("/c/a")

    assert (not_modified.status_code, not_modified.content) == (304, b"")
    assert not_modified.headers["etag"] == '"1"'
    assert (head.status_code, head.headers["content-length"]) == (200, "5")
    assert len(shop.seen) == 1


async def test_a_crowd_costs_one_call(client: Any, shop: Any, until: Any) -> None:
    """Hundreds at once, one of them the leader, and it leaves: one call more, and all are served."""
    release = asyncio.Event()

    async def slow(reader: Any, writer: asyncio.StreamWriter, seen: Any) -> None:
        await release.wait()
        await says("Cache-Control: max-age=30")(reader, writer, seen)

    shop.scripts["/c/a"] = slow
    gateway = client.gateway
    leader = asyncio.create_task(gateway.fresh("/c/a"))
    await until(lambda: len(shop.seen) == 1)
    async with httpx.AsyncClient(base_url=gateway.url, limits=httpx.Limits(max_connections=200)) as crowd:
        tasks = [asyncio.create_task(crowd.get("/c/a")) for _ in range(200)]
        await until(lambda: clients(gateway) >= 201)
        assert len(shop.seen) == 1
        leader.cancel()
        await until(lambda: len(shop.seen) == 2)
        release.set()
        replies = await asyncio.gather(*tasks)

    assert {reply.text for reply in replies} == {"hello"}
    assert len(shop.seen) == 2


def clients(gateway: Any) -> int:
    """Connections that the workers hold; those who wait for the leader take no slot."""
    held = [c for worker in gateway.workers() for c in worker.net_connections("tcp")]
    return sum(c.status == psutil.CONN_ESTABLISHED and c.laddr.port == gateway.port for c in held)


async def test_a_stale_answer_outlives_the_upstream(start_gateway: Any, shop: Any, until: Any) -> None:
    """Refused connections first, then the open breaker: the shopper sees neither."""
    upstream = {
        "servers": [f"http://127.0.0.1:{shop.port}"],
        "breaker": {"min_requests": 2, "failure_ratio": 0.5, "open_for": "60s"},
    }
    gateway = await start_gateway("--workers", "1", routes=[CACHED, OTHER], upstreams={"shop": upstream})
    shop.scripts["/c/a"] = says("Cache-Control: max-age=0", 'ETag: "1"')
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        assert (await client.get("/c/a")).text == "hello"
        await shop.stop()

        async def is_open() -> bool:
            assert (await client.get("/c/a")).text == "hello"
            return bool(await gateway.metric("tidegate_breaker_state", state="open") == 1)

        await until(is_open)
        reply = await client.get("/c/a")
        other = await client.get("/else")
    assert (reply.status_code, reply.text) == (200, "hello")
    assert reply.headers["cache-status"].startswith("tidegate; hit; ttl=-")
    assert "ratelimit" not in reply.headers
    assert other.status_code == 503


async def test_a_ladder_that_climbs_leaves_what_is_kept(start_gateway: Any, shop: Any) -> None:
    """Pages that vary by what is off: with the shop gone they are there at every step, by hand or not."""
    cached = {**CACHED, "cache": {**CACHED["cache"], "stale_if_error": "1h"}}
    gateway = await start_gateway(
        "--workers",
        "1",
        routes=[cached, OTHER],
        features={"recommendations": {}, "profile": {}},
        degradation={
            "steps": [
                {"name": "elevated", "off": ["recommendations"]},
                {"name": "emergency", "only": "critical"},
            ]
        },
    )
    shop.scripts["/c/p"] = says("Cache-Control: public, max-age=0", "Vary: Tidegate-Degraded", 'ETag: "1"')

    async def switched(path: str, body: Any) -> None:
        assert (await gateway.admin("PUT", path, body)).status_code == 200

    async with httpx.AsyncClient(base_url=gateway.url) as client:

        async def page() -> tuple[int, str]:
            reply = await client.get("/c/p")
            return reply.status_code, reply.text

        assert await page() == (200, "hello")
        await switched("/api/step", {"step": 2})
        assert await page() == (200, "hello")  # nobody was asked
        assert len(shop.seen) == 1
        await switched("/api/step", {"step": 0})
        await shop.stop()
        assert await page() == (200, "hello")
        await switched("/api/features/recommendations", {"state": "off"})
        assert await page() == (200, "hello")
        for step in (1, 2):
            await switched("/api/step", {"step": step})
            assert await page() == (200, "hello")
        assert (await client.get("/c/never")).status_code == 503


async def test_larger_answers_pass_through_byte_for_byte(client: Any, shop: Any) -> None:
    """Beyond the cap, with a length or in chunks, nothing is lost and nothing is kept."""
    body = bytes(range(256)) * 40

    async def chunks(_: Any, writer: asyncio.StreamWriter, __: Any) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=30\r\nTransfer-Encoding: chunked\r\n\r\n")
        for start in range(0, len(body), 512):
            writer.write(b"200\r\n" + body[start : start + 512] + b"\r\n")
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    shop.scripts["/c/chunks"] = chunks
    shop.scripts["/c/length"] = says("Cache-Control: max-age=30", body=body)
    for path in ("/c/chunks", "/c/length"):
        assert (await client.get(path)).content == body
        assert (await client.get(path)).content == body

    assert len(shop.seen) == 4


async def test_a_small_chunked_answer_is_kept(client: Any, shop: Any) -> None:
    """It comes back with a length."""

    async def chunks(_: Any, writer: asyncio.StreamWriter, __: Any) -> None:
        head = b"HTTP/1.1 200 OK\r\nCache-Control: max-age=30\r\nTransfer-Encoding: chunked\r\n\r\n"
        writer.write(head + b"3\r\nabc\r\n")
        await writer.drain()
        writer.write(b"3\r\ndef\r\n0\r\n\r\n")

    shop.scripts["/c/a"] = chunks
    first, second = await client.get("/c/a"), await client.get("/c/a")

    assert first.text == second.text == "abcdef"
    assert second.headers["content-length"] == "6"
    assert len(shop.seen) == 1


async def test_an_answer_that_breaks_off_aborts_and_is_not_kept(client: Any, shop: Any) -> None:
    """Never finished as if whole, although the cache read it first."""

    async def breaks(_: Any, writer: asyncio.StreamWriter, __: Any) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nCache-Control: max-age=30\r\nContent-Length: 10\r\n\r\nabc")
        await writer.drain()
        writer.close()

    shop.scripts["/c/a"] = breaks
    with pytest.raises(httpx.TransportError):
        await client.get("/c/a")
    shop.scripts["/c/a"] = says("Cache-Control: max-age=30")
    assert (await client.get("/c/a")).text == "hello"


async def test_routes_without_a_cache_keep_nothing(client: Any, shop: Any) -> None:
    """Only a route that asks for it has one."""
    shop.scripts["/a"] = says("Cache-Control: public, max-age=30")
    reply = await client.get("/a")
    await client.get("/a")

    assert len(shop.seen) == 2
    assert "cache-status" not in reply.headers


async def test_a_reload_keeps_what_is_kept(client: Any, shop: Any) -> None:
    """Another limit changes nothing; another server, or a smaller memory, does."""
    shop.scripts["/c/a"] = says("Cache-Control: max-age=60")
    gateway = client.gateway
    await client.get("/c/a")
    assert (await gateway.admin("POST", "/api/config/reload")).status_code == 200
    await client.get("/c/a")
    assert len(shop.seen) == 1

    gateway.edit(cache={"max_bytes": 0})
    assert (await gateway.admin("POST", "/api/config/reload")).json()["applied"] == 1
    await client.get("/c/a")
    assert len(shop.seen) == 2
    assert await gateway.metric("tidegate_cache_bytes") == 0
    assert await gateway.stop(signal.SIGTERM) == 0
