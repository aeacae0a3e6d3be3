"""The head of a request as the upstream gets it: what goes, what stays, what is ours."""

from __future__ import annotations

import random
import re

from gateway.errors import BadRequest
from gateway.exchange import Exchange
from gateway.upstream.response import HOP_BY_HOP, connection_tokens

# Fields in which the gateway vouches for something; from a client they are worth nothing.
OURS = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-prefix",
        b"x-forwarded-proto",
        b"x-forwarded-server",
        b"x-forwarded-ssl",
        b"x-real-ip",
        b"x-request-id",
        b"tidegate-deadline",
        b"tidegate-degraded",
        b"tidegate-user",
    }
)
# Expect is answered at the gate; proxy-authorization was meant for us.
_DROP = (
    HOP_BY_HOP
    | OURS
    | {b"content-length", b"expect", b"host", b"http2-settings", b"proxy-authorization", b"traceparent"}
)
_PLAIN_CONNECTION = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close"})
_TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-([0-9a-f]{2})(?:-.*)?"
)
_random_bits = random.Random().getrandbits  # noqa: S311 - span ids are no secret


def request_head(exchange: Exchange, remaining: float) -> bytes:
    """Request line and header section, with the empty line.

    Args:
        exchange: the request.
        remaining: seconds until its deadline.

    Raises:
        BadRequest: some part would break out of its line.
    """
    drop: frozenset[bytes] | set[bytes] = _DROP
    trace: bytes | None = None
    lines = [
        b"%b %b HTTP/1.1" % (exchange.method.encode(), exchange.target),
        b"host: " + exchange.host,
    ]
    for name, value in exchange.headers:
        if name == b"connection" and value not in _PLAIN_CONNECTION:
            drop = drop | connection_tokens(value)
        elif name == b"traceparent":
            # Said twice, it is as good as not said (W3C Trace Context, 3.2).
            trace = value if trace is None else b""
    match = _TRACEPARENT.fullmatch(trace) if trace else None
    if match is None:
        drop = drop | {b"tracestate"}
    for name, value in exchange.headers:
        if name in drop or (b"_" in name and name.replace(b"_", b"-") in drop):
            continue  # CGI-like upstreams read Tidegate_User as Tidegate-User
        lines.append(name + b": " + value)

    request_id = exchange.request_id.encode()
    lines += (
        b"x-forwarded-for: " + exchange.forwarded_for,
        b"x-forwarded-proto: " + exchange.scheme.encode(),
        b"x-forwarded-host: " + exchange.host,
        b"x-request-id: " + request_id,
        b"tidegate-deadline: %d" % max(1, remaining * 1000),
    )
    span = _random_bits(64) or 1
    if match is not None:
        lines.append(b"traceparent: 00-%b-%016x-%b" % (match[1], span, match[2]))
    elif len(request_id) == 32:
        # Our request id is a fresh trace id too; unsampled, since the gate records no spans.
        lines.append(b"traceparent: 00-%b-%016x-00" % (request_id, span))
    if exchange.user is not None:
        lines.append(b"tidegate-user: " + exchange.user.encode())
    if exchange.degraded:
        lines.append(b"tidegate-degraded: " + exchange.degraded.encode())
    if exchange.has_body:
        if exchange.content_length is None:
            lines.append(b"transfer-encoding: chunked")
        else:
            lines.append(b"content-length: %d" % exchange.content_length)
    elif exchange.method in {"POST", "PUT", "PATCH"}:
        lines.append(b"content-length: 0")  # expected by many servers (RFC 9110, 8.6)
    head = b"\r\n".join(lines) + b"\r\n\r\n"
    # The guard has let no line break through; a user id or a path could still bring one.
    if head.count(b"\n") != len(lines) + 1 or head.count(b"\r") != len(lines) + 1 or b" " in exchange.target:
        raise BadRequest("a header field or the target holds a line break or a space")
    return head
