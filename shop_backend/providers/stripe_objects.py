"""What Stripe's API and events are made of, as far as the shop reads it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shop_backend.providers import ProviderError, RefundState

_REFUND_STATES: Mapping[str, RefundState] = {
    "succeeded": "refunded",
    "pending": "requested",
    "requires_action": "requested",
    "failed": "failed",
    "canceled": "failed",
}

_Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_]{1,100}$")]
_Amount = Annotated[int, Field(ge=0, lt=2**53)]


class Object(BaseModel):
    """One of Stripe's objects: read as it is, members we don't know left out."""

    model_config = ConfigDict(strict=True, extra="ignore")


class Session(Object):
    """A Checkout Session: where an order is paid."""

    id: _Id
    url: str | None = None
    client_reference_id: str | None = None
    payment_status: Literal["paid", "unpaid", "no_payment_required"]
    payment_intent: _Id | None = None
    amount_total: _Amount | None = None
    currency: str | None = None


class Intent(Object):
    """A PaymentIntent: a capture, or a try at one."""

    id: _Id
    amount: _Amount
    currency: str
    status: str | None = None
    metadata: dict[str, str] = {}


class Refund(Object):
    """A refund of a PaymentIntent."""

    id: _Id
    payment_intent: _Id | None = None
    status: str | None = None


class Event(Object):
    """What a webhook brings."""

    type: str
    data: dict[str, Any]


_T = TypeVar("_T", bound=Object)


def valid(model: type[_T], answer: object) -> _T:
    """An answer as the object it should be.

    Raises:
        ProviderError: it is none; the message says where, not what.
    """
    try:
        return model.model_validate(answer)
    except ValidationError as error:
        places = ", ".join(".".join(map(str, e["loc"])) or "body" for e in error.errors())
        raise ProviderError(f"not {model.__name__} as Stripe documents it: {places}") from error


def refund_state(refund: Refund) -> RefundState:
    """How a refund stands.

    Raises:
        ProviderError: its status is none that Stripe documents.
    """
    state = _REFUND_STATES.get(refund.status or "")
    if state is None:
        raise ProviderError(f"refund {refund.id} is in the unknown status {refund.status!r}"[:200])
    return state
