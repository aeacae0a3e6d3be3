"""The stock on a real Redis Cluster: three nodes, every SKU's keys in one slot."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from shop_backend.config import Settings
from shop_backend.stock import keys
from shop_backend.workers.orders import OrderHandler
from shop_backend.workers.runner import StreamRunner
from tests.redis_places import running_cluster
from tests.waiting import PATIENCE

SHARDS = 6


@pytest.fixture
def cluster_url(short_tmp: Path, tmp_path: Path) -> Iterator[str]:
    """URL of one node of a cluster of three masters that keep every write."""
    folder = short_tmp / f"cluster-{tmp_path.name}"
    folder.mkdir()
    with running_cluster(folder, "--appendonly", "yes", "--appendfsync", "always") as cluster:
        yield f"redis://127.0.0.1:{cluster.nodes[0].port}"


@pytest.fixture
def clustered(shop_settings: Settings, cluster_url: str) -> Settings:
    """A shop whose stock is spread over the cluster."""
    stock = shop_settings.stock.model_copy(update={"cluster": True, "shards": SHARDS})
    return Settings.model_validate(
        shop_settings.model_dump() | {"stock": stock.model_dump(), "stock_redis_url": cluster_url}
    )


async def test_a_cluster_sells(clustered: Settings, fill_shop: Any, start_shop: Any) -> None:
    """Orders of several SKUs go through reserve, row, payment and delivery, over all three nodes."""
    fill_shop(clustered)
    async with start_shop(clustered) as shop:
        runners = [_runner(shop, clustered, shard) for shard in range(SHARDS)]
        skus = ("plain", "flash", "single")
        assert len({keys.shard_of(sku, SHARDS) for sku in skus}) > 1
        me = await shop.session()
        placed = [(await shop.order(sku, headers=me, key=sku)).json() for sku in skus]
        assert [(await shop.see(order))["status"] for order in placed] == ["reserved"] * 3
        assert (await shop.order("single", headers=await shop.session())).status_code == 410
        for runner in runners:
            await runner.join()
            while await runner.once():
                pass
        await shop.cashier.open_checkouts()
        for order in placed[:2]:
            await shop.callback(order, await shop.pay(order))
        await shop.drain()
        await shop.parts.redis_durable.zadd(
            keys.on(keys.shard_of("single", SHARDS), keys.HOLDS), {placed[2]["order_id"]: 1}
        )
        assert await shop.sweeper.sweep() == 1
        states = [(await shop.see(order))["status"] for order in placed]
        assert states == ["delivered", "delivered", "expired"]
        await shop.check()

        await shop.keeper.load()  # correcting the counts changes nothing
        await shop.check()


async def test_one_key_is_one_order_whatever_the_shard(
    clustered: Settings, fill_shop: Any, start_shop: Any
) -> None:
    """The same Idempotency-Key for an SKU of another shard: 409, unless the first was refused."""
    fill_shop(clustered)
    async with start_shop(clustered) as shop:
        me = await shop.session()
        other = next(sku for sku in ("flash", "single") if not _together(sku, "plain"))
        assert (await shop.order("plain", headers=me, key="k")).status_code == 202
        assert (await shop.order(other, headers=me, key="k")).status_code == 409
        assert (await shop.order("plain", headers=me, key="k")).status_code == 202
        assert (await shop.order("over", headers=me, key="l")).status_code == 403
        assert (await shop.order("plain", headers=me, key="l")).status_code == 202
        assert len((await shop.snapshot()).holds) == 2


async def test_a_lost_node_closes_admission_until_the_stock_is_loaded(
    clustered: Settings, fill_shop: Any, start_shop: Any
) -> None:
    """When any shard lost its data nothing is sold from it; the keeper loads all under a new epoch."""
    fill_shop(clustered)
    async with start_shop(clustered) as shop:
        before = await shop.snapshot()
        lost = keys.shard_of("plain", SHARDS)
        async for name in shop.parts.redis_durable.scan_iter(match=keys.on(lost, keys.EPOCH)[:-5] + "*"):
            await shop.parts.redis_durable.delete(name)
        refused = await shop.order("plain")
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "2")
        assert "try again" in refused.json()["detail"]
        assert (await shop.snapshot()).epoch == 0
        await shop.keeper.check()
        after = await shop.snapshot()
        assert (after.epoch, after.free) == (before.epoch + 1, before.free)
        async with asyncio.timeout(PATIENCE):
            while (await shop.order("plain")).status_code == 503:  # noqa: ASYNC110 - as shoppers do
                await asyncio.sleep(0.02)


def test_all_keys_of_a_shard_share_a_slot() -> None:
    """Each tag's names hash to one slot, and different tags to different ones."""
    names = [v for k, v in vars(keys).items() if k.isupper() and k not in {"GROUP", "CALLBACKS"}]
    tags = [{name[: name.index("}") + 1] for name in (keys.on(n, name) for name in names)} for n in range(64)]
    assert all(len(tag) == 1 for tag in tags)
    assert len(set(itertools.chain(*tags))) == 64
    assert keys.on(0, keys.ORDERS) == keys.ORDERS


def _together(one: str, other: str) -> bool:
    return keys.shard_of(one, SHARDS) == keys.shard_of(other, SHARDS)


def _runner(shop: Any, settings: Settings, shard: int) -> StreamRunner:
    handler = OrderHandler(
        shop.parts.database,
        shop.parts.stock,
        shop.partitions,
        settings.workers,
        provider="sandbox",
        shard=shard,
    )
    return StreamRunner(shop.parts.redis_streams, shop.parts.database, handler, settings.workers)
