"""Schedules: repeatable by their seed, and every kind of fault comes up."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.schedule import KILLED, KINDS, WIRED, draw, draw_kills

seeds = st.integers(0, 2**32)


@given(seeds, st.floats(10, 120))
def test_a_seed_is_a_schedule(seed: int, seconds: float) -> None:
    """The same every time, in order of time, within the sale; what needs a proxy only where there is one."""
    schedule = draw(seed, seconds)
    times = [fault.at for fault in schedule.faults]

    assert schedule == draw(seed, seconds)
    assert times == sorted(times)
    assert all(0 < at < seconds for at in times)
    assert len(times) >= seconds / 5.5 - 2
    assert {(fault.kind, fault.target) for fault in schedule.faults} <= set(KINDS)
    assert schedule.wired or not {fault.kind for fault in schedule.faults} & set(WIRED)


def test_fifty_seeds_have_every_kind() -> None:
    """Each fault several times among the seeds that are run before a release."""
    found = Counter((fault.kind, fault.target) for seed in range(1, 51) for fault in draw(seed, 60.0).faults)

    assert set(found) == set(KINDS)
    assert min(found.values()) >= 10


@given(seeds, st.integers(1, 20))
def test_kills_are_shared_out_evenly(seed: int, times: int) -> None:
    """Each process is killed as often as asked."""
    schedule = draw_kills(seed, times)

    assert Counter(fault.target for fault in schedule.faults) == dict.fromkeys(KILLED, times)
    assert {fault.kind for fault in schedule.faults} == {"kill"}
    assert schedule.faults[-1].at < schedule.seconds
