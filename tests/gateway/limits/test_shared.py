"""Limits shared through a real Redis: atomic, batched, and safe from callers that leave."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

import pytest
import redis

from gateway.state.limits_batch import MAX_HITS
from gateway.walk import Walk
from tests.gateway.limits.reference import hit_of, told

if TYPE_CHECKING:
    from tests.gateway.limits.conftest import NewStore


def calls_of(url: str) -> int:
    """Script calls this Redis has served."""
    with redis.Redis.from_url(url) as client:
        stats = client.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {}).get("calls", 0) for name in ("evalsha", "eval"))


async def test_a_refusal_charges_nothing(new_store: NewStore) -> None:
    """When one limit refuses, the others keep their tokens."""
    limits = await new_store()
    ip, user = hit_of("ip", "a", 1, 60.0), hit_of("user", "u", 1, 60.0)
    await limits.take([ip])

    assert [charge.allowed for charge in told(await limits.take([user, ip]))] == [True, False]

    (charge,) = told(await limits.take([user]))
    assert charge.allowed
    assert not charge.fallback


async def test_a_client_that_leaves_at_once_is_not_charged(new_store: NewStore) -> None:
    """Its request stood in the queue before it had a task, and is struck from it with the task."""
    limits, hit = await new_store(), hit_of("global", "", 1, 3600.0)
    ended: list[BaseException | None] = []

    async def asks() -> None:
        await limits.take([hit])

    walk = Walk(asks(), asyncio.get_running_loop(), lambda _, error: ended.append(error))
    walk.resume()
    walk.cancel()
    (charge,) = told(await limits.take([hit]))

    assert charge.allowed
    assert isinstance(ended[0], asyncio.CancelledError)


async def test_a_crowd_gets_exactly_the_capacity_in_few_calls(new_store: NewStore, limits_url: str) -> None:
    """A thousand at once: as many pass as there are tokens, in one call per batch."""
    limits = await new_store()
    hit = hit_of("global", "", 137, 3600.0)
    before = calls_of(limits_url)
    verdicts = await asyncio.gather(*(limits.take([hit]) for _ in range(1000)))
    assert sum(told(verdict)[0].allowed for verdict in verdicts) == 137
    assert calls_of(limits_url) - before <= 1000 // MAX_HITS + 2
    refused = [charge for verdict in verdicts for charge in told(verdict) if not charge.allowed]
    assert all(charge.remaining == 0 and charge.retry_after > 0 and charge.reset > 0 for charge in refused)


async def test_hosts_whose_clocks_disagree_share_exactly(new_store: NewStore) -> None:
    """Two gateways ten seconds ahead and behind admit not one request too many: time is Redis's."""
    ahead = await new_store(clock=lambda: time.monotonic() + 10)
    behind = await new_store(clock=lambda: time.monotonic() - 10)
    hit = hit_of("global", "", 50, 3600.0)
    verdicts = await asyncio.gather(*(store.take([hit]) for _ in range(100) for store in (ahead, behind)))
    assert sum(told(verdict)[0].allowed for verdict in verdicts) == 50


async def test_every_key_has_a_ttl_and_one_slot(new_store: NewStore, limits_url: str) -> None:
    """Each counter ends by itself, no later than its window, and all live in one cluster slot."""
    limits = await new_store()
    algorithms = ("sliding-window", "fixed-window", "token-bucket")
    await limits.take([hit_of(name, "u:1", 5, 60.0, name) for name in algorithms])
    with redis.Redis.from_url(limits_url) as client:
        keys = list(client.scan_iter())
        assert len(keys) == 5  # three counters, and two lists of workers
        assert all(0 < client.pttl(key) <= 60_001 for key in keys)
    assert all(key.startswith(b"{test}:") for key in keys)


async def test_scripts_flushed(new_store: NewStore, limits_url: str) -> None:
    """A Redis that forgot the script is told it again; nobody notices, and the count goes on."""
    limits = await new_store()
    hit = hit_of("global", "", 10, 3600.0)
    await limits.take([hit])
    with redis.Redis.from_url(limits_url) as client:
        client.script_flush()
    verdicts = await asyncio.gather(*(limits.take([hit]) for _ in range(3)))
    assert sorted(told(verdict)[0].remaining for verdict in verdicts) == [6, 7, 8]
    assert limits.up


async def test_another_rate_under_the_same_name_keeps_the_count(new_store: NewStore) -> None:
    """An operator who raises a rate for ten minutes does not hand out the window again."""
    limits = await new_store()
    await limits.take([hit_of("user", "u", 2, 60.0)])
    await limits.take([hit_of("user", "u", 2, 60.0)])
    (charge,) = told(await limits.take([hit_of("user", "u", 5, 60.0)]))
    assert charge.remaining == 2


@pytest.mark.parametrize("seed", range(3))
async def test_callers_that_leave_never_swap_replies(new_store: NewStore, seed: int) -> None:
    """Thousands cancelled in mid-call: each that stays gets its own reply (redis-py#2665)."""
    rng = random.Random(seed)
    limits = await new_store()

    async def one(n: int) -> tuple[int, int]:
        capacity = n + 10  # its own, so a swapped reply shows
        (charge,) = told(await limits.take([hit_of("user", f"u:{n}", capacity, 60.0)]))
        assert charge.allowed
        assert not charge.fallback
        return capacity, charge.remaining

    stayed = 0
    for wave in range(20):
        tasks = [asyncio.create_task(one(wave * 200 + n)) for n in range(200)]
        for _ in range(rng.randrange(4)):  # cancelled before, while and after the call is out
            await asyncio.sleep(0)
        for task in tasks:
            if rng.random() < 0.5:
                task.cancel()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            if not isinstance(result, asyncio.CancelledError):
                assert isinstance(result, tuple), result
                assert result[1] == result[0] - 1
                stayed += 1
    assert stayed > 1000
    assert limits.up


async def test_many_limits_on_one_route(new_store: NewStore) -> None:
    """Routes with many limits make smaller batches, and no call that Redis can't take."""
    limits = await new_store()
    verdicts = await asyncio.gather(
        *(limits.take([hit_of(f"limit{n}", f"u:{user}", 5, 60.0) for n in range(100)]) for user in range(100))
    )
    assert all(
        charge.remaining == 4 and not charge.fallback for verdict in verdicts for charge in told(verdict)
    )
