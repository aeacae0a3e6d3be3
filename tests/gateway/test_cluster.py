"""A gateway whose Redis is a cluster of three: limits, switches, shut-offs, and slots that move."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.state.limits import SharedLimits
from gateway.state.limits_batch import MAX_HITS
from tests.clock import Clock
from tests.gateway.limits.reference import hit_of, told
from tests.gateway.two_hosts import LIMITS, ROUTES, all_beat, joined, shut_off, store_is, switch
from tests.redis_places import Cluster, running_cluster

KEY = "{tidegate}"  # its slot is that of every key of a gateway
Store = Callable[..., Awaitable[SharedLimits]]


@pytest.fixture(scope="module")
def cluster(short_tmp: Path) -> Iterator[Cluster]:
    folder = short_tmp / "cluster"
    folder.mkdir()
    with running_cluster(folder) as running:
        yield running
        for node in running.nodes:
            assert not [key for key in node.client.scan_iter() if node.client.pttl(key) == -1]


@pytest.fixture
async def store(cluster: Cluster, until: Any) -> AsyncIterator[Store]:
    """A started store for each call, on an empty cluster."""
    for node in cluster.nodes:
        node.ask("FLUSHALL")
    stores: list[SharedLimits] = []

    async def start(**settings: Any) -> SharedLimits:
        found = SharedLimits(cluster.url, **{"timeout": 5.0, "prefix": "tidegate", "workers": 2, **settings})
        stores.append(found)
        await found.start()
        await until(lambda: found.up)
        return found

    yield start
    for one in stores:
        await one.aclose()


async def test_batches_go_to_one_node_and_are_split_by_size(cluster: Cluster, store: Store) -> None:
    """A script's keys must be in one slot, and a request's limits are charged together: so all are in one.

    1,300 requests at once, of a limit for all and one for each user, come to six calls of at most 512 hits,
    all to the node that has the slot; the others are asked nothing and keep nothing.
    """
    limits = await store(clock=Clock())  # which stands still: no beat comes after the first call
    await limits.take([hit_of("first", "", 1, 3600.0)])
    keeper = cluster.keeper(KEY)
    before = {node.port: node.calls() for node in cluster.nodes}
    everyone = hit_of("all", "", 1_000, 3600.0)
    verdicts = await asyncio.gather(
        *(limits.take([everyone, hit_of("user", f"u:{n}", 5, 3600.0)]) for n in range(1_300))
    )
    assert sum(all(charge.allowed for charge in told(verdict)) for verdict in verdicts) == 1_000
    called = {node.port: node.calls() - before[node.port] for node in cluster.nodes}
    assert called.pop(keeper.port) == -(-2 * 1_300 // MAX_HITS)
    assert set(called.values()) == {0}
    for node in cluster.nodes:
        keys = list(node.client.scan_iter())
        assert bool(keys) == (node is keeper)
        assert all(cluster.slot(key) == cluster.slot(KEY) for key in keys)


async def test_nothing_is_lost_while_a_slot_moves(cluster: Cluster, store: Store, until: Any) -> None:
    """ASK, TRYAGAIN and MOVED under load: every request is answered, and no more pass than may."""
    limits = await store()
    hits = [[hit_of("all", "", 10_000, 3600.0), hit_of("user", f"u:{n}", 7, 3600.0)] for n in range(20)]
    passed = fallback = answered = 0

    async def ask(times: int) -> None:
        nonlocal passed, fallback, answered
        for _ in range(times):
            for verdict in await asyncio.gather(*(limits.take(hit) for hit in hits)):
                charges = told(verdict)
                answered += 1
                passed += all(charge.allowed for charge in charges)
                fallback += any(charge.fallback for charge in charges)

    await ask(2)
    source, target = cluster.keeper(KEY), cluster.another(KEY)
    with cluster.moving(KEY, target) as moved:
        await ask(1)  # all keys still here
        for _ in zip(range(10), moved, strict=False):
            pass
        await ask(1)  # some here, some there: TRYAGAIN
        for _ in moved:
            pass
        await ask(1)  # all there: ASK
        assert target.calls() > 0
    await ask(1)  # MOVED
    await until(lambda: limits.up)
    before = source.calls()
    await ask(4)
    assert source.calls() == before  # asked no more
    assert answered == 200
    # The three requests of each user that could not be judged there are judged here, by the local share.
    assert 7 * 20 <= passed <= 7 * 20 + 3 * 20
    assert fallback < 3 * 20 + 1
    assert told(await limits.take([hits[0][0]]))[0].remaining >= 10_000 - passed - 1


async def test_two_gateways_share_a_cluster(
    cluster: Cluster, start_gateway: Any, shop: Any, until: Any
) -> None:
    """Limits, a switch, a changed limit and a shut-off reach the other host, also when the slot moves."""
    for node in cluster.nodes:
        node.ask("FLUSHALL")
    shared = {"url": cluster.url, "timeout": "5s"}
    one, other = [await start_gateway(redis=shared, routes=ROUTES, limits=LIMITS) for _ in range(2)]
    await joined(until, cluster.nodes, one, other)
    await store_is(until, 1, one, other)

    codes = [(await gateway.fresh("/")).status_code for _ in range(20) for gateway in (one, other)]
    assert codes == [200] * 30 + [429] * 10

    await switch(until, one, other, "off")
    await shut_off(until, shop, one, other, "card-1")

    with cluster.moving(KEY, cluster.another(KEY)):
        pass
    # Said to the node that had the slot, and still heard: the line goes to the other and says it again.
    await shut_off(until, shop, other, one, "card-2")
    await switch(until, other, one, "on")
    assert (await one.admin("PUT", "/api/limits/all", {"rate": "40/day"})).status_code == 200

    async def changed() -> bool:
        return bool((await other.admin("GET", "/api/limits/all")).json()["rate"] == "40/day")

    await until(changed, other.log)
    await all_beat(until, cluster.keeper(KEY).client, 4)  # else who finds the slot gone judges by a share

    await store_is(until, 1, one, other)
    codes = [(await gateway.fresh("/")).status_code for _ in range(10) for gateway in (one, other)]
    assert codes == [200] * 10 + [429] * 10  # the count has moved along


async def test_a_node_that_dies_costs_the_count_only(
    cluster: Cluster, start_gateway: Any, until: Any
) -> None:
    """The node of the slot is killed: the local share serves; it comes back: one count for all again."""
    for node in cluster.nodes:
        node.ask("FLUSHALL")
    shared = {"url": cluster.url, "timeout": "5s"}
    one, other = [await start_gateway(redis=shared, routes=ROUTES, limits=LIMITS) for _ in range(2)]
    await joined(until, cluster.nodes, one, other)
    assert (await one.fresh("/")).status_code == 200
    keeper = cluster.keeper(KEY)
    await all_beat(until, keeper.client, 4)

    keeper.kill()
    try:
        await store_is(until, 0, one, other)
        codes = [(await one.fresh("/")).status_code for _ in range(30)]
        assert codes == [200] * 15 + [429] * 15  # two hosts of two workers each: half of 30
        said = (await one.admin("PUT", "/api/features/recommendations", {"state": "off"})).json()
        assert said["applied"] == 2
        assert "tidegate-degraded" in (await one.fresh("/recommendations")).headers
    finally:
        keeper.start()
    await store_is(until, 1, one, other)
    await joined(until, cluster.nodes, one, other)

    async def heard() -> bool:
        return "tidegate-degraded" in (await other.fresh("/recommendations")).headers

    await until(heard, other.log)
    passed = 0
    for gateway in (one, other) * 15:
        passed += (await gateway.fresh("/")).status_code == 200
    assert passed == 15  # what was admitted meanwhile has been charged
