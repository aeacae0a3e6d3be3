"""Requests read without the parser: whatever is taken, the parser and the guard would have read alike."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from gateway import guard
from gateway.config import Listen
from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.field import Block, Field
from gateway.fields import HALF, MAX_LINE, Fields, values
from gateway.head import HeadReader
from gateway.request import Head, RequestReader
from gateway.upstream.forward import passed
from tests.gateway.conformance import table_framing, table_head
from tests.gateway.conformance.cases import Case

LISTEN = Listen(max_body=1000, max_target=200, max_headers=20, max_header_bytes=2000)
TABLE: list[Case] = [*table_head.TABLE, *table_framing.TABLE]


class Parsed:
    """What the parser and the guard make of some bytes; None where they refuse, or it is not one request."""

    def __init__(self) -> None:
        self.heads: list[Head] = []
        self.body = b""
        self.ends = 0

    def began(self) -> None:
        pass

    def head(self, head: Head) -> None:
        self.heads.append(head)

    def piece(self, body: bytes) -> None:
        self.body += body

    def ended(self) -> None:
        self.ends += 1


def slowly(data: bytes) -> tuple[Any, ...] | None:
    """Method, target, path, headers, Host, keep-alive, length and body, by the parser and the guard."""
    sink = Parsed()
    reader = RequestReader(sink, LISTEN)
    try:
        reader.feed(data)
        if reader.upgraded or sink.ends != 1 or len(sink.heads) != 1 or reader.in_header:
            return None
        head = sink.heads[0]
        scope = {
            "http_version": head.version,
            "method": head.method,
            "headers": head.headers,
            guard.TARGET: head.target,
        }
        exchange = Exchange(
            method="",
            target=b"",
            path="",
            headers=head.headers,
            host=b"",
            address="",
            receive=None,
            started=0.0,
        )
        guard.inspect(scope, LISTEN, exchange)
    except GatewayError:
        return None
    length = exchange.content_length or 0
    return (
        *(exchange.method, exchange.target, exchange.path, [tuple(field) for field in head.headers]),
        *(exchange.host, head.keep_alive, length, sink.body, head.expects),
    )


def alike(reader: HeadReader, data: bytes) -> bool:
    """Whether it was taken; what is taken must be what the parser and the guard make of it."""
    request = reader.read(data)
    if request is None:
        return False
    assert slowly(data) == (
        *(request.method, request.target, request.path, [tuple(field) for field in request.headers]),
        *(request.host, request.keep_alive, len(request.body), request.body, False),
    )
    return True


lines = st.one_of(
    st.sampled_from(
        [
            *(b"Host: shop.example", b"Host: other.example:80", b"host:shop.example", b"Host: a, b"),
            *(b"Content-Length: 5", b"Content-Length: 0", b"content-length:5 ", b"Content-Length: +5"),
            *(b"Content-Length: 5, 5", b"Content-Length: 05", b"Connection: close"),
            *(b"Host:", b"Connection: keep-alive"),
            *(b"Connection: Tidegate-User", b"Connection: upgrade", b"Upgrade: websocket"),
            *(b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Cookie: a=b", b"X-A: \xff\t b "),
            *(b"X-A : b", b" folded", b"X-A:\x00", b": x", b"X A: b", b"Tidegate_User: 7", b"TE: trailers"),
        ]
    ),
    st.binary(max_size=20),
    st.builds(lambda n, v: n + b": " + v, st.binary(min_size=1, max_size=6), st.binary(max_size=12)),
)
request_lines = st.one_of(
    st.sampled_from(
        [
            *(b"GET / HTTP/1.1", b"POST /a?b=c HTTP/1.1", b"GET /%2e%2e/x HTTP/1.1", b"GET /a#b HTTP/1.1"),
            *(b"GET / HTTP/1.0", b"HEAD //x;y HTTP/1.1", b"get / HTTP/1.1", b"GET  / HTTP/1.1"),
            *(b"TRACE / HTTP/1.1", b"GET /%zz HTTP/1.1"),
            *(b"OPTIONS * HTTP/1.1", b"GET http://shop.example/ HTTP/1.1", b"GET /\xe9 HTTP/1.1"),
        ]
    ),
    st.builds(lambda path: b"GET /" + path + b" HTTP/1.1", st.binary(max_size=20)),
)  # fmt: skip


@settings(max_examples=600, deadline=None)
@given(
    first=request_lines,
    fields=st.lists(lines, max_size=6),
    host=st.booleans(),
    body=st.sampled_from([b"", b"", b"hello", b"hello, you", b"GET / HTTP/1.1\r\nHost: evil\r\n\r\n"]),
    end=st.sampled_from([b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r"]),
)
@example(first=b"GET / HTTP/1.1", fields=[b"X: " + b"x" * 1000] * 3, host=True, body=b"", end=b"\r\n")
def test_what_is_taken_is_read_alike(
    first: bytes, fields: list[bytes], host: bool, body: bytes, end: bytes
) -> None:
    """Never more than the parser and the guard take, and never anything else; the same when remembered."""
    reader = HeadReader(LISTEN)
    data = end.join([first, *([b"Host: shop.example"] if host else []), *fields, b"", body])
    taken = [alike(reader, data) for _ in range(4)]  # anew, by its header, and as a whole
    assert taken in ([True] * 4, [False] * 4)


@settings(max_examples=300, deadline=None)
@given(data=st.binary(max_size=200), at=st.integers(0, 60), cut=st.integers(0, 60))
def test_a_mangled_request_is_read_alike(data: bytes, at: int, cut: int) -> None:
    """The same with bytes put in or taken out anywhere."""
    whole = b"POST /a HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\n\r\nhello"
    alike(HeadReader(LISTEN), whole[:at] + data[:3] + whole[at + cut % 3 :])


@pytest.mark.parametrize("case", TABLE, ids=lambda case: case.name)
def test_the_conformance_table_is_read_alike(case: Case) -> None:
    """No line of the table is taken that the parser and the guard refuse."""
    alike(HeadReader(LISTEN), case.request)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n",
        b"GET /a%20b?c HTTP/1.1\r\nHost: shop.example\r\nAccept: */*\r\nConnection: keep-alive\r\n\r\n",
        b"DELETE /a HTTP/1.1\r\nHost: shop.example:80\r\nConnection: close\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\n\r\nhello",
    ],
)
def test_the_usual_is_taken(data: bytes) -> None:
    """Else all this would be in vain."""
    assert alike(HeadReader(LISTEN), data)


@pytest.mark.parametrize(
    "data",
    [
        b"POST /a HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\n\r\nhell",
        b"POST /a HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001,
        b"GET /%b HTTP/1.1\r\nHost: shop.example\r\n\r\n" % (b"a" * 200),
        b"GET / HTTP/1.1\r\nHost: shop.example\r\n%b\r\n" % (b"X: y\r\n" * 20),
        b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\nGET / HTTP/1.1\r\nHost: shop.example\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: shop.example\r\n",
    ],
    ids=["body missing", "body too large", "target too long", "too many fields", "two requests", "not whole"],
)
def test_the_rest_is_left_to_the_parser(data: bytes) -> None:
    """What is too large, not whole, or more than one."""
    assert HeadReader(LISTEN).read(data) is None


def test_a_request_that_comes_again_is_remembered_whole() -> None:
    """Then it is not read at all; those with a body are, and memory for it is bounded."""
    reader = HeadReader(LISTEN)
    asked, sent = (
        b"%b HTTP/1.1\r\nHost: shop.example\r\n%b\r\n%b" % parts
        for parts in ((b"GET /a", b"", b""), (b"POST /a", b"Content-Length: 5\r\n", b"hello"))
    )
    seen = [(reader.read(asked), reader.read(sent)) for _ in range(4)]
    assert seen[3][0] is seen[2][0]
    assert seen[3][1] is not seen[2][1]
    for number in range(3000):
        reader.read(asked.replace(b"/a", b"/%d" % number))
    again, before = reader.read(asked), seen[2][0]
    assert again is not None
    assert before is not None
    assert again is not before
    assert (
        again.method,
        again.target,
        again.path,
        again.headers,
        again.host,
        again.keep_alive,
        again.body,
    ) == (
        *(
            before.method,
            before.target,
            before.path,
            before.headers,
            before.host,
            before.keep_alive,
            before.body,
        ),
    )


def read(fields: Fields, *lines: bytes) -> list[tuple[bytes, bytes]]:
    """What they say."""
    found = fields.read(list(lines))
    assert found is not None
    return found.fields


def test_blanks_cost_no_more_than_letters() -> None:
    """A line of a million blanks that ends badly is refused at once; tried from each it took hours."""
    blanks = b" \t" * (1 << 19)
    assert Fields().read([b"X:" + blanks + b"\0"]) is None
    assert read(Fields(), b"X:" + blanks + b"y" + blanks) == [(b"x", b"y")]


def test_memory_is_bounded() -> None:
    """A million different lines, some of them long, leave two generations behind."""
    fields = Fields()
    for number in range(3 * HALF):
        for _ in range(2):
            assert read(fields, b"X-User: %d" % number) == [(b"x-user", b"%d" % number)]
    assert HALF / 2 < len(fields) <= 2 * HALF
    before = len(fields)
    for _ in range(2):
        assert read(fields, b"Cookie: " + b"c" * MAX_LINE)
    assert len(fields) == before


def test_what_comes_once_takes_no_memory() -> None:
    """A crowd whose lines never come again drives nobody else's out."""
    fields = Fields()
    for number in range(3 * HALF):
        read(fields, b"Cookie: session=%d" % number)
    assert len(fields) < HALF / 100  # some few marks are alike


def test_a_line_in_use_is_not_forgotten() -> None:
    """What is used in every generation is read once."""
    fields = Fields()
    read(fields, b"Accept: */*")
    (first,) = read(fields, b"Accept: */*")
    for number in range(3 * HALF):
        for _ in range(2):
            again, _ = read(fields, b"Accept: */*", b"X-User: %d" % number)
            assert again is first


def test_a_header_that_comes_again_is_remembered() -> None:
    """Whatever the request line and the body; the third time it is not read any more."""
    reader = HeadReader(LISTEN)
    header = b"Host: shop.example\r\nContent-Length: 5\r\n\r\n"
    first = reader.read(b"POST /a HTTP/1.1\r\n" + header + b"hello")
    second = reader.read(b"POST /a HTTP/1.1\r\n" + header + b"hello")
    again = reader.read(b"PUT /b HTTP/1.1\r\n" + header + b"olleh")
    assert first is not None
    assert second is not None
    assert again is not None
    assert list(second.headers) == list(first.headers)
    assert type(second.headers) is Block
    assert again.headers is second.headers
    assert (again.method, again.target, again.body) == ("PUT", b"/b", b"olleh")
    assert reader.read(b"POST /a HTTP/1.1\r\n" + header + b"hello!") is None, "longer than it says"


names = st.sampled_from(
    [
        *(b"A", b"a", b"Cookie", b"Date", b"Connection", b"Traceparent", b"Tracestate", b"Tidegate_User"),
        *(b"X-Forwarded-For", b"Host", b"X.Request.Id"),
    ]
)
trace = b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01"
contents = st.sampled_from([b"5", b"", b"a, b", b"close", b"cookie", b"A, date", b"\xff\t \xe9", trace])


@given(lists=st.lists(st.lists(st.tuples(names, contents), max_size=8), max_size=5))
def test_lines_mean_the_same_however_often_they_came(lists: list[list[tuple[bytes, bytes]]]) -> None:
    """What is found by name, and what is passed on, is that of a plain list of the same fields."""
    fields = Fields()
    for said in lists:
        listed = [(name.lower(), value.strip(b" \t")) for name, value in said]
        for _ in range(3):
            found = fields.read([b"%b: %b" % one for one in said])
            assert found is not None
            assert found.fields == listed
            block = Block(found.fields)
            block.plain, block.notable = found.plain, found.notable
            for name in {name for name, _ in listed} | {b"x"}:
                assert values(block, name) == values(listed, name)
            ours, theirs = passed(block), passed(listed)
            assert (ours.trace, ours.flags) == (theirs.trace, theirs.flags)
            # Fields of different names have no order (RFC 9110, 5.3).
            assert by_name(ours.lines) == by_name(theirs.lines)


def by_name(lines: bytes) -> dict[bytes, list[bytes]]:
    found: dict[bytes, list[bytes]] = {}
    for line in lines.splitlines(keepends=True):
        found.setdefault(line.partition(b":")[0], []).append(line)
    return found


@pytest.mark.parametrize(("name", "value"), [(b"a", b"b\nc"), (b"a\r", b"b"), (b"a", b"b\r\nc: d")])
def test_a_field_is_one_line(name: bytes, value: bytes) -> None:
    """So blocks of fields need not be looked at again before they are sent."""
    with pytest.raises(ValueError, match="line break"):
        Field(name, value)


@pytest.mark.parametrize("name", [b"x-forwarded-for", b"tidegate_user", b"content-length", b"connection"])
def test_notable_fields_are_looked_at(name: bytes) -> None:
    """Also in the spelling that CGI takes for them."""
    assert not Field(name, b"x").plain
    assert Field(b"x-" + name, b"x").plain
