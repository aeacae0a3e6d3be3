"""A turn of the loop is timed, however idle or busy the loop is."""

from __future__ import annotations

import asyncio
from typing import Any

from gateway.loop_lag import LoopLag


async def test_it_times_a_turn_and_forgets_slowly() -> None:
    """What runs within a turn is in the measure, on a clock that moves by hand; then it fades."""
    now, told = 0.0, []
    done = asyncio.Event()

    def tell(seconds: float, usual: float) -> None:
        told.append(seconds)
        assert usual == lag.usual
        if len(told) == 3:
            done.set()

    def work() -> None:
        nonlocal now
        now += 0.3

    lag = LoopLag(tell, lambda: now)
    asyncio.get_running_loop().call_soon(work)  # runs in the turn that is being timed
    await done.wait()
    lag.stop()
    assert told[0] == 0.3
    assert told[0] > told[1] > told[2] > 0
    assert lag.seconds == told[2]
    assert 0 < lag.usual < lag.seconds  # one long turn among three


async def test_stopped_it_rests(until: Any) -> None:
    """Nothing of it stays in the loop."""
    told: list[tuple[float, float]] = []
    lag = LoopLag(lambda *both: told.append(both))
    lag.stop()
    turns = 0

    def ten_turns() -> bool:
        nonlocal turns
        turns += 1
        return turns > 3

    await until(ten_turns)
    assert not told
