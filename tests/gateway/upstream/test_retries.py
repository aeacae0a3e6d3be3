"""The retry budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.upstream.retries import FLOOR, WINDOW, RetryBudget


@given(
    share=st.floats(0, 1),
    steps=st.lists(st.tuples(st.floats(0, 8), st.integers(0, 30), st.integers(0, 30)), max_size=30),
)
def test_the_budget_is_never_overdrawn(share: float, steps: list[tuple[float, int, int]]) -> None:
    """In every window of ours, retries stay within floor + share of the requests of two windows."""
    now = 0.0
    budget = RetryBudget(share, clock=lambda: now)
    requests: dict[int, int] = {}
    retries: dict[int, int] = {}
    for pause, asked, wanted in steps:
        now += pause
        window = int(now // WINDOW)
        for _ in range(asked):
            budget.request(now)
        requests[window] = requests.get(window, 0) + asked
        retries[window] = retries.get(window, 0) + sum(budget.try_retry() for _ in range(wanted))
        allowed = FLOOR + share * (requests[window] + requests.get(window - 1, 0))
        assert retries[window] <= (allowed if share else 0)


def test_the_floor_is_there_and_comes_back() -> None:
    """A quiet upstream has its few retries, and two windows later has them again."""
    now = 0.0
    budget = RetryBudget(0.2, clock=lambda: now)
    assert [budget.try_retry() for _ in range(FLOOR + 1)] == [True] * FLOOR + [False]
    now = 2 * WINDOW
    assert budget.try_retry()


def test_a_share_of_none_is_none() -> None:
    """`budget: 0` switches retries off."""
    budget = RetryBudget(0, clock=lambda: 0.0)
    budget.request(0.0)
    assert not budget.try_retry()
