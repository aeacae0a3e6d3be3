"""Two gateways before one Redis: what one learns the other knows; without Redis each goes on by itself."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import redis as redis_client

from gateway.hosts import Hosts
from gateway.policies.shut_offs import ShutOffs
from gateway.state.news import News
from gateway.state.pins import Pin, Pins
from gateway.state.roll import GONE, MOST_HOSTS, Roll

if TYPE_CHECKING:
    from tests.gateway.own_redis import OwnRedis
    from tests.gateway.process import GatewayProcess

ROUTES = [
    {"match": "/api/orders", "methods": ["POST"], "upstream": "shop", "shut": {"sku": "body"}},
    {"match": "/recommendations", "upstream": "shop", "feature": "recommendations"},
    {"match": "/**", "upstream": "shop"},
]
BUY = {"sku": "steam-50"}


async def sold_out(_: Any, writer: asyncio.StreamWriter, __: Any) -> None:
    writer.write(
        b"HTTP/1.1 410 Gone\r\nTidegate-Shut: sku=steam-50; for=60\r\nContent-Length: 8\r\n\r\nsold out"
    )


async def sick(_: Any, writer: asyncio.StreamWriter, __: Any) -> None:
    writer.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")


async def buy(gateway: GatewayProcess) -> int:
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        return (await client.post("/api/orders", json=BUY)).status_code


async def shut(gateway: GatewayProcess) -> int:
    return len((await gateway.admin("GET", "/api/shut-offs")).json()["shut_offs"])


async def test_what_is_shut_off_is_so_on_every_host(
    start_gateway: Any, shop: Any, redis_volatile_url: str, until: Any
) -> None:
    """Said once to one host: no other asks, one that starts later neither; ended by an operator anywhere."""
    shared = {"url": redis_volatile_url, "timeout": "5s"}
    one, other = [await start_gateway(redis=shared, routes=ROUTES) for _ in range(2)]
    shop.scripts["/api/orders"] = sold_out
    assert await buy(one) == 410
    await until(lambda: shut(other))
    late = await start_gateway(redis=shared, routes=ROUTES)
    await until(lambda: shut(late))
    with redis_client.Redis.from_url(redis_volatile_url) as client:
        assert all(client.ttl(key) > 0 for key in client.keys("*"))

    shop.scripts.clear()
    for gateway in (one, other, late):
        assert await buy(gateway) == 410
    assert len(shop.seen) == 1
    assert (await late.admin("DELETE", "/api/shut-offs")).json() == {"cleared": 1}

    async def ended(gateway: GatewayProcess) -> bool:
        return await shut(gateway) == 0 and await buy(gateway) == 200

    for gateway in (one, other, late):
        await until(lambda gateway=gateway: ended(gateway))
    with redis_client.Redis.from_url(redis_volatile_url) as client:
        assert not client.keys("*shut-offs*")


async def test_a_trip_is_a_hint_to_the_other_host(
    start_gateway: Any, shop: Any, redis_volatile_url: str, until: Any
) -> None:
    """A host whose users have not asked yet leaves a sick upstream alone from the first one on."""
    keys = {
        "redis": {"url": redis_volatile_url, "timeout": "5s"},
        "upstreams": {
            "shop": {
                "servers": [f"http://127.0.0.1:{shop.port}"],
                "breaker": {"min_requests": 5, "open_for": "60s"},
            }
        },
    }
    one, other = await start_gateway(**keys), await start_gateway(**keys)
    shop.scripts["/sick"] = sick

    async def both_listen() -> bool:
        with redis_client.Redis.from_url(redis_volatile_url) as client:
            return client.pubsub_numsub("tidegate:news")[0][1] == 2

    await until(both_listen)
    async with httpx.AsyncClient(base_url=one.url) as client:
        for _ in range(5):
            await client.get("/sick")

    async def is_open() -> bool:
        return await other.metric("tidegate_breaker_state", state="open") == 1

    await until(is_open, other.log)
    assert (await other.fresh("/well")).status_code == 503
    assert len(shop.seen) == 5


async def test_without_redis_all_of_it_works_on_the_host(start_gateway: Any, shop: Any, until: Any) -> None:
    """Redis away from the start: ladder, switches, breaker and shut-off hold in every worker."""
    gateway = await start_gateway(
        redis={"url": "redis://127.0.0.1:1/0"},
        routes=[*ROUTES[:2], {"match": "/sick", "upstream": "sick"}, {"match": "/**", "upstream": "shop"}],
        upstreams={
            "shop": {"servers": [f"http://127.0.0.1:{shop.port}"]},
            "sick": {
                "servers": [f"http://127.0.0.1:{shop.port}"],
                "breaker": {"min_requests": 5, "open_for": "60s"},
            },
        },
        degradation={
            "steps": [{"name": "elevated", "off": ["recommendations"]}],
            "climb": {"pressure": 0.8, "after": "250ms"},
        },
    )
    shop.scripts["/sick"] = sick
    shop.scripts["/api/orders"] = sold_out
    assert (await gateway.admin("GET", "/api/status")).json()["limit_store"]["up"] is False

    assert await buy(gateway) == 410
    await until(lambda: shut(gateway))
    shop.scripts.pop("/api/orders")
    assert {await buy(gateway) for _ in range(12)} == {410}

    switched = (await gateway.admin("PUT", "/api/features/recommendations", {"state": "on"})).json()
    assert switched["applied"] == switched["workers"] == 2
    for _ in range(12):
        await gateway.fresh("/sick")

    async def all_workers_refuse() -> bool:
        return {(await gateway.fresh("/sick")).status_code for _ in range(8)} == {503}

    await until(all_workers_refuse, gateway.log)

    async def climbed() -> bool:
        return await gateway.metric("tidegate_degradation_step") == 1

    await until(climbed, gateway.log)
    # The operator's word stands above the ladder's, until it is taken back.
    assert "tidegate-degraded" not in (await gateway.fresh("/recommendations")).headers
    await gateway.admin("PUT", "/api/features/recommendations", {"state": "auto"})
    assert "tidegate-degraded" in (await gateway.fresh("/recommendations")).headers


async def test_switches_thrown_without_redis_meet_when_it_returns(
    start_gateway: Any, own_redis: OwnRedis, until: Any
) -> None:
    """On each host at once; the newest wins on both, whichever host comes back first."""
    steps = {"steps": [{"name": "elevated", "off": ["recommendations"]}]}
    shared = {"url": own_redis.url, "timeout": "5s"}
    one, other = [await start_gateway(redis=shared, degradation=steps) for _ in range(2)]

    async def feature(gateway: GatewayProcess) -> str:
        return str((await gateway.admin("GET", "/api/features/recommendations")).json()["state"])

    async def pin(gateway: GatewayProcess, state: str) -> None:
        said = await gateway.admin("PUT", "/api/features/recommendations", {"state": state})
        assert said.json()["applied"] == 2
        assert await feature(gateway) == state

    await pin(one, "on")
    await until(lambda: _is(feature(other), "on"))
    own_redis.stop()
    await pin(one, "off")
    await pin(other, "on")
    await pin(one, "auto")
    await pin(other, "off")  # the newest
    await one.admin("PUT", "/api/step", {"step": 1, "reason": "only said here"})
    assert await feature(one) == "auto"
    own_redis.start()

    async def agree() -> bool:
        steps = [(await gateway.admin("GET", "/api/step")).json()["step"] for gateway in (one, other)]
        return (await feature(one), await feature(other), *steps) == ("off", "off", 1, 1)

    await until(agree, lambda: (one.log(), other.log()))
    assert "tidegate-degraded" in (await one.fresh("/recommendations")).headers


async def _is(found: Any, wanted: object) -> bool:
    return bool(await found == wanted)


# ---- what may come over the line -------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [
        b"\xff",
        b"[]",
        b"{}",
        b'{"kind": "trip"}',
        b'{"kind": "shut", "what": []}',
        b'{"kind": "unshut", "what": 1}',
        b'{"kind": "trip", "what": {"upstream": 1, "route": "", "seconds": 1}}',
        b'{"kind": "trip", "what": {"upstream": "shop", "route": "", "seconds": "long"}}',
        b'{"kind": "shut", "what": {"key": ["a", "b", "c"], "seconds": 1, "status": 1, "headers": [[1, 2]]}}',
    ],
)
def test_nonsense_from_redis_is_refused(said: bytes) -> None:
    """Redis may hold anything: one error, which the line expects; nothing is shut or opened."""
    told: list[object] = []
    shut_offs = ShutOffs()
    hosts = Hosts(Pins(None, lambda: 0.0), shut_offs, told.append, dict)
    news = News("test")
    news.on_trip, news.on_shut, news.on_unshut = hosts.heard_trip, hosts.heard_shut, hosts.heard_unshut
    with pytest.raises(ValueError):  # noqa: PT011 - whatever it says
        news.heard(said)
    assert not told
    assert len(shut_offs) == 0


def test_a_host_does_not_hear_itself() -> None:
    """Redis tells everyone, the speaker too."""
    news = News("test")
    heard: list[object] = []
    news.on_trip = heard.append
    trip = {"upstream": "shop", "route": "", "seconds": 1.0}
    own = news.words("trip", trip).encode()
    news.heard(own)
    assert not heard
    news.heard(json.dumps({**json.loads(own), "from": "another"}).encode())
    assert heard == [trip]


async def test_a_change_is_answered_once_the_other_hosts_have_it(
    start_gateway: Any, redis_volatile_url: str, until: Any
) -> None:
    """Both hosts are listed, each as it is; a switch's answer says when it held on the other."""
    shared = {"url": redis_volatile_url, "timeout": "5s"}
    one, other = [await start_gateway(redis=shared, routes=ROUTES) for _ in range(2)]

    async def hosts(gateway: GatewayProcess) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await gateway.admin("GET", "/api/status")).json()["hosts"]
        return found

    async def both() -> bool:
        return [len(await hosts(gateway)) for gateway in (one, other)] == [2, 2]

    async def in_time() -> bool:
        """Whether the other said so within half a second, for which a machine may stand still."""
        done = (await one.admin("PUT", "/api/features/recommendations", {"state": "off"})).json()
        (effect,) = done["effect"]["hosts"]
        assert effect["host"].endswith(f":{other.port}")
        return effect["ms"] is not None

    await until(both)
    await until(in_time)
    assert "tidegate-degraded" in (await other.fresh("/recommendations")).headers
    told = {host["here"]: (host["off"], host["workers"]) for host in await hosts(one)}
    assert told == {True: (["recommendations"], 2), False: (["recommendations"], 2)}


def test_a_host_that_falls_silent_is_forgotten() -> None:
    """After three polls; and nobody waits for it any longer. Nonsense is refused."""
    now = 0.0
    roll = Roll("x", lambda: {"name": "here", "workers": 1, "step": 0, "off": []}, lambda: now)
    other = Roll("x", lambda: {"name": "there", "workers": 2, "step": 1, "off": ["a"]}, lambda: now)
    strangers: list[int] = []
    roll.on_stranger = lambda: strangers.append(1)
    roll.heard(roll.words().encode())  # ourselves
    assert roll.others() == []
    for _ in range(2):
        roll.heard(other.words().encode())
    assert [(seen.name, seen.workers, seen.step, seen.off) for seen in roll.others()] == [
        ("there", 2, 1, ("a",))
    ]
    assert strangers == [1]
    now = GONE + 0.1
    assert roll.others() == []
    known = json.loads(other.words())
    for nonsense in (
        *(b"[]", b"{}", b"{", b'{"id": "x", "name": 1}', b'{"id": "x", "name": "", "workers": 1}'),
        json.dumps({**known, "holds": ["feature", "a", []]}).encode(),
        json.dumps({**known, "holds": ["feature", "a", "5"]}).encode(),
    ):
        with pytest.raises(ValueError):  # noqa: PT011 - json's own errors are ValueErrors too
            roll.heard(nonsense)


def test_strangers_beyond_the_list_are_not_answered() -> None:
    """Each answer has as many listeners as there are hosts; who is listed is heard as before."""
    now = 0.0
    roll = Roll("x", dict, lambda: now)
    others = [
        Roll("x", lambda name=f"host-{n}": {"name": name, "workers": 1, "step": 0, "off": []})
        for n in range(MOST_HOSTS + 1)
    ]
    strangers: list[int] = []
    roll.on_stranger = lambda: strangers.append(1)
    for _ in range(2):
        for other in others:
            roll.heard(other.words().encode())
    assert len(strangers) == len(roll.others()) == MOST_HOSTS
    assert f"host-{MOST_HOSTS}" not in {seen.name for seen in roll.others()}

    now = GONE + 1
    roll.heard(others[-1].words().encode())

    assert [seen.name for seen in roll.others()] == [f"host-{MOST_HOSTS}"]
    assert len(strangers) == MOST_HOSTS + 1


async def test_who_does_not_confirm_is_named_and_not_waited_for_long() -> None:
    """Of two hosts one confirms; the other is told of with no time, when patience ends."""
    roll = Roll("x", dict)
    others = [
        Roll("x", lambda name=name: {"name": name, "workers": 1, "step": 0, "off": []}) for name in ("a", "b")
    ]
    for other in others:
        roll.heard(other.words().encode())
    pin = Pin("feature", "x", "off", at=5)
    waiting = roll.expect(pin)
    roll.heard(others[0].words(Pin("feature", "x", "off", at=4)).encode())  # an older one
    roll.heard(others[1].words(pin).encode())

    told = dict(await waiting.wait(0.01))

    assert told["a"] is None
    assert told["b"] is not None
