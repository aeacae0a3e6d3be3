"""A cut shows whether there was a queue: in proportion, or not at all, or not beyond chance."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policies.trial import DEEP, EXPLORE_EVERY, SELDOM, Trial


def _cut(depth: float, *, latency: float = 2.0, error: float = 0.0, exploring: bool = False) -> Trial:
    trial = Trial()
    trial.begin(100, 100 * depth, latency, error, exploring=exploring)
    return trial


@given(latency=st.floats(0.5, 20), depth=st.floats(0.1, 0.95), exploring=st.booleans())
def test_latency_in_proportion_has_paid_and_latency_as_before_has_not(
    latency: float, depth: float, exploring: bool
) -> None:
    """Whatever it was before, and however deep the cut."""
    assert _cut(depth, latency=latency, exploring=exploring).judge(latency * depth, 0.0) == "paid"
    assert _cut(depth, latency=latency, exploring=exploring).judge(latency, 0.0) == "in vain"


def test_a_look_that_may_be_chance_has_not_paid() -> None:
    """Else the limit would go down by a quarter, again and again, by throws of dice."""
    trial = _cut(0.75, latency=1.0, error=0.1, exploring=True)
    assert not trial.clear(0.85, 0.1)
    assert trial.judge(0.85, 0.1) == "unclear"
    assert _cut(0.75, latency=1.0, error=0.01, exploring=True).judge(0.85, 0.01) == "paid"


def test_a_deep_cut_in_vain_needs_no_more_evidence() -> None:
    """It is taken back even where its last step alone may be chance."""
    trial = _cut(0.9, latency=1.5, error=0.2)
    assert trial.judge(1.5, 0.2) == "unclear"
    trial.deepen(0.9 * DEEP * 100)
    assert trial.judge(1.3, 0.2) == "in vain"
    assert trial.limit == 100


@given(latency=st.floats(0.5, 20), depth=st.floats(0.1, 0.95), worse=st.floats(1.31, 10))
def test_latency_that_rose_tells_nothing_of_the_cut(latency: float, depth: float, worse: float) -> None:
    """An upstream that lost most of itself meanwhile has a queue: its latency is not to be believed."""
    assert _cut(depth, latency=latency).judge(worse * latency, 0.0) is None


def test_it_is_judged_once() -> None:
    """And not at all when it was ended, or when there was none."""
    trial = _cut(0.75)
    assert trial.judge(1.0, 0.0) == "paid"
    assert trial.judge(1.0, 0.0) is None
    trial = _cut(0.75)
    trial.end()
    assert trial.judge(1.0, 0.0) is None
    assert Trial().judge(1.0, 0.0) is None


@pytest.mark.parametrize("queue", [True, False])
def test_few_answers_of_an_upstream_that_varies_are_rarely_misjudged(queue: bool) -> None:
    """200 exponential answers before a look and after it: one verdict in 20 may be wrong, at most."""
    rng = random.Random(1)
    n, wrong = 200, 0
    for _ in range(1000):
        before = sum(rng.expovariate(1) for _ in range(n)) / n
        after = sum(rng.expovariate(1 / (0.75 if queue else 1)) for _ in range(n)) / n
        verdict = _cut(0.75, latency=before, error=n**-0.5, exploring=True).judge(after, after * n**-0.5)
        wrong += verdict == ("in vain" if queue else "paid")
    assert wrong < 120 if queue else wrong < 50


@given(now=st.floats(0, 1e6), base=st.floats(0, 10))
def test_it_is_time_to_look_once_in_each_spell(now: float, base: float) -> None:
    """And seldom where each look takes long."""
    trial = Trial()
    assert trial.due(now, base)
    trial.confirm(now)
    assert not trial.due(now, base)
    longest = max(EXPLORE_EVERY, 2 * SELDOM * base)
    assert trial.due(now + longest, base)
    assert not trial.due(now // EXPLORE_EVERY * EXPLORE_EVERY, base)
    trial.mistrust()
    assert trial.due(now, base)
