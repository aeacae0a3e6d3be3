"""The ladder climbs and comes down one step at a time, and only when it is sure."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Degradation
from gateway.ladder import Ladder

SETTINGS = Degradation.model_validate(
    {
        "steps": [
            {"name": "elevated", "off": ["recommendations"]},
            {"name": "high", "off": ["profile"]},
            {"name": "emergency", "only": "critical"},
        ],
        "climb": {"pressure": 0.8, "after": "3s"},
        "descend": {"pressure": 0.5, "after": "30s"},
    }
)
# Quarters of a second are exact in binary, so that "3 s have passed" is no matter of rounding.
GAPS = st.integers(0, 160).map(lambda quarters: quarters / 4)
PRESSURES = st.one_of(
    st.sampled_from([0.0, 0.49, 0.5, 0.79, 0.8, 2.0]), st.floats(0, 3), st.just(float("nan"))
)


class Time:
    now = 0.0


def held(history: list[tuple[float, float]], asks: Callable[[float], bool], dwell: float) -> bool:
    """Whether the trailing run of samples that ask for a step spans the dwell time."""
    run = [at for at, _ in itertools.takewhile(lambda sample: asks(sample[1]), reversed(history))]
    return bool(run) and run[0] - run[-1] >= dwell


def ladder_at(time: Time) -> Ladder:
    return Ladder(SETTINGS, lambda: time.now)


@given(st.lists(st.tuples(GAPS, PRESSURES), max_size=60), st.integers(0, 3))
def test_it_moves_exactly_when_pressure_was_held(samples: list[tuple[float, float]], start: int) -> None:
    """A step is taken if and only if every sample since the last one, over the dwell time, asked for it."""
    time = Time()
    ladder = Ladder(SETTINGS, lambda: time.now, step=start)
    history: list[tuple[float, float]] = []  # since the last step, that sample included
    for gap, pressure in samples:
        time.now += gap
        before = ladder.step
        history.append((time.now, pressure))
        expected = before + held(history, lambda p: p >= 0.8, 3) - held(history, lambda p: p < 0.5, 30)
        expected = min(max(expected, 0), 3)

        assert ladder.observe(pressure) == expected
        if expected != before:
            history = [(time.now, pressure)]


def test_a_pulse_goes_up_and_all_the_way_down() -> None:
    """Each further step takes the dwell time again, both ways; the middle band holds still."""
    time = Time()
    ladder = ladder_at(time)

    def after(seconds: float, pressure: float) -> int:
        for _ in range(int(seconds * 4)):
            time.now += 0.25
            ladder.observe(pressure)
        return ladder.step

    assert after(3.0, 0.9) == 0
    assert after(0.25, 0.9) == 1
    assert after(3, 0.9) == 2
    assert after(3, 0.9) == 3
    assert after(300, 0.6) == 3
    assert after(30, 0.1) == 3
    assert after(0.25, 0.1) == 2
    assert after(29.75, 0.1) == 2
    assert after(0.25, 0.1) == 1
    assert after(30, 0.1) == 0


def test_a_ladder_that_replaces_another_goes_on_from_its_step() -> None:
    """After a reload with fewer steps the step is the highest there is."""
    assert Ladder(SETTINGS, step=2).step == 2
    assert Ladder(Degradation(), step=2).step == 0


def test_without_steps_it_stays_at_normal() -> None:
    """No steps in the config: pressure moves nothing."""
    time = Time()
    ladder = Ladder(Degradation(), lambda: time.now)
    for _ in range(10):
        time.now += 10
        assert ladder.observe(5.0) == 0
