"""Amounts as Stripe counts them: in a currency's smallest unit."""

from __future__ import annotations

from shop_backend.providers import ProviderError

# docs.stripe.com/currencies: amounts are in the smallest unit, which is not always a hundredth.
_WHOLE = frozenset({"BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV"})
_WHOLE |= {"XAF", "XOF", "XPF"}
_THOUSANDTHS = frozenset(["BHD", "JOD", "KWD", "OMR", "TND"])


def smallest_units(cents: int, currency: str) -> int:
    """Our hundredths as Stripe counts.

    Raises:
        ProviderError: the currency has no such part.
    """
    if currency in _WHOLE:
        if cents % 100:
            raise ProviderError(f"{currency} has no hundredths: {cents} can't be charged")
        return cents // 100
    return cents * 10 if currency in _THOUSANDTHS else cents


def cents_of(units: int, currency: str) -> int:
    """What Stripe counts, as our hundredths.

    Raises:
        ProviderError: it is no whole number of them.
    """
    if currency in _WHOLE:
        return units * 100
    if currency in _THOUSANDTHS:
        if units % 10:
            raise ProviderError(f"{units} thousandths of {currency} are no hundredths")
        return units // 10
    return units
