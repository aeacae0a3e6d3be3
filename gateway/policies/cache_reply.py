"""What goes out: a kept answer as one client gets it, and a request that has no client."""

from __future__ import annotations

from email.utils import formatdate

from gateway.exchange import Exchange, Headers, Reply
from gateway.policies import cache_validation as validation
from gateway.policies.cache_store import Entry
from gateway.policies.cache_validation import Asked


def without_client(exchange: Exchange) -> Exchange:
    """The same request without its client."""
    double = Exchange(
        method="GET",
        target=exchange.target,
        path=exchange.path,
        headers=validation.fetch_headers(exchange.headers, None),
        host=exchange.host,
        address=exchange.address,
        receive=_gone,
        started=exchange.started,
        scheme=exchange.scheme,
        request_id=exchange.request_id,
    )
    double.user, double.route, double.params = exchange.user, exchange.route, exchange.params
    double.degraded, double.forwarded_for = exchange.degraded, exchange.forwarded_for
    double.upstream = exchange.upstream
    return double


async def _gone() -> dict[str, str]:
    return {"type": "http.disconnect"}


def shaped(entry: Entry, exchange: Exchange, asked: Asked, status: bytes, age: float | None) -> Reply:
    """A kept answer as this client gets it: whole, without body, or as 304."""
    added: Headers = [(b"cache-status", status)]
    if age is not None:
        added.append((b"age", b"%d" % age))
    if entry.status == 200 and validation.not_modified(asked, entry.headers):
        return Reply(304, [*validation.headers_of_304(entry.headers), *added])
    body = b"" if exchange.method == "HEAD" else entry.body
    return Reply(entry.status, [*entry.headers, *added], body)


def told_age(entry: Entry) -> float | None:
    """The age that one is told who was answered by the upstream itself (RFC 9111, 5.1)."""
    return entry.terms.age if entry.terms.age >= 1 else None


def said(reply: Reply, status: bytes) -> Reply:
    """The reply, with what the cache did about it (RFC 9211)."""
    reply.headers = [*reply.headers, (b"cache-status", b"tidegate; " + status)]
    return reply


def date(seconds: float) -> tuple[bytes, bytes]:
    """A Date field, of seconds since 1970."""
    return b"date", formatdate(seconds, usegmt=True).encode()
