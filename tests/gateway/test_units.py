"""Quantities as operators write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.units import format_duration, parse_duration, parse_rate, parse_size


@given(st.integers(0, 10**9))
def test_durations_survive_being_written_and_read(milliseconds: int) -> None:
    """Formatting loses nothing."""
    assert parse_duration(format_duration(milliseconds / 1000)) == pytest.approx(milliseconds / 1000)


@given(st.integers(1, 10**9), st.integers(1, 1000), st.sampled_from(["second", "minute", "hour", "day"]))
def test_rates_survive_being_written_and_read(amount: int, times: int, unit: str) -> None:
    """Formatting loses nothing."""
    rate = parse_rate(f"{amount}/{min(times, 31)} {unit}s")
    assert parse_rate(str(rate)) == rate
    assert rate.amount == amount


@pytest.mark.parametrize("value", ["", "5", "5x", "-1s", -1, True, None, "1e3s", "s", [5], "9" * 400 + "s"])
def test_bad_durations(value: object) -> None:
    """Each is refused with an example of what is meant."""
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(value)


@pytest.mark.parametrize("value", ["", "x", "1 XB", -1, True, 1.5])
def test_bad_sizes(value: object) -> None:
    """Each is refused with an example of what is meant."""
    with pytest.raises(ValueError, match="not a size"):
        parse_size(value)


@pytest.mark.parametrize(
    "value", ["", "0/second", "5/fortnight", "5/0 seconds", 5, None, "5/second; 6/minute"]
)
def test_bad_rates(value: object) -> None:
    """Each is refused with a reason."""
    with pytest.raises(ValueError, match="rate"):
        parse_rate(value)
