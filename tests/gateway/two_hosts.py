"""What one gateway says through Redis and another one hears."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import httpx
import redis

from tests.redis_places import Node

if TYPE_CHECKING:
    from tests.gateway.process import GatewayProcess

ROUTES = [
    {"match": "/api/orders", "methods": ["POST"], "upstream": "shop", "shut": {"sku": "body"}},
    {"match": "/recommendations", "upstream": "shop", "feature": "recommendations"},
    {"match": "/**", "upstream": "shop", "limits": ["all"]},
]
LIMITS = {"all": {"rate": "30/day", "per": "global", "algorithm": "fixed-window"}}


async def joined(until: Any, nodes: Sequence[Node], *gateways: GatewayProcess) -> None:
    """Wait until each of the gateways is on the line."""

    def all_there() -> bool:
        found = [node.ask("PUBSUB NUMSUB", "tidegate:news") for node in nodes]
        return sum(int(many) for [(_, many)] in map(_pairs, found)) == len(gateways)

    await until(all_there, lambda: [gateway.log() for gateway in gateways])


async def store_is(until: Any, wanted: int, *gateways: GatewayProcess) -> None:
    """Wait until the limits of all workers are shared through Redis (1), or in none are (0)."""

    async def so() -> bool:
        up = [await gateway.metric("tidegate_limit_store_up") for gateway in gateways]
        return up == [wanted] * len(gateways)

    await until(so, lambda: [gateway.log() for gateway in gateways])


async def all_beat(until: Any, client: redis.Redis, workers: int) -> None:
    """Wait until each of so many workers has been told of all the others."""
    await until(lambda: len(_beats(client)) == workers)
    newest = max(_beats(client).values())
    await until(lambda: min(_beats(client).values()) > newest)


def _beats(client: redis.Redis) -> dict[str, float]:
    """When each living worker is taken for dead unless it says more."""
    found: Any = client.zrange("{tidegate}:limit-workers", 0, -1, withscores=True)
    return dict(found)


def _pairs(found: Any) -> list[tuple[str, int]]:
    return found if isinstance(found[0], (list, tuple)) else list(zip(found[::2], found[1::2], strict=True))


async def switch(until: Any, by: GatewayProcess, heard_by: GatewayProcess, state: str) -> None:
    """An operator throws a switch on one host; the other's workers obey."""
    said = await by.admin("PUT", "/api/features/recommendations", {"state": state})
    assert said.json()["applied"] == 2

    async def heard() -> bool:
        answer = await heard_by.fresh("/recommendations")
        return ("tidegate-degraded" in answer.headers) == (state == "off")

    await until(heard, heard_by.log)


async def shut_off(until: Any, shop: Any, by: GatewayProcess, heard_by: GatewayProcess, sku: str) -> None:
    """A shop that is sold out says so to one host; the other answers for it."""

    async def sold_out(_: Any, writer: asyncio.StreamWriter, __: Any) -> None:
        writer.write(
            b"HTTP/1.1 410 Gone\r\nTidegate-Shut: sku=%b; for=60\r\nContent-Length: 0\r\n\r\n" % sku.encode()
        )

    shop.scripts["/api/orders"] = sold_out
    assert await buy(by, sku) == 410

    async def heard() -> bool:
        return sku in (await heard_by.admin("GET", "/api/shut-offs")).text

    await until(heard, heard_by.log)
    shop.scripts.clear()
    assert await buy(heard_by, sku) == 410


async def buy(gateway: GatewayProcess, sku: str) -> int:
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        return (await client.post("/api/orders", json={"sku": sku})).status_code
