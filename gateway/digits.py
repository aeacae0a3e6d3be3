"""Numbers as bytes in decimal: most of those on a request's way are small, and made beforehand."""

from __future__ import annotations

from typing import Final

_SMALL: Final = [b"%d" % number for number in range(1000)]
_THREE: Final = [b"%03d" % number for number in range(1000)]


def digits(number: int) -> bytes:
    """A whole number."""
    return _SMALL[number] if 0 <= number < len(_SMALL) else str(number).encode()


def three(number: int) -> bytes:
    """A whole number from 0 to 999, with three digits."""
    return _THREE[number]


def decimal(number: float) -> bytes:
    """A number from 0 on, to six places; half of the last is rounded up."""
    millionths = int(number * 1e6 + 0.5)
    whole, rest = millionths // 1_000_000, millionths % 1_000_000
    return b"%b.%b%b" % (digits(whole), three(rest // 1000), three(rest % 1000))
