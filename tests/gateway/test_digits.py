"""Numbers as bytes: what is made beforehand says what formatting says."""

from __future__ import annotations

from decimal import ROUND_HALF_UP, Decimal

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.digits import decimal, digits, three


@given(st.integers())
@example(0)
@example(999)
@example(1000)
@example(-1)
def test_whole_numbers(number: int) -> None:
    """Small or not."""
    assert digits(number) == b"%d" % number


@given(st.integers(0, 999))
def test_three_digits(number: int) -> None:
    """With zeros before."""
    assert three(number) == b"%03d" % number


@given(st.floats(0, 1e9, allow_nan=False))
@example(0.0)
@example(0.0000005)
@example(0.9999996)
@example(1.000001)
def test_six_places(number: float) -> None:
    """Of what a double can tell; nearer to a half than that, either way is right."""
    said = Decimal(decimal(number).decode())
    assert len(decimal(number).partition(b".")[2]) == 6
    exact = Decimal(number).quantize(Decimal("0.000001"), ROUND_HALF_UP)
    off = abs(said - exact)
    assert off <= Decimal("0.000001") if number < 1e6 else off <= Decimal("0.0001")
    assert abs(said - Decimal(number)) <= Decimal("0.0000005") + Decimal(number) * Decimal(2) ** -50
