"""Those who take the buyers' money: what the shop asks of every one of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

Outcome = Literal["succeeded", "failed"]
RefundState = Literal["requested", "refunded", "failed"]


@dataclass(frozen=True, slots=True)
class Payment:
    """What a provider says about one payment. `channel` is the provider's name for itself."""

    provider: str
    payment_id: str
    order_id: str
    outcome: Outcome
    amount_cents: int
    currency: str
    channel: str


@dataclass(frozen=True, slots=True)
class Refunded:
    """What a provider says about giving a payment back: done, still under way, or impossible."""

    provider: str
    payment_id: str
    state: RefundState = "refunded"


@dataclass(frozen=True, slots=True)
class Irrelevant:
    """A provider's news about something that changes no order."""

    what: str


News = Payment | Refunded | Irrelevant


@dataclass(frozen=True, slots=True)
class Checkout:
    """Where a buyer pays."""

    checkout_id: str
    url: str


class Forged(Exception):  # noqa: N818 - reads as what it says
    """A callback whose signature is not the provider's."""


class Stale(Forged):
    """A callback signed too long ago, or for a time to come: perhaps a replay."""


class ProviderError(Exception):
    """The provider gave no answer, or not the one asked for; try again later."""


class PaymentProvider(Protocol):
    """Who takes the buyers' money. An `order` is a row of `orders`. Every call may be made again."""

    @property
    def name(self) -> str:
        """As in `orders.provider`, and in the address of its callbacks."""
        ...

    async def checkout(self, order: Mapping[str, Any]) -> Checkout:
        """Open a checkout for an order; again gives the same one, or one that nobody else knows."""
        ...

    async def payments_of(self, order: Mapping[str, Any]) -> Sequence[Payment]:
        """The provider's own word on an order, as things happened."""
        ...

    async def withdraw(self, order: Mapping[str, Any]) -> bool:
        """Ask that the order's checkout be paid no more, where a provider can do that.

        Returns:
            False while a payment that was begun may still be captured.
        """
        ...

    async def refund(self, payment_id: str, amount_cents: int, currency: str) -> RefundState:
        """Give a captured payment back; asked again it changes nothing, and says how it stands."""
        ...

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        """Check a callback's signature and age; raises Forged or Stale."""
        ...

    def read(self, body: str) -> News:
        """What a verified callback says; raises ValueError."""
        ...

    async def close(self) -> None:
        """Close its connections."""
        ...
