"""The pool: bounded, fair, and whole again whatever is cancelled."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import pytest

from gateway import config
from gateway.errors import PoolExhausted, UpstreamError
from gateway.upstream.http1 import Connection
from gateway.upstream.pool import Endpoint, Pool
from tests.gateway.upstream.scripted import Bench, Peer, always
from tests.waiting import PATIENCE, until


async def make_pool(bench: Bench, size: int, keep_alive: float = 60.0, **script: Any) -> tuple[Pool, Any]:
    scripted, url = await bench.server(always(**script))
    settings = config.Upstream.model_validate({"servers": [url]})
    endpoint = Endpoint.parse(url, settings, clock=time.monotonic, tls=None)
    return Pool(endpoint, size=size, keep_alive=keep_alive), scripted


async def use(connection: Connection) -> None:
    """One exchange on a leased connection."""
    connection.send(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
    await connection.head(time.monotonic() + PATIENCE)
    await connection.more(time.monotonic() + PATIENCE)
    connection.take()


def soon() -> float:
    return time.monotonic() + PATIENCE


async def test_the_last_used_is_used_first(bench: Bench) -> None:
    """Last in, first out, so that those not needed expire."""
    pool, scripted = await make_pool(bench, 3)
    first, second = await pool.acquire(soon()), await pool.acquire(soon())
    for connection in (first, second):
        await use(connection)
        pool.release(connection)
    assert pool.take() is second
    assert pool.take() is first
    assert pool.take() is None
    assert scripted.connections == 2


async def test_waiters_are_served_in_order(bench: Bench) -> None:
    """First come, first served; each gets the connection handed over."""
    pool, scripted = await make_pool(bench, 1)
    order: list[int] = []

    async def visit(number: int) -> None:
        connection = await pool.acquire(soon())
        await use(connection)
        order.append(number)
        pool.release(connection)

    await asyncio.gather(*(visit(number) for number in range(20)))
    assert order == list(range(20))
    assert scripted.connections == 1
    assert (pool.in_use, pool.idle, pool.load) == (0, 1, 0)


async def test_a_place_is_handed_on_when_its_connection_dies(bench: Bench) -> None:
    """A waiter gets the permit of a connection that can't be used again."""
    pool, scripted = await make_pool(bench, 1)
    held = await pool.acquire(soon())
    waiting = asyncio.ensure_future(pool.acquire(soon()))
    await asyncio.sleep(0)
    pool.release(held)  # never used: no answer ended on it
    second = await waiting
    assert second is not held
    assert scripted.connections == 2
    assert pool.in_use == 1
    pool.release(second)
    pool.release(second)  # safe to call again
    assert pool.in_use == 0


async def test_the_deadline_ends_the_wait(bench: Bench) -> None:
    """All busy until the deadline: PoolExhausted, 503 with Retry-After, no trace left."""
    pool, _ = await make_pool(bench, 1)
    held = await pool.acquire(soon())
    with pytest.raises(PoolExhausted) as caught:
        await pool.acquire(time.monotonic() + 0.01)
    assert (caught.value.status, caught.value.retry_after) == (503, 1.0)
    assert pool.load == 1
    pool.release(held)
    assert pool.load == 0


async def test_an_expired_connection_is_not_taken(bench: Bench) -> None:
    """Rested too long: closed, and a new one is opened."""
    late = 0.0
    scripted, url = await bench.server(always())
    settings = config.Upstream.model_validate({"servers": [url]})
    endpoint = Endpoint.parse(url, settings, clock=lambda: time.monotonic() + late, tls=None)
    pool = Pool(endpoint, size=2, keep_alive=60)
    connection = await pool.acquire(soon())
    await use(connection)
    pool.release(connection)
    late = 61.0
    assert pool.take() is None
    assert (pool.in_use, pool.idle) == (0, 0)
    await until(lambda: scripted.open == 0)


async def test_an_idle_connection_that_the_upstream_closes_leaves_the_pool(bench: Bench) -> None:
    """The pool forgets it at once, not when somebody stumbles over it."""

    async def once(peer: Peer) -> None:
        await peer.request()
        await peer.say(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    _, url = await bench.server(once)
    settings = config.Upstream.model_validate({"servers": [url]})
    pool = Pool(Endpoint.parse(url, settings, clock=time.monotonic, tls=None), size=1, keep_alive=60)
    connection = await pool.acquire(soon())
    await use(connection)
    pool.release(connection)
    await until(lambda: pool.idle == 0)
    assert pool.in_use == 0
    assert await pool.acquire(soon())


async def test_fresh_makes_room_by_closing_the_oldest(bench: Bench) -> None:
    """A full pool of idle connections still gives a fresh one."""
    pool, scripted = await make_pool(bench, 2)
    pair = [await pool.acquire(soon()), await pool.acquire(soon())]
    for connection in pair:
        await use(connection)
        pool.release(connection)
    fresh = await pool.acquire(soon(), fresh=True)
    assert fresh not in pair
    assert pair[0].closed
    assert (pool.in_use, pool.idle) == (1, 1)
    assert scripted.connections == 3


async def test_a_closed_pool_lets_exchanges_end_and_keeps_nothing(bench: Bench) -> None:
    """After close, what is under way ends in peace, and its connection too."""
    pool, scripted = await make_pool(bench, 1)
    connection = await pool.acquire(soon())
    pool.close()
    await use(connection)
    pool.release(connection)
    assert (pool.in_use, pool.idle) == (0, 0)
    await until(lambda: scripted.open == 0)


async def test_a_refused_connection_gives_its_place_back(bench: Bench) -> None:
    """Waiters behind a failed opening are not stuck."""
    pool, scripted = await make_pool(bench, 1)
    await scripted.aclose()
    results = await asyncio.gather(*(pool.acquire(soon()) for _ in range(5)), return_exceptions=True)
    assert all(isinstance(result, UpstreamError) for result in results)
    assert pool.load == 0


@pytest.mark.parametrize("step", range(14))
async def test_a_cancel_at_every_step_leaks_nothing(bench: Bench, step: int) -> None:
    """Whichever turn of the loop the cancellation hits, the pool is whole and serves the next."""
    pool, _ = await make_pool(bench, 1)

    async def visit() -> None:
        connection = await pool.acquire(soon())
        try:
            await use(connection)
        finally:
            pool.release(connection)

    before = asyncio.ensure_future(visit())
    victim = asyncio.ensure_future(visit())
    behind = asyncio.ensure_future(visit())
    for _ in range(step):
        await asyncio.sleep(0)
    victim.cancel()
    await asyncio.wait([victim])
    await before
    await behind
    assert (pool.in_use, pool.load) == (0, 0)
    await visit()


@pytest.mark.parametrize("seed", range(4))
async def test_a_storm_of_cancellations_leaks_nothing(bench: Bench, seed: int) -> None:
    """Cancelled at random in mid-acquire, mid-connect and mid-answer, 300 times: nothing stays in use."""
    rng = random.Random(seed)
    pool, _ = await make_pool(bench, 5)

    async def visit() -> None:
        connection = await pool.acquire(soon(), fresh=rng.random() < 0.2)
        try:
            await use(connection)
        finally:
            if rng.random() < 0.1:
                connection.abort()
            pool.release(connection)

    tasks = [asyncio.ensure_future(visit()) for _ in range(300)]
    while pending := [task for task in tasks if not task.done()]:
        for task in rng.sample(pending, min(len(pending), rng.randrange(4))):
            task.cancel()
        assert pool.in_use <= 5
        await asyncio.sleep(0)
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (pool.in_use, pool.load) == (0, 0)
    await visit()
