"""One sale at one shop: the crowd comes, and what it got is counted."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

from benchmarks.orders.buyers import Bought, Crowd, Journal
from benchmarks.orders.goods import SKU

WARM_UP = 5.0  # seconds at the beginning that are not counted


class Shop(Protocol):
    """Where buyers go."""

    @property
    def url(self) -> str:
        """Its door."""
        ...

    def sessions(self, count: int) -> list[str]:
        """Tokens of so many users."""
        ...

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU so far, by service."""
        ...


@dataclass
class Outcome:
    """What came of a sale.

    Attributes:
        seconds: how long orders were taken, warm-up included.
        began: the monotonic clock at the beginning.
        bought: every accepted order.
        answers: how often which answer came.
        cpu: seconds of CPU by service while orders were taken; `buyers` are the load itself.
    """

    seconds: float
    began: float
    bought: list[Bought]
    answers: Counter[str]
    cpu: dict[str, float] = field(default_factory=dict)

    @property
    def delivered(self) -> list[Bought]:
        """Orders whose keys their buyers saw."""
        return [each for each in self.bought if each.delivered is not None]

    @property
    def per_minute(self) -> float:
        """Orders delivered in a minute, after the warm-up and while buyers came."""
        counted = [
            each for each in self.delivered if WARM_UP <= (each.delivered or 0.0) - self.began < self.seconds
        ]
        return len(counted) * 60 / (self.seconds - WARM_UP)

    def curve(self) -> list[int]:
        """Orders delivered in each second from the beginning."""
        return self._by_second([each.delivered for each in self.bought])

    def paid_curve(self) -> list[int]:
        """Orders paid in each second from the beginning."""
        return self._by_second([each.paid for each in self.bought])

    def _by_second(self, moments: Sequence[float | None]) -> list[int]:
        seconds = Counter(int(moment - self.began) for moment in moments if moment is not None)
        return [seconds[n] for n in range(max(seconds, default=0) + 1)]

    def took(self) -> list[float]:
        """Seconds from order to key, smallest first."""
        return sorted((each.delivered or 0.0) - each.ordered for each in self.delivered)


async def hold(shop: Shop, *, at_once: int, seconds: float, users: int) -> Outcome:
    """Let the crowd come for so long."""
    tokens = await asyncio.to_thread(shop.sessions, users)
    journal = Journal()
    crowd = Crowd(shop.url, SKU, tokens, journal)
    spent: dict[str, float] = {}

    async def watch() -> None:
        before = {**await asyncio.to_thread(shop.cpu), "buyers": time.process_time()}
        await asyncio.sleep(seconds)
        after = {**await asyncio.to_thread(shop.cpu), "buyers": time.process_time()}
        spent.update({name: after[name] - before.get(name, 0.0) for name in after})

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        group.create_task(watch())
        group.create_task(crowd.come(at_once, seconds))
    return Outcome(seconds, began, journal.bought, journal.answers, spent)
