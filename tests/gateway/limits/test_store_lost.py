"""Two gateways whose Redis freezes under load: what is admitted, before, meanwhile and on return."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import redis

from tests.gateway.two_hosts import all_beat
from tests.waiting import PATIENCE

if TYPE_CHECKING:
    from tests.gateway.own_redis import OwnRedis
    from tests.gateway.process import GatewayProcess

LIMIT = 40
SETTINGS: dict[str, Any] = {
    "limits": {"all": {"rate": f"{LIMIT}/day", "per": "global", "algorithm": "fixed-window"}},
    "routes": [{"match": "/**", "upstream": "shop", "limits": ["all"]}],
}


async def crowd(gateway: GatewayProcess, many: int) -> Counter[int]:
    """What so many at once are answered, each over a connection of its own."""
    answers = await asyncio.gather(*(gateway.fresh() for _ in range(many)))
    return Counter(answer.status_code for answer in answers)


async def test_a_redis_that_freezes_under_load(start_gateway: Any, own_redis: OwnRedis, until: Any) -> None:
    """Nobody hangs, nobody sees an error; each host admits its share; on return the limit has not grown."""
    shared = {"url": own_redis.url, "timeout": "2s"}
    gateways = [await start_gateway(redis=shared, **SETTINGS) for _ in range(2)]
    with redis.Redis.from_url(own_redis.url, decode_responses=True) as client:
        await all_beat(until, client, 4)

    async def up(wanted: int) -> bool:
        return all([await one.metric("tidegate_limit_store_up") == wanted for one in gateways])

    own_redis.freeze()
    passed = 0
    for gateway in gateways:
        answers = await crowd(gateway, 30) + await crowd(gateway, 30)
        assert answers.keys() == {200, 429}
        assert answers[200] == LIMIT // 2  # two of the four workers are this host's, and count together
        passed += answers[200]
    await until(lambda: up(0))
    for gateway in gateways:
        assert await gateway.metric("tidegate_limit_checks_total", decision="fallback") == 60

    own_redis.thaw()
    async with asyncio.timeout(PATIENCE):
        while not await up(1):  # load goes on while they return
            for gateway in gateways:
                passed += (await crowd(gateway, 5))[200]
    for gateway in gateways:
        passed += (await crowd(gateway, 30))[200]
    assert passed == LIMIT


async def test_a_frozen_redis_is_asked_no_more(start_gateway: Any, own_redis: OwnRedis, until: Any) -> None:
    """Once it is known to be away requests cost it nothing: its connections carry probes, and no calls."""
    # Of one worker: on return two would ask for each other every 20 ms, which are no requests' calls.
    one = {"port": 0, "workers": 1}
    gateway = await start_gateway(listen=one, redis={"url": own_redis.url, "timeout": "2s"}, **SETTINGS)
    with redis.Redis.from_url(own_redis.url, decode_responses=True) as client:
        await all_beat(until, client, 1)
        before = scripts(client)
    own_redis.freeze()
    await crowd(gateway, 10)

    async def away() -> bool:
        return bool(await gateway.metric("tidegate_limit_store_up") == 0)

    await until(away)
    async with httpx.AsyncClient(base_url=gateway.url) as client_:
        for _ in range(50):
            assert (await client_.get("/")).status_code in {200, 429}
    own_redis.thaw()
    with redis.Redis.from_url(own_redis.url, decode_responses=True) as client:
        client.ping()  # answered after all that was on its way when it froze
        # The crowd's, the worker's probes, and what it gives back: never one for each of the fifty.
        assert scripts(client) - before < 25


def scripts(client: redis.Redis) -> int:
    """How many calls of scripts Redis has taken."""
    told: Any = client.info("commandstats")
    return sum(int(told.get(f"cmdstat_{name}", {}).get("calls", 0)) for name in ("eval", "evalsha"))
