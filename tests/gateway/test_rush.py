"""Ten times what an upstream can take, at once: gate and limit together, in virtual time."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field

import pytest

from benchmarks.overload.backend import Capacity
from benchmarks.overload.findings import percentile
from gateway.config import Concurrency, Priority
from gateway.errors import Overloaded
from gateway.exchange import Exchange, Reply, compose
from gateway.policies.load_shed import LoadShed
from gateway.policies.slots import Slots
from tests.gateway import exchanges
from tests.gateway.virtual_time import run

SLOTS, SERVICE = 16, 0.1  # the upstream works on so many at once, for so many seconds each
RATE = SLOTS / SERVICE  # requests a second
MIX: dict[Priority, float] = {"critical": 0.05, "normal": 0.65, "optional": 0.3}
USERS, GREEDY = 100, 50  # the first user sends 50 times as many as any other


@dataclass
class Told:
    """Each request: when it came, whose, whether it was answered, and how long that took."""

    rows: list[tuple[float, Priority, int, bool, float]] = field(default_factory=list)

    def of(self, since: float, until: float, priority: Priority | None = None) -> list[tuple[bool, float]]:
        return [
            (ok, took) for at, p, _, ok, took in self.rows if since <= at < until and priority in {None, p}
        ]

    def answered(self, user: int, since: float, until: float) -> int:
        return sum(ok for at, p, u, ok, _ in self.rows if since <= at < until and u == user and p == "normal")


async def _offer(
    degrading: float,
    *loads: tuple[float, float],
    slots_behind: int = SLOTS,
    service: float = SERVICE,
    seed: int = 3,
) -> Told:
    """Open loop: each load is a multiple of the capacity, and seconds."""
    loop, rng, told = asyncio.get_running_loop(), random.Random(seed), Told()
    slots = Slots(Concurrency(min=4, max=400), loop.time)
    capacity = Capacity(slots_behind, service, degrading)

    async def serve(exchange: Exchange) -> Reply:
        asked = loop.time()
        await asyncio.sleep(capacity.take(asked) - asked)
        capacity.give()
        exchange.upstream_seconds = loop.time() - asked
        return Reply(200, [])

    ways = {priority: compose(LoadShed(slots, priority), then=serve) for priority in MIX}

    async def walk(priority: Priority, user: int) -> None:
        came = loop.time()
        exchange = exchanges.plain(f"10.0.0.{user}", started=came)
        exchange.route = f"/{priority}"
        try:
            await ways[priority](exchange)
            answered = True
        except Overloaded:
            answered = False
        finally:
            exchange.finish()
        told.rows.append((came, priority, user, answered, loop.time() - came))

    async with asyncio.TaskGroup() as walks:
        for times, seconds in loads:
            end = loop.time() + seconds
            while loop.time() < end:
                await asyncio.sleep(rng.expovariate(times * slots_behind / service))
                (priority,) = rng.choices(list(MIX), list(MIX.values()))
                (user,) = rng.choices(range(USERS), [GREEDY] + [1] * (USERS - 1))
                walks.create_task(walk(priority, user))
    assert (slots.in_flight, slots.waiting) == (0, 0)
    return told


@pytest.mark.parametrize(
    ("degrading", "goodput", "late"), [(0.0, 0.955, 2.0), (0.02, 0.93, 2.0)], ids=["fixed", "degrading"]
)
def test_a_rush_costs_the_critical_nothing_and_the_upstream_no_work(
    degrading: float, goodput: float, late: float
) -> None:
    """From the first moment on: nobody critical is refused or late, the upstream stays busy and not fuller.

    In half a minute at 10 times its capacity; of an upstream too that gets slower the more it holds. Right
    after, everybody is served (at a load whose bursts stay below what the optional may have of the limit).
    """
    told = run(_offer(degrading, (0.3, 10), (10, 30), (0.2, 10)))
    calm = percentile((took for ok, took in told.of(0, 10) if ok), 0.99)
    critical = told.of(10, 40, "critical")

    assert [ok for ok, _ in critical if not ok] == []
    assert percentile((took for _, took in critical), 0.99) < late * calm
    assert sum(ok for ok, _ in told.of(10, 40)) > goodput * RATE * 30
    assert all(ok for ok, _ in told.of(0, 10))
    assert all(ok for ok, _ in told.of(41, 50))


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize(("slots_behind", "service"), [(8, 0.05), (16, 0.05), (16, 0.1), (64, 0.1)])
def test_the_first_second_is_no_worse(slots_behind: int, service: float, seed: int) -> None:
    """A slow start opens little more than what is proven: no queue, and nobody critical late in it.

    Of an upstream that degrades, where each request too many costs all others.
    """
    loads = (0.3, 6), (5, 3)
    told = run(_offer(0.02, *loads, slots_behind=slots_behind, service=service, seed=seed))
    critical = told.of(6, 9, "critical")
    assert all(ok for ok, _ in critical)
    assert max(took for _, took in critical) < 4.5 * service
    assert sum(ok for ok, _ in told.of(6, 9)) > 0.85 * 3 * slots_behind / service


def test_the_greedy_do_not_crowd_out_the_others() -> None:
    """One of a hundred asks 50 times as often: it gets what the others get, not 50 times as much."""
    told = run(_offer(0.0, (0.3, 5), (10, 30)))
    others = sorted(told.answered(user, 6, 35) for user in range(1, USERS))
    assert told.answered(0, 6, 35) < 2 * others[len(others) // 2]
    assert others[0] > 0


@pytest.mark.parametrize("cost", [0.0001, 0.0005], ids=["busy", "starved"])
def test_a_rush_onto_a_healthy_upstream_refuses_nobody(cost: float) -> None:
    """64 clients at once, before an upstream that answers at once: what is late is the gateway's own loop.

    Each request in flight makes a turn of it longer, and it is timed as the worker's is.
    """

    async def main() -> tuple[int, int]:
        loop = asyncio.get_running_loop()
        slots = Slots(Concurrency(min=4, max=10_000), loop.time)
        limiter = slots.limiter
        assert limiter is not None
        answered = refused = 0

        async def time_the_loop() -> None:
            while True:
                turn = cost * slots.in_flight
                limiter.stall = max(turn, 0.8 * limiter.stall)
                limiter.own_delay += 0.3 * (turn - limiter.own_delay)
                await asyncio.sleep(0.05)

        async def ask() -> None:
            nonlocal answered, refused
            lane = slots.lanes["normal"]
            try:
                if not lane.try_enter():
                    await lane.wait("u")
            except Overloaded:
                refused += 1
                await asyncio.sleep(0.001)
                return
            generation, asked = limiter.generation, loop.time()
            await asyncio.sleep(0.0003 + cost * slots.in_flight)
            limiter.answered(generation, "/x", loop.time() - asked, slots.in_flight)
            lane.leave()
            answered += 1

        async def client(until: float) -> None:
            while loop.time() < until:
                await ask()

        timing = asyncio.create_task(time_the_loop())
        for _ in range(3):
            for _ in range(200):
                await asyncio.sleep(0.02)
                await ask()
            await asyncio.gather(*(client(loop.time() + 0.7) for _ in range(64)))
        timing.cancel()
        return answered, refused

    answered, refused = run(main())
    assert refused < 0.01 * answered
