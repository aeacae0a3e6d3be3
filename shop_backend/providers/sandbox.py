"""The sandbox provider, as a PaymentProvider: its merchant API over HTTP, its callbacks verified."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from shop_backend.config import Settings
from shop_backend.errors import SetupError
from shop_backend.http_client import HttpClient, NoAnswer
from shop_backend.providers import (
    Checkout,
    Forged,
    News,
    Payment,
    ProviderError,
    Refunded,
    RefundState,
    Stale,
)

_AT_ONCE = 16  # calls under way
_TIMEOUT = 5.0  # seconds
_MAX_ANSWER = 1024 * 1024  # bytes
_TOLERANCE = 300.0  # seconds, as Standard Webhooks recommends and its library enforces
_Id = Annotated[str, Field(pattern=r"^[!-~]{1,100}$")]
_Currency = Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
_Cents = Annotated[int, Field(ge=0, lt=2**53)]


class _Data(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    payment_id: _Id
    order_id: _Id
    amount_cents: _Cents
    currency: _Currency
    channel: Annotated[str, Field(pattern=r"^[a-z0-9_-]{1,50}$")]


class _Event(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")

    type: Literal["payment.succeeded", "payment.failed", "refund.succeeded"]
    data: _Data


class _Opened(BaseModel):
    """The provider's answer to a checkout. Buyers' browsers follow the URL, so it must be one of the web."""

    model_config = ConfigDict(strict=True, extra="ignore")

    id: _Id
    url: Annotated[str, Field(pattern=r"^https?://[!-~]{1,2000}$")]


class _Said(BaseModel):
    """One payment in the provider's answer about an order."""

    model_config = ConfigDict(strict=True, extra="ignore")

    id: _Id
    outcome: Literal["succeeded", "failed"]
    amount_cents: _Cents
    currency: _Currency


class SandboxProvider:
    """Speaks to the sandbox.

    Args:
        settings: its address, ours, and the shared secret.

    Raises:
        SetupError: the secret is malformed. An empty one is allowed, and then every callback is refused.
    """

    name = "sandbox"

    def __init__(
        self,
        settings: Settings,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        secret = settings.sandbox_secret.get_secret_value() if settings.sandbox_secret else ""
        try:
            self._webhook = Webhook(secret) if secret.removeprefix("whsec_") else None
        except Exception as error:
            raise SetupError("TIDEGATE_SANDBOX_SECRET: must be whsec_ and base64") from error
        self._settings = settings
        self._secret = secret
        self._clock = clock
        self._url = settings.sandbox_url.rstrip("/")
        self._http = HttpClient(
            at_once=_AT_ONCE,
            timeout=_TIMEOUT,
            max_answer=_MAX_ANSWER,
            headers={"authorization": f"Bearer {secret}"} if secret else {},
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._http.close()

    async def checkout(self, order: Mapping[str, Any]) -> Checkout:
        """Open a checkout; the provider gives the same one again for the same order.

        Raises:
            ProviderError: try again.
        """
        public, order_id = self._settings.public_url.rstrip("/"), str(order["id"])
        body = {
            "order_id": order_id,
            "amount_cents": order["amount_cents"],
            "currency": order["currency"],
            "callback_url": f"{self._settings.shop_url.rstrip('/')}/callbacks/sandbox",
            "return_url": f"{public}/orders/{order_id}",
            "description": f"{order['quantity']} × {order['sku']}",
        }
        answer = await self._ask("POST", "/checkouts", body)
        try:
            opened = _Opened.model_validate(answer)
        except ValidationError as error:
            raise ProviderError("POST /checkouts: an answer without id and url") from error
        return Checkout(opened.id, opened.url)

    async def payments_of(self, order: Mapping[str, Any]) -> Sequence[Payment]:
        """The provider's own word on an order; nothing when it has no checkout.

        Also when we never learnt of a checkout: somebody else may have opened and paid it.

        Raises:
            ProviderError: try again.
        """
        order_id = str(order["id"])
        answer = await self._ask("GET", f"/checkouts/by-order/{order_id}", None, missing={"payments": []})
        try:
            said = [_Said.model_validate(each) for each in answer["payments"]]
            return [
                Payment(self.name, p.id, order_id, p.outcome, p.amount_cents, p.currency, self.name)
                for p in said
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise ProviderError("GET /checkouts/by-order: not the shape docs/data.md names") from error

    async def withdraw(self, order: Mapping[str, Any]) -> bool:  # noqa: ARG002 - every order's is the same
        """The sandbox lets a checkout be paid whenever a rehearsal wants it to be, and captures at once."""
        return True

    async def refund(self, payment_id: str, amount_cents: int, currency: str) -> RefundState:  # noqa: ARG002 - it knows the currency
        """Give a payment back, once; done when it answers.

        Raises:
            ProviderError: try again.
        """
        await self._ask("POST", "/refunds", {"payment_id": payment_id, "amount_cents": amount_cents})
        return "refunded"

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        """Check signature and age, over the raw body, in constant time.

        Raises:
            Stale: properly signed perhaps, but not now.
            Forged: not signed by the provider, or we have no secret to tell.
        """
        if self._webhook is None:
            raise Forged("TIDEGATE_SANDBOX_SECRET is empty")
        try:
            at = float(headers.get("webhook-timestamp", ""))
        except ValueError:
            raise Forged("no webhook-timestamp") from None
        if not abs(self._clock() - at) <= _TOLERANCE:
            raise Stale("webhook-timestamp is not now")
        try:
            self._webhook.verify(body, dict(headers), json_parse=False)
        # The library lets ValueErrors of its base64 and its splitting through.
        except (WebhookVerificationError, ValueError) as error:
            raise Forged("signature") from error

    def read(self, body: str) -> News:
        """What a verified callback says.

        Raises:
            ValueError: it is no event we know.
        """
        try:
            event = _Event.model_validate_json(body)
        except ValidationError as error:
            places = ", ".join(".".join(map(str, e["loc"])) or "body" for e in error.errors())
            raise ValueError(f"not an event of the provider: {places}") from error
        data = event.data
        if event.type == "refund.succeeded":
            return Refunded(self.name, data.payment_id)
        outcome: Literal["succeeded", "failed"] = (
            "succeeded" if event.type == "payment.succeeded" else "failed"
        )
        return Payment(
            self.name, data.payment_id, data.order_id, outcome, data.amount_cents, data.currency, data.channel
        )

    async def _ask(
        self, method: str, path: str, body: dict[str, object] | None, *, missing: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        try:
            answer = await self._http.ask(
                method,
                self._url + path,
                body=None if body is None else json.dumps(body).encode(),
                headers={"content-type": "application/json"},
            )
            if answer.status == 404 and missing is not None:
                return missing
            if not 200 <= answer.status < 300:
                raise ProviderError(f"{method} {path}: {answer.status} {self._quoted(answer.body)}")
            value = json.loads(answer.body)
        except (NoAnswer, ValueError, RecursionError) as error:
            raise ProviderError(f"{method} {path}: {error}") from error
        if not isinstance(value, dict):
            raise ProviderError(f"{method} {path}: not an object")
        return value

    def _quoted(self, body: bytes) -> str:
        """The beginning of an answer, for a log: on one line, and without the secret, which it may echo."""
        said = body.decode("utf-8", "replace")
        if self._secret:
            said = said.replace(self._secret, "whsec_…")
        return "".join(sign if sign.isprintable() else " " for sign in said[:200])
