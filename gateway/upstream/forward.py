"""The head of a request as the upstream gets it: what goes, what stays, what is ours."""

from __future__ import annotations

import re
from typing import Final

from gateway.digits import digits
from gateway.errors import BadRequest
from gateway.exchange import Exchange, Header
from gateway.field import AS_CGI, CR, HOP_BY_HOP, LF, OURS, Block, Field
from gateway.upstream.response import connection_tokens

# Expect is answered at the gate; proxy-authorization was meant for us.
_DROP: Final = (
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
_SPACE: Final = ord(" ")
_PLAIN_CONNECTION: Final = frozenset({b"keep-alive", b"close", b"Keep-Alive", b"Close"})
TRACEPARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)


class Passed:  # plain: compiled, a named tuple costs six times as much
    """What of a client's header goes on to the upstream.

    Attributes:
        lines: as they are sent.
        trace: the id of the trace that the client takes part in, 32 hex digits, or None.
        flags: of that trace, 2 hex digits.
    """

    __slots__ = ("flags", "lines", "trace")

    def __init__(self, lines: bytes, trace: bytes | None, flags: bytes) -> None:
        self.lines = lines
        self.trace = trace
        self.flags = flags


def passed(headers: Header) -> Passed:
    """What goes on; of a block it is found out once."""
    if type(headers) is not Block:
        return _sift(headers)
    known: Passed | None = headers.passed
    if known is None:
        known = headers.passed = _sift(headers)
    return known


def _sift(headers: Header) -> Passed:
    plain, looked_at = b"", headers
    if type(headers) is Block and headers.plain is not None:
        plain, looked_at = headers.plain, headers.notable
    lines: list[bytes] = []
    named: set[bytes] = set()
    traces: list[bytes] = []
    states: list[bytes] = []
    for field in looked_at:
        if type(field) is Field and field.plain:
            lines.append(field.line)
            continue
        name, value = field
        if name not in _DROP:
            # CGI-like upstreams read Tidegate_User as Tidegate-User, and some Tidegate.User too.
            if name.translate(AS_CGI) not in _DROP:
                lines.append(b"%b: %b\r\n" % (name, value))
        elif name == b"connection":
            if value not in _PLAIN_CONNECTION:
                named |= connection_tokens(value)
        elif name == b"traceparent":
            traces.append(value)
        elif name == b"tracestate":
            states.append(value)
    if named:
        lines = [*plain.splitlines(keepends=True), *lines]
        lines = [line for line in lines if line.partition(b":")[0] not in named]
        plain = b""
    # Said twice, it is as good as not said (W3C Trace Context, 3.2).
    match = TRACEPARENT.fullmatch(traces[0]) if len(traces) == 1 else None
    if match is not None and states:
        lines.append(b"tracestate: %b\r\n" % b",".join(states))
    kept = b"".join(lines)  # what is plain was read line by line, and holds no other break
    # The guard lets no line break through.
    if _breaks(lines, kept):
        raise BadRequest("a header field holds a line break")
    kept = plain + kept
    return Passed(kept, match[1], match[3]) if match is not None else Passed(kept, None, b"00")


def request_head(exchange: Exchange, remaining: float) -> bytes:
    """Request line and header section, with the empty line.

    Args:
        exchange: the request.
        remaining: seconds until its deadline.

    Raises:
        BadRequest: some part would break out of its line.
    """
    host, request_id, method = exchange.host, exchange.request_id, exchange.method
    goes_on = passed(exchange.headers)
    # Ours are added to what Connection names was struck from, so that no client can strike them too.
    own = []
    if exchange.user is not None:
        own.append(b"tidegate-user: %b\r\n" % exchange.user.encode())
    if exchange.degraded:
        own.append(b"tidegate-degraded: %b\r\n" % exchange.degraded.encode())
    if exchange.has_body:
        length = exchange.content_length
        own.append(
            b"transfer-encoding: chunked\r\n" if length is None else b"content-length: %d\r\n" % length
        )
    elif method in {"POST", "PUT", "PATCH"}:
        own.append(b"content-length: 0\r\n")  # expected by many servers (RFC 9110, 8.6)
    more = b"".join(own)
    # The guard has let no line break through; a user id or a policy could still bring one.
    said = exchange.target + host + exchange.forwarded_for
    if LF in said or CR in said or _SPACE in exchange.target or _breaks(own, more):
        raise BadRequest("a header field or the target holds a line break or a space")
    first = b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (method.encode(), exchange.target, host)
    # Our request id is a fresh trace id too; unsampled, since the gate records no spans. The span's id is
    # that of our own record, when there is one; else it need only differ from other requests'.
    span = b"%016x" % exchange.span if exchange.span else request_id[16:]
    ours = (
        b"x-forwarded-for: %b\r\nx-forwarded-proto: %b\r\nx-forwarded-host: %b\r\nx-request-id: %b\r\n"
        b"tidegate-deadline: %b\r\ntraceparent: 00-%b-%b-%b\r\n\r\n"
    ) % (
        exchange.forwarded_for,
        exchange.scheme.encode(),
        host,
        request_id,
        digits(max(1, int(remaining * 1000))),
        goes_on.trace or request_id,
        span,
        goes_on.flags,
    )
    return b"%b%b%b%b" % (first, goes_on.lines, more, ours)


def _breaks(lines: list[bytes], together: bytes) -> bool:
    """Whether these lines hold another break than their ends."""
    return bool(lines) and (together.count(b"\n") != len(lines) or together.count(b"\r") != len(lines))
