"""The head of a request as the upstream gets it: what goes, what stays, what is ours."""

from __future__ import annotations

import re

from gateway.errors import BadRequest
from gateway.exchange import Exchange
from gateway.field import HOP_BY_HOP, OURS, Block
from gateway.upstream.response import connection_tokens

# Expect is answered at the gate; proxy-authorization was meant for us.
_DROP = (
    HOP_BY_HOP
    | OURS
    | {
        b"content-length",
        b"expect",
        b"host",
        b"http2-settings",
        b"proxy-authorization",
        b"traceparent",
        b"tracestate",
    }
)
_PLAIN_CONNECTION = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close"})
TRACEPARENT = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)


def request_head(exchange: Exchange, remaining: float) -> bytes:
    """Request line and header section, with the empty line.

    Args:
        exchange: the request.
        remaining: seconds until its deadline.

    Raises:
        BadRequest: some part would break out of its line.
    """
    host, request_id, headers = exchange.host, exchange.request_id, exchange.headers
    plain = b""
    breaks = 10  # those of the first two lines, of the block of ours, and of the end
    if type(headers) is Block:
        plain = headers.plain
        breaks += len(headers) - len(headers.notable)
        headers = headers.notable
    lines: list[bytes] = []
    named: set[bytes] = set()
    traces: list[bytes] = []
    state = b""
    for name, value in headers:
        if name not in _DROP:
            # CGI-like upstreams read Tidegate_User as Tidegate-User.
            if b"_" not in name or name.replace(b"_", b"-") not in _DROP:
                lines.append(b"%b: %b\r\n" % (name, value))
        elif name == b"connection":
            if value not in _PLAIN_CONNECTION:
                named |= connection_tokens(value)
        elif name == b"traceparent":
            traces.append(value)
        elif name == b"tracestate":
            state = state + b"," + value if state else value
    if named:
        lines = [*plain.splitlines(keepends=True), *lines]
        lines = [line for line in lines if line.partition(b":")[0] not in named]
        plain, breaks = b"", 10

    # Ours come after what Connection names was struck, so that no client can strike them too.
    # Said twice, it is as good as not said (W3C Trace Context, 3.2).
    match = TRACEPARENT.fullmatch(traces[0]) if len(traces) == 1 else None
    if match is not None:
        trace, flags = match[1], match[3]
        if state:
            lines.append(b"tracestate: %b\r\n" % state)
    else:
        # Our request id is a fresh trace id too; unsampled, since the gate records no spans.
        trace, flags = request_id, b"00"
    # The id of our own record, when there is one; else it need only differ from other requests'.
    span = b"%016x" % exchange.span if exchange.span else request_id[16:]
    if exchange.user is not None:
        lines.append(b"tidegate-user: %b\r\n" % exchange.user.encode())
    if exchange.degraded:
        lines.append(b"tidegate-degraded: %b\r\n" % exchange.degraded.encode())
    if exchange.has_body:
        length = exchange.content_length
        lines.append(
            b"transfer-encoding: chunked\r\n" if length is None else b"content-length: %d\r\n" % length
        )
    elif exchange.method in {"POST", "PUT", "PATCH"}:
        lines.append(b"content-length: 0\r\n")  # expected by many servers (RFC 9110, 8.6)
    head = (
        b"%b %b HTTP/1.1\r\nhost: %b\r\n%b%b"
        b"x-forwarded-for: %b\r\nx-forwarded-proto: %b\r\nx-forwarded-host: %b\r\nx-request-id: %b\r\n"
        b"tidegate-deadline: %d\r\ntraceparent: 00-%b-%b-%b\r\n\r\n"
    ) % (
        *(exchange.method.encode(), exchange.target, host, plain, b"".join(lines) if lines else b""),
        *(exchange.forwarded_for, exchange.scheme.encode(), host, request_id),
        *(max(1, remaining * 1000), trace, span, flags),
    )
    breaks += len(lines) - 1
    # The guard has let no line break through; a user id or a policy could still bring one.
    if head.count(b"\n") != breaks or head.count(b"\r") != breaks or b" " in exchange.target:
        raise BadRequest("a header field or the target holds a line break or a space")
    return head
