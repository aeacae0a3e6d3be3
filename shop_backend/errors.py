"""Answers the shop gives when it can't do as asked, as problem+json (RFC 9457)."""
# ruff: noqa: N818 - these are named for what the client is told

from __future__ import annotations

import logging
import math
from http import HTTPStatus
from typing import Any, ClassVar

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

_log = logging.getLogger(__name__)


class ShopError(Exception):
    """A refusal. Subclasses state status, type and title.

    Attributes:
        detail: what is wrong and what to do, for the caller to read; never a secret.
        retry_after: seconds after which trying again makes sense, or None.
        extra: members added to the problem's JSON.
    """

    status: ClassVar[int]
    type: ClassVar[str]
    title: ClassVar[str]

    def __init__(self, detail: str, *, retry_after: float | None = None, **extra: object) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after
        self.extra = extra


# ---- the request is at fault -----------------------------------------------------------------


class BadRequest(ShopError):
    """The request can't be read, or a required header is missing."""

    status, type, title = 400, "urn:tidegate:bad-request", "Malformed request"


class Unauthenticated(ShopError):
    """No session, or a signature that isn't ours."""

    status, type, title = 401, "urn:tidegate:unauthenticated", "Not signed in"


class CrossSite(ShopError):
    """A browser was made to send it by a page that is not ours."""

    status, type, title = 403, "urn:tidegate:cross-site", "Sent by another site"


class NotFound(ShopError):
    """No such thing, or not the caller's."""

    status, type, title = 404, "urn:tidegate:not-found", "Not found"


class PayloadTooLarge(ShopError):
    """The body is larger than the shop reads."""

    status, type, title = 413, "urn:tidegate:payload-too-large", "Body too large"


class Unprocessable(ShopError):
    """Well-formed, but not what this call takes; `errors` names each field."""

    status, type, title = 422, "urn:tidegate:invalid", "Invalid input"


# ---- the sale's rules ------------------------------------------------------------------------


class OutsideWindow(ShopError):
    """The sale has not begun, or is over."""

    status, type, title = 403, "urn:tidegate:outside-sale-window", "Not on sale now"


class CapReached(ShopError):
    """The buyer has, or has reserved, as many as one may."""

    status, type, title = 409, "urn:tidegate:cap-reached", "Limit per buyer reached"


class TooManyOpen(ShopError):
    """The buyer has too many unpaid orders."""

    status, type, title = 409, "urn:tidegate:too-many-open-orders", "Too many unpaid orders"


class KeyReused(ShopError):
    """The idempotency key was used with another body."""

    status, type, title = 409, "urn:tidegate:idempotency-key-reused", "Idempotency-Key used before"


class SoldOut(ShopError):
    """Not enough stock left."""

    status, type, title = 410, "urn:tidegate:sold-out", "Sold out"


# ---- the shop is at fault --------------------------------------------------------------------


class Unavailable(ShopError):
    """A part the call needs is away for a moment."""

    status, type, title = 503, "urn:tidegate:unavailable", "Back in a moment"


class TooLate(Unavailable):
    """Nobody waits for the answer any more."""

    type, title = "urn:tidegate:too-late", "Too late"


class SetupError(Exception):
    """The process can't start: the message says what, where and what to do."""


# ---- to the wire -----------------------------------------------------------------------------


def problem(error: ShopError, headers: dict[str, str] | None = None) -> Response:
    """The response that says so; not to be kept unless `headers` allow it."""
    return _problem(
        *(error.status, error.type, error.title, error.detail),
        retry_after=error.retry_after,
        extra=error.extra,
        headers=headers,
    )


def _problem(
    status: int,
    kind: str,
    title: str,
    detail: str,
    *,
    retry_after: float | None = None,
    extra: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    fields = {"cache-control": "no-store"} | (headers or {})
    if retry_after is not None:
        fields["retry-after"] = str(max(1, math.ceil(retry_after)))
    body = {"type": kind, "title": title, "status": status, "detail": detail} | (extra or {})
    return JSONResponse(body, status, fields, media_type="application/problem+json")


async def on_shop_error(_: Request, error: Exception) -> Response:
    """Starlette's handler for ShopError."""
    if not isinstance(error, ShopError):
        raise error
    return problem(error)


async def on_http_exception(_: Request, error: Exception) -> Response:
    """Starlette's handler for its own HTTPException: unknown route 404, wrong method 405."""
    if not isinstance(error, HTTPException):
        raise error
    phrase = HTTPStatus(error.status_code).phrase
    kind = f"urn:tidegate:{phrase.lower().replace(' ', '-')}"
    details = {404: "no such address here", 405: "this address takes other methods; see Allow"}
    detail = details.get(error.status_code, error.detail)
    return _problem(error.status_code, kind, phrase, detail, headers=dict(error.headers or {}))


async def on_crash(request: Request, error: Exception) -> Response:
    """Starlette's handler for everything else: logged here, nothing of it shown."""
    _log.error("unexpected error in %s %s", request.method, request.url.path, exc_info=error)
    return _problem(500, "urn:tidegate:internal", "Our mistake", "something broke here; it has been logged")
