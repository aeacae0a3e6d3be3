"""A gateway whose Redis stands behind sentinels: limits, switches and shut-offs over a failover."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.state import redis_place
from gateway.state.limits_link import CONNECT_TIMEOUT
from gateway.state.redis_place import NoServerError, first_to_know, locate
from tests.gateway import virtual_time
from tests.gateway.two_hosts import LIMITS, ROUTES, all_beat, joined, shut_off, store_is, switch
from tests.redis_places import Sentinels, running_sentinels
from tests.waiting import PATIENCE


@pytest.fixture
def sentinels(short_tmp: Path, tmp_path: Path) -> Iterator[Sentinels]:
    folder = short_tmp / f"sentinels-{tmp_path.name}"
    folder.mkdir()
    with running_sentinels(folder) as running:
        yield running


@pytest.mark.parametrize("how", ["killed", "frozen"])
async def test_a_failover_is_survived(
    sentinels: Sentinels, start_gateway: Any, shop: Any, until: Any, how: str
) -> None:
    """The master is lost: the local share serves until the sentinels have made another; then all is well."""
    shared = {"url": sentinels.url, "timeout": "5s"}
    one, other = [await start_gateway(redis=shared, routes=ROUTES, limits=LIMITS) for _ in range(2)]
    await joined(until, sentinels.servers, one, other)
    before = sentinels.master()
    await all_beat(until, before.client, 4)
    assert [(await gateway.fresh("/")).status_code for gateway in (one, other) * 5] == [200] * 10
    await switch(until, one, other, "off")
    await shut_off(until, shop, one, other, "card-1")

    await until(lambda: sentinels.replicated(before))  # else the failover would lose what was counted last
    (before.kill if how == "killed" else before.freeze)()
    assert (await one.admin("PUT", "/api/step", {"step": 0})).json()["applied"] == 2
    # Nobody waits for longer than the time-out, and nobody is told anything but yes or no.
    codes = []
    async with asyncio.timeout(60):  # the sentinels would have given up
        while sentinels.master() is before:
            codes.append((await one.fresh("/")).status_code)
    codes += [(await one.fresh("/")).status_code for _ in range(30 - len(codes))]
    assert set(codes) == {200, 429}
    assert codes.count(200) <= 20

    await store_is(until, 1, one, other)
    await joined(until, [sentinels.master()], one, other)
    await switch(until, other, one, "on")
    await shut_off(until, shop, other, one, "card-2")
    left = 20 - codes.count(200)
    codes = [(await gateway.fresh("/")).status_code for gateway in (one, other) * 15]
    assert codes == [200] * left + [429] * (30 - left)  # of 30 in all, whoever counted

    if how == "frozen":  # it wakes up, still thinks it is the master, and is told better
        before.thaw()
        await until(lambda: before.ask("ROLE")[0] == "slave")
        await switch(until, one, other, "off")


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is asked where the master is may stand still; the gateway would ask again."""
    monkeypatch.setattr(redis_place, "PATIENCE", PATIENCE)


@pytest.mark.usefixtures("patient")
async def test_sentinels_that_hang_cost_little(sentinels: Sentinels) -> None:
    """The first one is frozen, and whoever is left answers."""
    sentinels.sentinels[0].freeze()
    found = await locate(sentinels.url, "any")
    assert found.endswith(f":{sentinels.master().port}")
    sentinels.sentinels[1].kill()
    assert await locate(sentinels.url, "any") == found


def test_a_seed_that_hangs_is_waited_for_no_longer_than_a_worker_has() -> None:
    """Of three the first two never answer, and of the time for a connection most is left."""

    async def ask(seed: str) -> str:
        await asyncio.sleep(3600 if seed != "c" else 0)
        return seed

    async def main() -> tuple[str, float]:
        return await first_to_know(["a", "b", "c"], ask), asyncio.get_running_loop().time()

    found, took = virtual_time.run(main())
    assert found == "c"
    assert took < CONNECT_TIMEOUT / 2


@pytest.mark.usefixtures("patient")
async def test_a_name_that_no_sentinel_knows(sentinels: Sentinels) -> None:
    """A slip in the URL is said, not a password."""
    with pytest.raises(NoServerError, match="'nobody'"):
        await locate(sentinels.url.rpartition("/")[0] + "/nobody", "any")
