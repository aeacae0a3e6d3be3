"""Short chaos schedules on the whole stack; `python -m tests.chaos --seeds 1-50` runs the long ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.run import run
from tests.chaos.schedule import Fault, Schedule

# Chosen rather than drawn: in ten seconds, each store and each process of ours has to be hit.
_PLAIN = (
    Fault(1.5, "kill", "shop"),
    Fault(2.5, "kill", "redis-durable"),
    Fault(4.0, "kill", "worker"),
    Fault(5.5, "kill", "postgres"),
    Fault(7.0, "storm", "callbacks"),
    Fault(7.5, "kill", "gateway-worker"),
)
_WIRED = (
    Fault(1.5, "stop", "worker", lasts=2.0),
    Fault(2.0, "lose", "redis-durable"),
    Fault(4.0, "hole", "redis-durable", lasts=1.0),
    Fault(5.0, "clock", "gateway", lasts=3.0, amount=3600.0),
    Fault(6.0, "flush", "redis-volatile"),
    Fault(6.5, "slow", "redis-volatile", lasts=2.0, amount=0.05),
    Fault(7.0, "stop", "redis-durable", lasts=1.0),
)


@pytest.mark.slow
@pytest.mark.timeout(300)  # a sale, its faults and what follows take minutes on a machine that others use
@pytest.mark.parametrize(
    "schedule", [Schedule(0, 10.0, False, _PLAIN), Schedule(0, 10.0, True, _WIRED)], ids=["plain", "wired"]
)
async def test_the_shop_keeps_its_word(schedule: Schedule, short_tmp: Path) -> None:
    """Nothing accepted is lost, sold twice or paid in vain, whatever dies during the sale."""
    outcome = await run(schedule, short_tmp / f"chaos-{schedule.wired}")

    assert outcome.violations == []
    assert sum(outcome.done.values()) == len(schedule.faults)
    assert outcome.looks
    assert outcome.counts["order ok"]
    assert outcome.counts["delivered"]
