"""Policies of a route driven as requests are: without a task until one is needed, and left at any moment."""

from __future__ import annotations

import asyncio
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import config
from gateway.errors import GatewayError, UpstreamError
from gateway.exchange import Exchange, Handler, Reply, compose
from gateway.policies.breaker import Breaker
from gateway.policies.cache import Cache
from gateway.policies.cache_store import Store
from gateway.policies.circuit import Circuit
from gateway.policies.load_shed import LoadShed
from gateway.policies.slots import Slots
from gateway.walk import Waiter, in_task
from tests.gateway import exchanges
from tests.gateway.walked import Walked
from tests.waiting import until

REQUESTS = 60
SAID = (b"max-age=100", b"no-store", b"max-age=0, stale-while-revalidate=5", b"max-age=0")


class Pieces:
    """A body that comes in pieces, some of them at once, and may break off."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._left = rng.randrange(4)
        self.closed = False

    def __aiter__(self) -> Pieces:
        return self

    async def __anext__(self) -> bytes:
        await waits(self._rng)
        if not self._left:
            raise StopAsyncIteration
        self._left -= 1
        if self._rng.random() < 0.05:
            raise UpstreamError("the upstream broke off")
        return b"x"

    async def aclose(self) -> None:
        self.closed = True


async def waits(rng: random.Random) -> None:
    """Not at all, or in one of the ways in which a request's coroutine waits."""
    way = rng.randrange(5)
    if way == 0:
        waiter = Waiter()
        asyncio.get_running_loop().call_soon(waiter.wake)
        await waiter
    elif way == 1:
        await in_task()
    elif way == 2:
        await asyncio.sleep(0)


class Bench:
    """Requests for two targets of an upstream that few may ask at once, and whose circuit is quick."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.store = Store()
        self.slots = Slots(config.Concurrency.model_validate({"min": 3, "max": 3, "queue": {"size": 8}}))
        breaker = config.Breaker.model_validate({"min_requests": 5, "open_for": "20ms", "probes": 2})
        self.circuit = Circuit("shop", breaker, rng=rng, ramp=0.01)
        self.bodies: list[Pieces] = []
        self.chain: Handler = compose(
            Cache(config.RouteCache.model_validate({"wait": "60s"}), self.store),
            LoadShed(self.slots, "normal"),
            Breaker(self.circuit),
            then=self.answer,
        )

    async def answer(self, exchange: Exchange) -> Reply:
        """The upstream: sick at times, never of the same mind."""
        rng = self.rng
        for _ in range(rng.randrange(4)):
            await waits(rng)
        exchange.upstream_seconds = 0.001
        fate = rng.random()
        if fate < 0.1:
            raise UpstreamError("the upstream closed the connection")
        if fate < 0.15:
            return Reply(503, [])
        headers = [(b"cache-control", rng.choice(SAID)), (b"etag", b'"%d"' % rng.randrange(3))]
        if fate < 0.5 and any(name == b"if-none-match" for name, _ in exchange.headers):
            return Reply(304, headers)
        if fate < 0.7:
            self.bodies.append(Pieces(rng))
            return Reply(200, headers, stream=self.bodies[-1])
        return Reply(200, headers, b"whole")

    async def serve(self, exchange: Exchange) -> None:
        """What the app does with a reply."""
        try:
            reply = await self.chain(exchange)
            try:
                if reply.stream is not None:
                    async for _ in reply.stream:
                        await waits(self.rng)
            finally:
                await reply.aclose()
        except GatewayError:
            pass
        finally:
            exchange.finish()


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 1 << 30))
def test_whoever_leaves_everything_is_given_back(seed: int) -> None:
    """Slots, permits, bodies and those who wait for another's answer, whatever the steps fall between."""
    rng = random.Random(seed)

    async def leave(request: Walked, turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        request.cancel()

    async def run() -> None:
        bench = Bench(rng)
        requests, leaving = [], []
        for number in range(REQUESTS):
            method, target = rng.choice(["GET"] * 8 + ["POST", "HEAD"]), b"/%d" % rng.randrange(2)
            exchange = exchanges.plain(f"192.0.2.{number % 4}", method=method, target=target)
            exchange.upstream = "shop"
            requests.append(Walked(bench.serve(exchange)))
            if rng.random() < 0.4:
                leaving.append(asyncio.create_task(leave(requests[-1], rng.randrange(8))))
            if rng.random() < 0.5:
                await asyncio.sleep(0)
        await asyncio.gather(*leaving)
        ends = asyncio.gather(*(request.end for request in requests), return_exceptions=True)
        for end in await asyncio.wait_for(ends, 20):
            assert end is None or isinstance(end, asyncio.CancelledError)
        await until(lambda: not bench.store.flights)  # what is renewed in the background

        assert (bench.slots.in_flight, bench.slots.waiting) == (0, 0)
        assert all(body.closed for body in bench.bodies)

    asyncio.run(run())
