"""The part of Stripe's API that the shop uses, as its reference describes it: strict, over HTTP.

Not Stripe: written from the public documentation, for a party outside of the shop to hold it to. What the
reference calls an error is one here; events are made from the recorded-format files in stripe/.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

KEY = "sk_test_tidegate"
SECRET = "whsec_stripe_endpoint"
RECORDED = Path(__file__).parent / "stripe"
SESSION_WORDS = {
    "mode",
    "client_reference_id",
    "customer_email",
    "success_url",
    "cancel_url",
    "expires_at",
    "line_items[0][quantity]",
    "line_items[0][price_data][currency]",
    "line_items[0][price_data][unit_amount]",
    "line_items[0][price_data][product_data][name]",
    "payment_intent_data[metadata][order_id]",
}
REFUND_WORDS = {"payment_intent", "amount"}


def recorded(kind: str) -> dict[str, Any]:
    """An event as Stripe sends it."""
    return dict(json.loads((RECORDED / f"{kind}.json").read_text()))


def signed(body: str, *, at: float | None = None, secret: str = SECRET) -> dict[str, str]:
    """The header of a webhook."""
    t = int(time.time() if at is None else at)
    digest = hmac.new(secret.encode(), f"{t}.{body}".encode(), hashlib.sha256).hexdigest()
    return {"stripe-signature": f"t={t},v1={digest},v0={digest[::-1]}"}


class StripeError(Exception):
    """An error object of the API."""

    def __init__(self, status: int, kind: str, message: str, code: str = "", param: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"type": kind, "message": message, "code": code, "param": param}}


@dataclass
class FakeStripe:
    """One account. `trouble` are statuses given instead of an answer, after the work was done; 200: none."""

    sessions: dict[str, dict[str, Any]] = field(default_factory=dict)
    refunds: list[dict[str, Any]] = field(default_factory=list)
    refund_status: str = "succeeded"
    under_way: dict[str, str] = field(default_factory=dict)
    trouble: list[int] = field(default_factory=list)
    answered: dict[str, tuple[str, dict[str, Any]]] = field(default_factory=dict)

    def app(self) -> Starlette:
        """The API."""
        return Starlette(
            routes=[
                Route("/v1/checkout/sessions", self._guarded(self._create_session), methods=["POST"]),
                Route("/v1/checkout/sessions/{id}", self._guarded(self._session), methods=["GET"]),
                Route("/v1/checkout/sessions/{id}/expire", self._guarded(self._expire), methods=["POST"]),
                Route("/v1/payment_intents/{id}", self._guarded(self._intent), methods=["GET"]),
                Route("/v1/refunds", self._guarded(self._refund), methods=["POST"]),
                Route("/v1/refunds", self._guarded(self._list_refunds), methods=["GET"]),
            ]
        )

    # ---- what the world does -----------------------------------------------------------------

    def session_of(self, order_id: str) -> dict[str, Any]:
        """The session of an order."""
        (session,) = [s for s in self.sessions.values() if s["client_reference_id"] == order_id]
        return session

    def pay(self, order_id: str) -> dict[str, Any]:
        """The buyer pays; the event of it."""
        session = self.session_of(order_id)
        assert session["status"] == "open", session["status"]
        session |= {
            "status": "complete",
            "payment_status": "paid",
            "payment_intent": f"pi_{uuid.uuid4().hex}",
            "url": None,
        }
        return self.event("checkout.session.completed", session)

    def begin(self, order_id: str) -> None:
        """The buyer pays by a bank debit, which takes days."""
        intent = f"pi_{uuid.uuid4().hex}"
        self.session_of(order_id).update(status="complete", payment_intent=intent, url=None)
        self.under_way[intent] = "processing"

    def decide(self, order_id: str, outcome: str) -> None:
        """The bank has paid ("succeeded"), or has not; nobody is told."""
        session = self.session_of(order_id)
        self.under_way[session["payment_intent"]] = outcome
        session["payment_status"] = "paid" if outcome == "succeeded" else "unpaid"

    def decline(self, order_id: str) -> dict[str, Any]:
        """The buyer's card is declined; the event of it."""
        session = self.session_of(order_id)
        intent = recorded("payment_intent.payment_failed")["data"]["object"] | {
            "id": f"pi_{uuid.uuid4().hex}",
            "amount": session["amount_total"],
            "metadata": {"order_id": order_id},
        }
        return self.event("payment_intent.payment_failed", intent)

    def settle_refund(self, status: str) -> dict[str, Any]:
        """The bank decides about the newest refund; the event of it."""
        self.refunds[-1]["status"] = status
        return self.event("refund.updated", self.refunds[-1])

    @staticmethod
    def event(kind: str, about: dict[str, Any]) -> dict[str, Any]:
        """An event about an object."""
        return recorded(kind) | {"id": f"evt_{uuid.uuid4().hex}", "data": {"object": about}}

    # ---- the API -----------------------------------------------------------------------------

    def _guarded(self, work: Any) -> Any:
        async def answer(request: Request) -> Response:
            try:
                _authorized(request)
                value = await self._once(request, work)
            except StripeError as refusal:
                return JSONResponse(refusal.body, refusal.status)
            if self.trouble and (status := self.trouble.pop(0)) != 200:
                return JSONResponse({"error": {"type": "api_error"}}, status)
            return JSONResponse(value)

        return answer

    async def _once(self, request: Request, work: Any) -> dict[str, Any]:
        """Idempotent requests: the same key gives the same answer, with other words it is an error."""
        key, body = request.headers.get("idempotency-key"), (await request.body()).decode()
        words = f"{request.url.path}?{body}"
        if key in self.answered:
            before, answer = self.answered[key]
            if before != words:
                raise StripeError(400, "idempotency_error", "Keys can only be used with the same parameters")
            return answer
        value: dict[str, Any] = dict(work(request, dict(parse_qsl(body, strict_parsing=bool(body)))))
        if key is not None:
            self.answered[key] = (words, value)
        return value

    def _create_session(self, _: Request, form: dict[str, str]) -> dict[str, Any]:
        _only(form, SESSION_WORDS)
        now = time.time()
        if not now + 1800 <= int(form["expires_at"]) <= now + 86400:
            raise StripeError(
                400, "invalid_request_error", "expires_at: 30 minutes to 24 hours", "", "expires_at"
            )
        currency = form["line_items[0][price_data][currency]"]
        if not re.fullmatch("[a-z]{3}", currency):
            raise StripeError(400, "invalid_request_error", "Invalid currency", "", "currency")
        name = f"cs_test_{uuid.uuid4().hex}"
        total = int(form["line_items[0][quantity]"]) * int(form["line_items[0][price_data][unit_amount]"])
        self.sessions[name] = recorded("checkout.session.completed")["data"]["object"] | {
            "id": name,
            "amount_subtotal": total,
            "amount_total": total,
            "currency": currency,
            "client_reference_id": form["client_reference_id"],
            "customer_email": form["customer_email"],
            "success_url": form["success_url"],
            "cancel_url": form["cancel_url"],
            "expires_at": int(form["expires_at"]),
            "payment_intent": None,
            "payment_status": "unpaid",
            "status": "open",
            "url": f"https://checkout.stripe.example/c/pay/{name}",
        }
        return dict(self.sessions[name])

    def _find(self, request: Request) -> dict[str, Any]:
        session = self.sessions.get(request.path_params["id"])
        if session is None:
            raise StripeError(
                404, "invalid_request_error", "No such checkout.session", "resource_missing", "id"
            )
        return session

    def _session(self, request: Request, _: dict[str, str]) -> dict[str, Any]:
        return self._find(request)

    def _expire(self, request: Request, form: dict[str, str]) -> dict[str, Any]:
        _only(form, set())
        session = self._find(request)
        if session["status"] != "open":
            raise StripeError(400, "invalid_request_error", "Only sessions in status open can be expired")
        session |= {"status": "expired", "url": None}
        return session

    def _intent(self, request: Request, _: dict[str, str]) -> dict[str, Any]:
        name = request.path_params["id"]
        (session,) = [s for s in self.sessions.values() if s["payment_intent"] == name]
        return recorded("payment_intent.payment_failed")["data"]["object"] | {
            "id": name,
            "amount": session["amount_total"],
            "currency": session["currency"],
            "status": self.under_way.get(name, "succeeded"),
        }

    def _refund(self, _: Request, form: dict[str, str]) -> dict[str, Any]:
        _only(form, REFUND_WORDS)
        intent, amount = form["payment_intent"], int(form["amount"])
        paid = [s for s in self.sessions.values() if s["payment_intent"] == intent]
        if not paid:
            raise StripeError(404, "invalid_request_error", "No such payment_intent", "resource_missing")
        standing = [r for r in self.refunds if r["payment_intent"] == intent and r["status"] != "failed"]
        if sum(r["amount"] for r in standing) + amount > paid[0]["amount_total"]:
            raise StripeError(
                400, "invalid_request_error", "Charge already refunded", "charge_already_refunded"
            )
        self.refunds.append(
            recorded("refund.updated")["data"]["object"]
            | {
                "id": f"re_{uuid.uuid4().hex}",
                "payment_intent": intent,
                "amount": amount,
                "currency": paid[0]["currency"],
                "status": self.refund_status,
            }
        )
        return self.refunds[-1]

    def _list_refunds(self, request: Request, _: dict[str, str]) -> dict[str, Any]:
        intent = request.query_params["payment_intent"]
        found = [r for r in reversed(self.refunds) if r["payment_intent"] == intent]
        return {"object": "list", "url": "/v1/refunds", "has_more": False, "data": found}


def _authorized(request: Request) -> None:
    if request.headers.get("authorization") != f"Bearer {KEY}":
        raise StripeError(401, "invalid_request_error", "Invalid API Key provided: sk_test_****")
    if not re.fullmatch(r"\d{4}-\d\d-\d\d", request.headers.get("stripe-version", "")):
        raise StripeError(400, "invalid_request_error", "no Stripe-Version")


def _only(form: dict[str, str], known: set[str]) -> None:
    for name in form:
        if name not in known:
            raise StripeError(
                400, "invalid_request_error", f"Received unknown parameter: {name}", "parameter_unknown", name
            )
    for name in known - form.keys():
        raise StripeError(400, "invalid_request_error", f"Missing: {name}", "parameter_missing", name)
