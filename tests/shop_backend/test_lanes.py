"""Clients with one connection each: as many at once as there are lanes, each used again."""

from __future__ import annotations

import asyncio

import httpx

from shop_backend.lanes import Lanes


async def test_no_more_requests_at_once_than_lanes() -> None:
    """A crowd passes by three lanes; nobody shares a connection, and each serves again."""
    busy = most = served = 0
    connections: set[int] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal busy, most, served
        connections.add(id(writer))
        while await reader.readline():
            while await reader.readline() != b"\r\n":
                pass
            busy += 1
            most = max(most, busy)
            for _ in range(5):
                await asyncio.sleep(0)
            busy -= 1
            served += 1
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        lanes = Lanes(3, base_url=f"http://127.0.0.1:{port}", trust_env=False)

        async def ask() -> int:
            async with lanes.client() as client:
                return (await client.get("/")).status_code

        assert await asyncio.gather(*(ask() for _ in range(30))) == [200] * 30
        await lanes.close()
    assert (served, len(connections)) == (30, 3)
    assert most <= 3


async def test_a_failure_leaves_its_lane_free() -> None:
    """Refused and cancelled requests give their lane back."""
    lanes = Lanes(1, base_url="http://127.0.0.1:1", trust_env=False)

    async def ask() -> bool:
        async with lanes.client() as client:
            try:
                await client.get("/")
            except httpx.ConnectError:
                return True
        return False

    asking = asyncio.create_task(ask())
    await asyncio.sleep(0)
    asking.cancel()
    assert await asyncio.gather(ask(), ask()) == [True, True]
    await lanes.close()
