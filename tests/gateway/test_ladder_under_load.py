"""What the ladder gives up before a crowd: gate, pressure and ladder together, minutes in virtual time."""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from dataclasses import dataclass, field

from gateway.config import Config, Priority
from gateway.errors import GatewayError
from gateway.exchange import Exchange, Handler, Reply, compose
from gateway.ladder import Ladder
from gateway.policies.degrade import Degrade, build_fallback, nothing
from gateway.policies.load_shed import LoadShed
from gateway.policies.slots import Slots
from gateway.pressure import measured, on_ladder
from gateway.state.switches import LiveSwitches, work_out
from tests.gateway import exchanges
from tests.gateway.virtual_time import run

CONFIG = Config.model_validate(
    {
        "upstreams": {
            "shop": {"servers": ["http://127.0.0.1:9"], "concurrency": {"min": 4, "max": 400, "initial": 40}}
        },
        "features": {
            "recommendations": {"fallback": {"json": {"items": []}}},
            "profile": {"fallback": {"json": {"tags": []}}},
        },
        "degradation": {
            "steps": [
                {"name": "elevated", "off": ["recommendations"]},
                {"name": "high", "off": ["profile"]},
                {"name": "emergency", "only": "critical"},
            ],
            "climb": {"pressure": 0.8, "after": "3s"},
            "descend": {"pressure": 0.5, "after": "10s"},
        },
        "routes": [{"match": "/**", "upstream": "shop"}],
    }
)
SERVERS, SERVICE = 20, 0.05  # the upstream works on so many at once, for so many seconds each
CAPACITY = SERVERS / SERVICE  # requests a second
TICK = 0.25  # seconds between two looks at the pressure, as the master's

Mix = dict[tuple[Priority, "str | None"], float]  # shares of what is offered
SALE: Mix = {
    ("critical", None): 0.04,
    ("normal", None): 0.66,
    ("optional", "recommendations"): 0.2,
    ("optional", "profile"): 0.1,
}


@dataclass
class Told:
    """What came of it.

    Attributes:
        outcomes: by priority, of those who came in the second: answered, degraded, or the error's name.
        steps: the ladder's, by the time at which it was taken.
    """

    outcomes: defaultdict[int, Counter[tuple[str, str]]] = field(default_factory=lambda: defaultdict(Counter))
    steps: list[tuple[float, int]] = field(default_factory=list)

    def count(self, priority: str, what: str, since: float = 0, until: float = 1e9) -> int:
        """How many who came in that time ended so."""
        return sum(n[priority, what] for at, n in self.outcomes.items() if since <= at < until)


class World:
    """One worker before an upstream of fixed capacity, and the master that minds the ladder."""

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        upstream = CONFIG.upstreams["shop"]
        assert upstream.concurrency is not None
        self.gate = Slots(upstream.concurrency, self.loop.time)
        self.ladder = Ladder(CONFIG.degradation, self.loop.time)
        self.switches = LiveSwitches()
        self.told = Told()
        self._rng = random.Random(5)
        self._servers = asyncio.Semaphore(SERVERS)
        self._walks: set[asyncio.Task[None]] = set()
        self._defects: list[BaseException | None] = []

    async def run(self, *loads: tuple[float, Mix, float]) -> Told:
        """Offer loads one after the other, open loop: each a multiple of capacity, a mix, and seconds."""
        minding = asyncio.create_task(self._mind())
        for times, mix, seconds in loads:
            ways = {(priority, feature): self._way(priority, feature) for priority, feature in mix}
            end = self.loop.time() + seconds
            while self.loop.time() < end:
                await asyncio.sleep(self._rng.expovariate(times * CAPACITY))
                (kind,) = self._rng.choices(list(mix), list(mix.values()))
                task = asyncio.create_task(self._one(kind[0], ways[kind]))
                self._walks.add(task)
                task.add_done_callback(self._ended)
        await asyncio.gather(*self._walks)
        minding.cancel()
        assert self._defects == []
        return self.told

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._walks.discard(task)
        if task.exception() is not None:
            self._defects.append(task.exception())

    def _way(self, priority: Priority, feature: str | None) -> Handler:
        """In the order of pipeline.py."""
        settings = CONFIG.features[feature].fallback if feature else None
        fallback = build_fallback(settings) if settings else nothing
        return compose(
            Degrade(feature, priority, self.switches, fallback),
            LoadShed(self.gate, priority),
            then=self._serve,
        )

    async def _serve(self, exchange: Exchange) -> Reply:
        asked = self.loop.time()
        async with self._servers:
            await asyncio.sleep(self._rng.uniform(0.5, 1.5) * SERVICE)
        exchange.upstream_seconds = self.loop.time() - asked
        return Reply(200, [])

    async def _one(self, priority: str, way: Handler) -> None:
        exchange = exchanges.plain()
        second = int(self.loop.time())
        try:
            await way(exchange)
            what = "degraded" if exchange.outcome == "degraded" else "answered"
        except GatewayError as error:
            what = type(error).__name__
        finally:
            exchange.finish()
        self.told.outcomes[second][priority, what] += 1

    async def _mind(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self.gate.pressure()
            before = self.ladder.step
            pressures = measured(
                CONFIG.degradation.signals,
                in_flight=self.gate.fullness,
                queue_delay=self.gate.queue_delay / self.gate.settings.target,
                critical_wait=self.gate.critical_wait,
                lag=0.0,
                cpu=0.0,
                sick=False,
            )
            step = self.ladder.observe(on_ladder(pressures, CONFIG.degradation, before))
            if step != before:
                self.told.steps.append((self.loop.time(), step))
                self.switches.apply(work_out(CONFIG, step, lambda *_: None))


def offer(*loads: tuple[float, Mix, float]) -> Told:
    async def main() -> Told:
        return await World().run(*loads)

    return run(main())


def test_ten_times_too_many_cost_the_optional_and_waste_nothing() -> None:
    """30 s at 10 times capacity: features off one by one, the upstream busy, no critical request lost.

    Normal requests go on getting the slots that the critical leave: no rung refuses them all.
    """
    told = offer((0.3, SALE, 10), (10, SALE, 30), (0.3, SALE, 40))

    assert [step for _, step in told.steps] == [1, 2, 1, 0]  # up, and down, and no flapping
    assert told.steps[1][0] < 10 + 7  # seconds: two dwell times and the gateway's own pace
    assert told.steps[3][0] <= 40 + 2 * 10 + 2 * TICK  # and back, by twice the descent's and two looks

    assert sum(told.count("critical", bad) for bad in ("Overloaded", "FeatureOff")) == 0
    for second in range(12, 40):
        assert told.count("normal", "answered", second, second + 1) > 0.3 * CAPACITY
    good = sum(told.count(p, "answered", 12, 40) for p in ("critical", "normal", "optional"))
    assert good > 0.95 * CAPACITY * 28
    assert told.count("optional", "answered", 17, 40) == 0  # their fallbacks instead
    assert told.count("optional", "answered", 62) > 0  # as before


def test_critical_requests_alone_are_too_many() -> None:
    """When the critical find no slot themselves, nothing else is served; and that ends as soon as they do."""
    rush: Mix = {("critical", None): 0.5, ("normal", None): 0.5}
    told = offer((6, rush, 30), (0.3, SALE, 40))

    assert [step for _, step in told.steps] == [1, 2, 3, 2, 1, 0]
    assert told.steps[2][0] < 10
    assert told.count("normal", "answered", 11, 30) == 0
    assert told.count("critical", "answered", 11, 30) > 0.9 * CAPACITY * 19
    # Each rung takes two looks, and whom it lets in again meets a slow start: one look may find some waiting.
    assert told.steps[-1][0] <= 30 + 3 * (10 + 2 * TICK)


def test_a_full_upstream_that_keeps_up_refuses_nobody_by_route() -> None:
    """A quarter more than fits for five minutes: the last rung is not for that."""
    told = offer((1.25, SALE, 300))
    assert [step for _, step in told.steps if step > 2] == []
    assert told.count("critical", "Overloaded") == 0
