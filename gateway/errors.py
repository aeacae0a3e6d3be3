"""Answers the gateway gives itself, as problem+json (RFC 9457)."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any, ClassVar

IANA = "https://iana.org/assignments/http-problem-types#"
PROBLEM_JSON = (b"content-type", b"application/problem+json")
NO_STORE = (b"cache-control", b"no-store")


class GatewayError(Exception):
    """An answer the gateway gives itself. Subclasses state status, type, title and outcome.

    Attributes:
        retry_after: seconds after which trying again makes sense, or None.
        extra: members added to the problem's JSON; never secrets.
        fields: header fields that go with the answer.
    """

    status: ClassVar[int]
    type: ClassVar[str]
    title: ClassVar[str]
    outcome: ClassVar[str] = "rejected"

    def __init__(
        self,
        detail: str,
        *,
        retry_after: float | None = None,
        extra: dict[str, Any] | None = None,
        fields: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(detail)
        self.detail = detail
        self.retry_after = retry_after
        self.extra = extra or {}
        self.fields = fields

    @property
    def wait(self) -> int | None:
        """`retry_after` in whole seconds; never 0: a client told "now" comes back at once."""
        return max(1, math.ceil(self.retry_after)) if self.retry_after is not None else None

    def problem(self) -> tuple[Sequence[tuple[bytes, bytes]], bytes]:
        """The header fields and the JSON body that say so."""
        problem = {"type": self.type, "title": self.title, "status": self.status, "detail": self.detail}
        headers = [PROBLEM_JSON, NO_STORE, *self.fields]
        if self.wait is not None:
            headers.append((b"retry-after", b"%d" % self.wait))
        return headers, json.dumps(problem | self.extra, ensure_ascii=False).encode()


# ---- the request is at fault -----------------------------------------------------------------


class BadRequest(GatewayError):
    """The request breaks HTTP, or could be read in two ways."""

    status, type, title = 400, "urn:tidegate:bad-request", "Malformed request"


class NotFound(GatewayError):
    """No route has this path."""

    status, type, title = 404, "urn:tidegate:not-found", "No such page"


class MethodNotAllowed(GatewayError):
    """A route has this path, but not this method."""

    status, type, title = 405, "urn:tidegate:method-not-allowed", "Method not allowed"


class RequestTimeout(GatewayError):
    """The client was too slow to send its request."""

    status, type, title = 408, "urn:tidegate:request-timeout", "Request too slow"


class PayloadTooLarge(GatewayError):
    """The body is larger than `listen.max_body`."""

    status, type, title = 413, "urn:tidegate:payload-too-large", "Body too large"


class UriTooLong(GatewayError):
    """The target is longer than `listen.max_target`."""

    status, type, title = 414, "urn:tidegate:uri-too-long", "Target too long"


class HeadersTooLarge(GatewayError):
    """More or longer header fields than the gateway takes."""

    status, type, title = 431, "urn:tidegate:headers-too-large", "Header fields too large"


class NotImplementedHere(GatewayError):
    """A method, transfer coding or upgrade that the gateway does not carry."""

    status, type, title = 501, "urn:tidegate:not-implemented", "Not implemented"


# ---- an operator is at fault -----------------------------------------------------------------


class Unauthorized(GatewayError):
    """No admin token, or a wrong one."""

    status, type, title = 401, "urn:tidegate:unauthorized", "Not authorized"

    def __init__(self, detail: str) -> None:
        super().__init__(detail, fields=[(b"www-authenticate", b'Bearer realm="tidegate admin"')])


class ReadOnly(GatewayError):
    """A viewer's token where an operator's is needed."""

    status, type, title = 403, "urn:tidegate:read-only", "Not allowed to change anything"


class CrossSite(GatewayError):
    """Another site's page sent it, with the cookie of somebody who is logged in."""

    status, type, title = 403, "urn:tidegate:cross-site", "Not from the console"


class StaleForm(GatewayError):
    """A page of an earlier session sent it."""

    status, type, title = 403, "urn:tidegate:stale-form", "The page is out of date"


class TooManyLogins(GatewayError):
    """The address has sent too many wrong tokens."""

    status, type, title = 429, "urn:tidegate:too-many-logins", "Too many wrong tokens"


class TooManyListeners(GatewayError):
    """As many listen to the stream of events as may."""

    status, type, title = 503, "urn:tidegate:too-many-listeners", "Too many are watching"


class BadForm(GatewayError):
    """The body of a change is not what its route takes. `extra["errors"]` names each mistake."""

    status, type, title = 422, "urn:tidegate:unprocessable", "The change can't be read"


# ---- the gateway protects the shop -----------------------------------------------------------


class Forbidden(GatewayError):
    """A limit's deny list names the client."""

    status, type, title = 403, "urn:tidegate:forbidden", "Not allowed"


class RateLimited(GatewayError):
    """A limit is full. `extra["violated-policies"]` names which."""

    status, type, title, outcome = 429, IANA + "quota-exceeded", "Too many requests", "limited"


class Overloaded(GatewayError):
    """No slot is free for this priority."""

    status, type, title = 503, IANA + "temporary-reduced-capacity", "Busy; come back shortly"
    outcome = "shed"


class FeatureOff(GatewayError):
    """The feature is switched off and has no fallback."""

    status, type, title = 503, "urn:tidegate:feature-off", "Switched off for now"
    outcome = "degraded"


class UpstreamUnavailable(GatewayError):
    """The breaker is open: the upstream is sick and is left alone."""

    status, type, title = 503, "urn:tidegate:upstream-unavailable", "Temporarily unavailable"
    outcome = "broken"


# ---- the upstream is at fault ----------------------------------------------------------------


class UpstreamError(GatewayError):
    """The upstream refused, broke off or answered garbage. A breaker counts it as a failure."""

    status, type, title = 502, "urn:tidegate:bad-gateway", "No valid answer from the upstream"
    outcome = "failed"


class UpstreamTimeout(UpstreamError):
    """The upstream took longer than its timeout."""

    status, type, title = 504, "urn:tidegate:upstream-timeout", "The upstream took too long"


class PoolExhausted(GatewayError):
    """Every connection to the upstream stayed busy until the deadline; no fault of the upstream's."""

    status, type, title = 503, IANA + "temporary-reduced-capacity", "Busy; come back shortly"
    outcome = "shed"


class Internal(GatewayError):
    """A defect of the gateway itself; the log has the stack."""

    status, type, title, outcome = 500, "urn:tidegate:internal-error", "Internal error", "failed"
