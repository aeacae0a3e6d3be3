"""What the master remembers for the console's curves."""

from __future__ import annotations

import itertools
from typing import Any

from gateway.admin.history import LENGTH, STEP, History
from tests.clock import Clock
from tests.waiting import until


def point(at: float) -> Any:
    """A point of that moment; what else stands in it is nobody's business here."""
    return {"at": at}


def test_it_is_bounded_however_often_somebody_looks() -> None:
    """A point each three seconds at most, the newest of three minutes; none is made to be thrown away."""
    clock = Clock()
    history = History(clock)
    made = []

    def make() -> Any:
        made.append(clock())
        return point(clock())

    for _ in range(10 * LENGTH):
        history.take(make)
        clock.advance(STEP / 4)

    times = [one["at"] for one in history.points]
    assert len(times) == LENGTH
    assert times == made[-LENGTH:]
    assert all(later - earlier >= STEP for earlier, later in itertools.pairwise(times))


async def test_it_grows_while_nobody_looks(one_gateway: Any) -> None:
    """Who opens the console first finds it, and only with a token."""
    assert (await one_gateway.admin("GET", "/api/history", token=None)).status_code == 401

    async def points() -> Any:
        return (await one_gateway.admin("GET", "/api/history")).json()["points"]

    async def two() -> bool:
        return len(await points()) > 1

    await one_gateway.fresh("/nobody-is-behind-it")
    before = await one_gateway.metric("tidegate_requests_total")
    await until(two)

    async def counted() -> bool:
        newest = (await points())[-1]
        assert newest["upstreams"].keys() == {"shop"}
        assert newest["denied"] == {"all": 0}  # a curve from the first moment on
        return sum(newest["requests"].values()) >= before > 0

    await until(counted)
