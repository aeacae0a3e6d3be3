"""Cents as people write them."""

from __future__ import annotations

_SIGNS = {"EUR": "€", "USD": "$", "GBP": "£"}


def money(cents: int, currency: str) -> str:
    """E.g. `€9.99`; a currency without a sign of its own goes by its code, `CHF 9.99`."""
    sign = _SIGNS.get(currency, f"{currency} ")
    return f"{sign}{cents // 100:,}.{cents % 100:02d}"
