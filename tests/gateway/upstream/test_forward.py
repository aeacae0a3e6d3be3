"""What the upstream gets to see of a request's header."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import BadRequest
from gateway.exchange import Exchange
from gateway.field import NOTABLE, Block, Field
from gateway.upstream.forward import OURS, request_head
from tests.gateway.upstream.scripted import make_exchange

TRACE = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
ID = b"0af7651916cd43dd8448eb211c80319c"


def sent(exchange: Exchange, remaining: float = 5.0) -> list[tuple[bytes, bytes]]:
    """Names and values as an upstream reads them."""
    head = request_head(exchange, remaining)
    assert head.endswith(b"\r\n\r\n")
    lines = head[:-4].split(b"\r\n")[1:]
    return [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in lines)]


def test_the_plain_request() -> None:
    """Line, Host and fields pass as received; ours are added."""
    exchange = make_exchange(
        "GET", b"/a%2fb/..//c;x?q=%20", [(b"accept", b"*/*"), (b"cookie", b"a"), (b"cookie", b"b")]
    )
    exchange.user, exchange.degraded = "u-42", "profile,recommendations"
    head = request_head(exchange, 1.5)
    assert head.startswith(b"GET /a%2fb/..//c;x?q=%20 HTTP/1.1\r\nhost: shop.example\r\n")
    fields = sent(exchange, 1.5)
    assert fields[1:4] == [(b"accept", b"*/*"), (b"cookie", b"a"), (b"cookie", b"b")]
    got = dict(fields)
    assert got[b"x-forwarded-for"] == b"192.0.2.7"
    assert got[b"x-forwarded-proto"] == b"http"
    assert got[b"x-forwarded-host"] == b"shop.example"
    assert got[b"x-request-id"] == ID
    assert got[b"tidegate-user"] == b"u-42"
    assert got[b"tidegate-degraded"] == b"profile,recommendations"
    assert got[b"tidegate-deadline"] == b"1500"
    assert re.fullmatch(b"00-" + ID + b"-(?!0{16})[0-9a-f]{16}-00", got[b"traceparent"])
    assert b"connection" not in got
    assert b"content-length" not in got


STRUCK = sorted(
    OURS
    | {b"te", b"trailer", b"upgrade", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"expect"}
    | {b"content-length", b"transfer-encoding", b"http2-settings"}
)


@pytest.mark.parametrize("dash", [b"-", b"_", b".", b"!", b"~"])
@pytest.mark.parametrize("name", STRUCK)
def test_what_a_client_may_not_say(name: bytes, dash: bytes) -> None:
    """Hop-by-hop fields, framing and the names that are ours do not pass, however they are spelt."""
    name = name.replace(b"-", dash)
    for headers in (
        [(name, b"forged"), (b"x-ok", b"1")],
        Block([Field(name, b"forged"), Field(b"x-ok", b"1")]),
    ):
        exchange = make_exchange(headers=[])
        exchange.headers = headers
        assert b"forged" not in request_head(exchange, 5.0)


@pytest.mark.parametrize("name", sorted(OURS | {b"traceparent", b"content-length", b"host"}))
def test_connection_can_not_strike_what_is_ours(name: bytes) -> None:
    """`Connection: Tidegate-User` removes the client's, never ours; what else it names goes."""
    exchange = make_exchange(
        "POST",
        headers=[(b"connection", b"X-Mine, close,\t" + name.title()), (b"x-mine", b"1"), (b"x-other", b"2")],
        body=[b"hi"],
        length=2,
    )
    exchange.user, exchange.degraded = "u", "d"
    before = {name for name, _ in sent(make_exchange())}
    got = dict(sent(exchange))
    assert before < got.keys()
    assert {b"tidegate-user", b"tidegate-degraded"} < got.keys()
    assert got[b"content-length"] == b"2"
    assert b"x-mine" not in got
    assert got[b"x-other"] == b"2"
    assert b"connection" not in got


@pytest.mark.parametrize(
    "forged",
    [
        b"",
        b"00",
        TRACE.upper(),
        TRACE.replace(b"00-", b"ff-", 1),
        b"00-" + b"0" * 32 + b"-00f067aa0ba902b7-01",
        b"00-4bf92f3577b34da6a3ce929d0e0e4736-" + b"0" * 16 + b"-01",
        TRACE + b"x",
    ],
)
def test_a_broken_trace_is_begun_anew(forged: bytes) -> None:
    """An invalid traceparent is not passed on, nor the tracestate beside it."""
    got = dict(sent(make_exchange(headers=[(b"traceparent", forged), (b"tracestate", b"a=b")])))
    assert got[b"traceparent"].startswith(b"00-" + ID)
    assert b"tracestate" not in got


def test_a_trace_goes_on_with_a_span_of_ours() -> None:
    """Trace id, flags and state pass; the span is new. Said twice, it is not believed."""
    field = (b"traceparent", TRACE)
    got = dict(sent(make_exchange(headers=[field, (b"tracestate", b"a=b")])))
    assert re.fullmatch(rb"00-4bf92f3577b34da6a3ce929d0e0e4736-[0-9a-f]{16}-01", got[b"traceparent"])
    assert got[b"traceparent"] != TRACE
    assert got[b"tracestate"] == b"a=b"
    assert dict(sent(make_exchange(headers=[field, field])))[b"traceparent"].startswith(b"00-" + ID)


@pytest.mark.parametrize(
    ("method", "body", "length", "framing"),
    [
        ("GET", None, None, None),
        ("POST", None, None, (b"content-length", b"0")),
        ("POST", [b"hi"], 2, (b"content-length", b"2")),
        ("POST", [b"hi"], None, (b"transfer-encoding", b"chunked")),
        ("GET", [b"hi"], 2, (b"content-length", b"2")),
        ("POST", [b""], 0, (b"content-length", b"0")),
    ],
)
def test_the_body_is_framed_anew(
    method: str, body: list[bytes] | None, length: int | None, framing: tuple[bytes, bytes] | None
) -> None:
    """One framing, ours, whatever the client sent as fields."""
    lies = [(b"content-length", b"7"), (b"transfer-encoding", b"chunked"), (b"content_length", b"9")]
    got = sent(make_exchange(method, headers=lies, body=body, length=length))
    assert [field for field in got if field[0] in {b"content-length", b"transfer-encoding"}] == (
        [framing] if framing else []
    )


@given(
    where=st.sampled_from(["user", "degraded", "host", "target", "value", "name", "forwarded_for"]),
    evil=st.sampled_from(["\r\n", "\n", "\r", "\r\nX: y", "a\nb", "\r\n\r\nGET / HTTP/1.1\r\n\r\n"]),
)
def test_nothing_breaks_out_of_its_line(where: str, evil: str) -> None:
    """A line break in whatever part refuses the request rather than smuggle another."""
    exchange = make_exchange()
    raw = evil.encode()
    if where in {"user", "degraded"}:
        setattr(exchange, where, evil)
    elif where in {"host", "target", "forwarded_for"}:
        setattr(exchange, where, raw)
    else:
        exchange.headers = [(b"x-a", raw) if where == "value" else (raw, b"x")]
    with pytest.raises(BadRequest):
        request_head(exchange, 5.0)


def test_the_deadline_is_never_zero() -> None:
    """Whoever is late still asks for one millisecond, not for none at all."""
    assert dict(sent(make_exchange(), -3.0))[b"tidegate-deadline"] == b"1"


@given(
    fields=st.lists(
        st.tuples(
            st.sampled_from([*sorted(NOTABLE), b"accept", b"cookie", b"x_forwarded_for", b"x-a"]),
            st.sampled_from([b"a", b"keep-alive", b"x-a, cookie", TRACE]),
        ),
        max_size=6,
    )
)
def test_a_block_is_forwarded_as_its_fields_are(fields: list[tuple[bytes, bytes]]) -> None:
    """The same lines; those that are looked at may come after the others."""
    plainly, block = make_exchange("GET", b"/", fields), make_exchange("GET", b"/", [])
    block.headers = Block([Field(*field) for field in fields])
    assert sorted(sent(block)) == sorted(sent(plainly))
