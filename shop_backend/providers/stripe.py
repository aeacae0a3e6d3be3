"""Stripe Checkout as a PaymentProvider, written to its public API reference and webhook documentation.

Sessions: docs.stripe.com/api/checkout/sessions; refunds: /api/refunds; idempotency: /api/idempotent_requests;
signatures: /webhooks#verify-manually. A capture is a PaymentIntent: its id is our payment id.
"""

from __future__ import annotations

import hashlib
import hmac
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Literal

import httpx
from pydantic import ValidationError

from shop_backend.errors import SetupError
from shop_backend.providers import (
    Checkout,
    Forged,
    Irrelevant,
    News,
    Payment,
    ProviderError,
    Refunded,
    RefundState,
    Stale,
)
from shop_backend.providers.stripe_amounts import cents_of, smallest_units
from shop_backend.providers.stripe_objects import Event, Intent, Refund, Session, refund_state, valid

_VERSION = "2024-06-20"  # the API this is written to
_TOLERANCE = 300.0  # seconds, as Stripe's own libraries have it
_SHORTEST = 1860.0  # seconds; a session lives for at least 30 minutes, and asking takes a moment
_LONGEST = 23 * 3600.0  # and for at most 24 hours


class StripeProvider:
    """Speaks to Stripe.

    Args:
        api_key: secret or restricted key (`sk_…`, `rk_…`); Checkout Sessions and Refunds are written.
        webhook_secret: the endpoint's (`whsec_…`); an empty one refuses every callback.
        public_url: the shop, where buyers come back to.
        base_url: the API.
        clock: Unix time, seconds.

    Raises:
        SetupError: the key is missing.
    """

    name = "stripe"

    def __init__(
        self,
        *,
        api_key: str,
        webhook_secret: str,
        public_url: str,
        base_url: str = "https://api.stripe.com",
        clock: Callable[[], float] = time.time,
    ) -> None:
        if not api_key.startswith(("sk_", "rk_")):
            raise SetupError("TIDEGATE_STRIPE_API_KEY: must be a secret or restricted key (sk_..., rk_...)")
        self._secret = webhook_secret.encode()
        self._public = public_url.rstrip("/")
        self._clock = clock
        self._http = httpx.AsyncClient(
            base_url=base_url,
            headers={"authorization": f"Bearer {api_key}", "stripe-version": _VERSION},
            timeout=httpx.Timeout(20.0, connect=5.0),
            limits=httpx.Limits(max_connections=16),
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    # ---- what we ask -------------------------------------------------------------------------

    async def checkout(self, order: Mapping[str, Any]) -> Checkout:
        """Open a Checkout Session. Its Idempotency-Key is the order, so asking again gives the same one.

        Raises:
            ProviderError: try again.
        """
        order_id, quantity = str(order["id"]), int(order["quantity"])
        unit = smallest_units(order["amount_cents"] // quantity, order["currency"])
        where = f"{self._public}/orders/{order_id}"
        form = {
            "mode": "payment",
            "client_reference_id": order_id,
            "customer_email": order["email"],
            "success_url": where,
            "cancel_url": where,
            "expires_at": str(_session_end(order["created_at"], order["expires_at"])),
            "line_items[0][quantity]": str(quantity),
            "line_items[0][price_data][currency]": order["currency"].lower(),
            "line_items[0][price_data][unit_amount]": str(unit),
            "line_items[0][price_data][product_data][name]": order["sku"],
            # A declined card is told of by its intent, which knows no client_reference_id.
            "payment_intent_data[metadata][order_id]": order_id,
        }
        answer = await self._ask("POST", "/v1/checkout/sessions", form, key=f"checkout-{order_id}")
        session = valid(Session, answer)
        if not session.url:
            raise ProviderError(f"checkout session {session.id} of order {order_id} has no url any more")
        return Checkout(session.id, session.url)

    async def payments_of(self, order: Mapping[str, Any]) -> Sequence[Payment]:
        """What was captured for an order. Nothing without a session: nobody knows where to pay, then.

        Raises:
            ProviderError: try again.
        """
        if not order["checkout_id"]:
            return []
        answer = await self._ask("GET", f"/v1/checkout/sessions/{order['checkout_id']}", None)
        news = self._of_session(valid(Session, answer), "succeeded")
        return [news] if isinstance(news, Payment) else []

    async def withdraw(self, order: Mapping[str, Any]) -> bool:
        """Expire the session; one that is paid, or expired already, stays as it is.

        Returns:
            False while a payment by a delayed method, a bank debit for example, is under way.

        Raises:
            ProviderError: try again.
        """
        if not order["checkout_id"]:
            return True
        path = f"/v1/checkout/sessions/{order['checkout_id']}"
        if await self._ask("POST", f"{path}/expire", {}, refused=(400,)):
            return True
        session = valid(Session, await self._ask("GET", path, None))
        if session.payment_intent is None or session.payment_status == "paid":
            return True
        intent = await self._ask("GET", f"/v1/payment_intents/{session.payment_intent}", None)
        return valid(Intent, intent).status != "processing"

    async def refund(self, payment_id: str, amount_cents: int, currency: str) -> RefundState:
        """Refund a PaymentIntent, unless a refund of it is done or under way.

        Stripe remembers idempotency keys for a day only, so what it has is looked at first. A refund that
        failed is asked for anew only when an operator says so; the key counts those.

        Raises:
            ProviderError: try again.
        """
        listed = await self._ask("GET", "/v1/refunds", {"payment_intent": payment_id, "limit": "100"})
        known = [valid(Refund, each) for each in listed.get("data", [])]
        for refund in known:
            if (state := refund_state(refund)) != "failed":
                return state
        amount = smallest_units(amount_cents, currency)
        form = {"payment_intent": payment_id, "amount": str(amount)}
        key = f"refund-{payment_id}-{len(known)}"
        return refund_state(valid(Refund, await self._ask("POST", "/v1/refunds", form, key=key)))

    # ---- what it tells us --------------------------------------------------------------------

    def verify(self, headers: Mapping[str, str], body: bytes) -> None:
        """Check `Stripe-Signature: t=…,v1=…` over the raw body, in constant time.

        Raises:
            Stale: signed more than 5 minutes from now.
            Forged: no signature of scheme v1 is right, or we have no secret to tell.
        """
        if not self._secret:
            raise Forged("TIDEGATE_STRIPE_WEBHOOK_SECRET is empty")
        pairs = [part.partition("=") for part in headers.get("stripe-signature", "").split(",")]
        times = [value for name, _, value in pairs if name.strip() == "t"]
        given = [value.strip() for name, _, value in pairs if name.strip() == "v1"]
        if len(times) != 1 or not (times[0].isascii() and times[0].isdigit() and len(times[0]) < 16):
            raise Forged("no timestamp in stripe-signature")
        wanted = hmac.new(self._secret, times[0].encode() + b"." + body, hashlib.sha256).hexdigest()
        # While a secret is rolled there are several; all are compared.
        matches = [hmac.compare_digest(wanted.encode(), each.encode("utf-8", "replace")) for each in given]
        if not any(matches):
            raise Forged("signature")
        if not abs(self._clock() - int(times[0])) <= _TOLERANCE:
            raise Stale("the timestamp of stripe-signature is not now")

    def read(self, body: str) -> News:
        """What an event says.

        Raises:
            ValueError: it is no event as Stripe documents it.
        """
        try:
            event = Event.model_validate_json(body)
            about = event.data.get("object")
            match event.type:
                case "checkout.session.completed" | "checkout.session.async_payment_succeeded":
                    return self._of_session(Session.model_validate(about), "succeeded")
                case "checkout.session.async_payment_failed":
                    return self._of_session(Session.model_validate(about), "failed")
                case "payment_intent.payment_failed":
                    return self._of_intent(Intent.model_validate(about))
                case "refund.created" | "refund.updated" | "refund.failed" | "charge.refund.updated":
                    refund = Refund.model_validate(about)
                    if refund.payment_intent is None:
                        return Irrelevant("a refund of no payment intent")
                    return Refunded(self.name, refund.payment_intent, refund_state(refund))
                case _:
                    return Irrelevant(event.type)
        except ValidationError as error:
            places = ", ".join(".".join(map(str, e["loc"])) or "body" for e in error.errors())
            raise ValueError(f"not an event of Stripe: {places}") from error
        except ProviderError as error:
            raise ValueError(str(error)) from error

    # ---- inside ------------------------------------------------------------------------------

    def _of_session(self, session: Session, outcome: Literal["succeeded", "failed"]) -> Payment | Irrelevant:
        if session.client_reference_id is None or session.payment_intent is None:
            return Irrelevant(f"session {session.id} is not of this shop, or not paid yet")
        if (session.payment_status == "paid") != (outcome == "succeeded"):
            return Irrelevant(f"session {session.id} is {session.payment_status}")
        if session.amount_total is None or session.currency is None:
            raise ProviderError(f"session {session.id} has no amount")
        currency = session.currency.upper()
        return Payment(
            self.name,
            session.payment_intent,
            session.client_reference_id,
            outcome,
            cents_of(session.amount_total, currency),
            currency,
            self.name,
        )

    def _of_intent(self, intent: Intent) -> Payment | Irrelevant:
        order_id = intent.metadata.get("order_id")
        if order_id is None:
            return Irrelevant(f"payment intent {intent.id} is not of this shop")
        currency = intent.currency.upper()
        amount = cents_of(intent.amount, currency)
        return Payment(self.name, intent.id, order_id, "failed", amount, currency, self.name)

    async def _ask(
        self,
        method: Literal["GET", "POST"],
        path: str,
        form: Mapping[str, str] | None,
        *,
        key: str | None = None,
        refused: Sequence[int] = (),
    ) -> dict[str, Any]:
        """One call; an answer of a status in `refused` counts as an empty one."""
        headers = {"idempotency-key": key} if key else {}
        words = {"params": form} if method == "GET" else {"data": form}
        try:
            response = await self._http.request(method, path, headers=headers, **words)  # type: ignore[arg-type]  # one of two
            value = response.json()
        except (httpx.HTTPError, ValueError) as error:
            raise ProviderError(f"{method} {path}: {type(error).__name__}") from error
        if response.status_code in refused:
            return {}
        if not response.is_success or not isinstance(value, dict):
            raise ProviderError(f"{method} {path}: {response.status_code} {_said(value)}")
        return value


def _said(answer: object) -> str:
    """What an error says, without what the buyer or we sent."""
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return "and no error object"
    return " ".join(str(error[name])[:100] for name in ("type", "code", "param") if error.get(name))


def _session_end(created: datetime, expires: datetime) -> int:
    """When a session ends, Unix seconds: the same whenever it is asked for, or the key would not match."""
    return int(min(expires.timestamp() + _SHORTEST, created.timestamp() + _LONGEST))
