"""Request lines, targets, Host and other header fields: what passes and what does not."""

from __future__ import annotations

from tests.gateway.conformance.cases import BAD, FIVE, HOST, OK, Case, Passed, Refused, Waits, get, post

UPGRADE = (
    b"Upgrade: websocket",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
)

REQUEST_LINES = [
    Case("COMP-BASELINE", "3", "nobody", get(), OK),
    Case("COMP-DATE-HEADER", "9110 6.6.1", "connection", get(), OK),
    Case("COMP-DATE-FORMAT", "9110 5.6.7", "connection", get(), OK),
    Case("COMP-CONTENT-TYPE", "9110 8.3", "upstream", get(), OK),
    Case("h1spec: Valid GET request", "3", "nobody", get(target=b"/hello"), Passed(target=b"/hello")),
    Case("RFC9112-3-MULTI-SP-REQUEST-LINE", "3", "parser", get(method=b"GET "), OK),
    Case("RFC9112-3-MISSING-TARGET", "3", "parser", b"GET HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    Case("RFC9112-2.3-HTTP09-REQUEST", "2.3", "parser", b"GET /\r\n", BAD),
    Case("h1spec: Request without HTTP version", "3", "parser", b"GET / \r\n\r\n", BAD),
    Case("RFC9112-2.3-INVALID-VERSION", "2.3", "parser", get(version=b"HTTP/9.9"), BAD),
    Case("h1spec: Invalid HTTP version", "2.3", "parser", get(version=b"HTTP/9.9"), BAD),
    Case("h1spec: Invalid prefix of request", "3", "parser", b"Extra line" + get(), BAD),
    Case("COMP-VERSION-MISSING-MINOR", "2.3", "parser", get(version=b"HTTP/1"), BAD),
    Case("COMP-VERSION-LEADING-ZEROS", "2.3", "parser", get(version=b"HTTP/01.01"), BAD),
    Case("COMP-VERSION-WHITESPACE", "2.3", "parser", get(version=b"HTTP/ 1.1"), BAD),
    Case("COMP-VERSION-CASE", "2.3", "parser", get(version=b"http/1.1"), BAD),
    Case("COMP-HTTP12-VERSION", "2.3", "parser", get(version=b"HTTP/1.2"), BAD),
    Case("COMP-REQUEST-LINE-TAB", "3", "parser", b"GET\t/ HTTP/1.1\r\nHost: a\r\n\r\n", BAD),
    Case("COMP-SPACE-IN-TARGET", "3.2", "parser", get(target=b"/pa th"), BAD),
    Case("RFC9112-3-CR-ONLY-LINE-ENDING", "2.2", "parser", b"GET / HTTP/1.1\rHost: a\r\n\r\n", BAD),
    Case("RFC9112-2.2-BARE-LF-REQUEST-LINE", "2.2", "parser", b"GET / HTTP/1.1\nHost: a\r\n\r\n", BAD),
    Case("RFC9112-2.2-BARE-LF-HEADER", "2.2", "parser", get(b"X-Test: a\nX-More: b"), BAD),
    Case("COMP-LEADING-CRLF", "2.2", "parser", b"\r\n\r\n" + get(), OK),
    Case("COMP-WHITESPACE-BEFORE-HEADERS", "2.2", "parser", b"GET / HTTP/1.1\r\n \r\nHost: a\r\n\r\n", BAD),
    Case("MAL-WHITESPACE-ONLY-LINE", "2.2", "parser", b"   \r\n\r\n", BAD),
    Case("MAL-BINARY-GARBAGE", "3", "parser", bytes(range(0x80, 0x100)) + b"\r\n\r\n", BAD),
    Case("MAL-H2-PREFACE", "2.3", "parser", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", BAD),
    Case("MAL-EMPTY-REQUEST", "3", "connection", b"", Waits()),
    Case("MAL-INCOMPLETE-REQUEST", "8", "connection", get(b"X-Test: value")[:-4], Waits()),
    # methods
    Case("COMP-METHOD-CASE", "3.1", "parser", get(method=b"get"), BAD),
    Case("COMP-UNKNOWN-METHOD", "9110 9.1", "parser", get(method=b"FOOBAR"), BAD),
    Case("MAL-LONG-METHOD", "3.1", "parser", get(method=b"A" * 100_000), BAD),
    Case("COMP-METHOD-CONNECT", "9110 9.3.6", "guard", get(method=b"CONNECT", target=b"a:443"), Refused(501)),
    Case("connect with a path", "9110 9.3.6", "guard", get(method=b"CONNECT"), Refused(501)),
    Case("COMP-METHOD-TRACE", "9110 9.3.8", "guard", get(method=b"TRACE"), Refused(501)),
    Case(
        "COMP-TRACE-SENSITIVE", "9110 9.3.8", "guard", get(b"Authorization: x", method=b"TRACE"), Refused(501)
    ),
    Case(
        "COMP-TRACE-WITH-BODY",
        "9110 9.3.8",
        "guard",
        get(b"Content-Length: 5", method=b"TRACE", body=b"hello"),
        Refused(501),
    ),
    Case("COMP-405-ALLOW", "9110 15.5.6", "upstream", get(method=b"DELETE"), OK),
    Case("COMP-OPTIONS-ALLOW", "9110 9.3.7", "upstream", get(method=b"OPTIONS"), OK),
    Case("COMP-NO-CL-IN-204", "9110 8.6", "upstream", get(method=b"OPTIONS"), OK),
    Case("COMP-HEAD-NO-BODY", "9110 9.3.2", "connection", get(method=b"HEAD"), OK),
    # HTTP/1.0
    Case("COMP-HTTP10-DEFAULT-CLOSE", "9.3", "connection", get(version=b"HTTP/1.0"), Passed(close=True)),
    Case("COMP-HTTP10-NO-HOST", "3.2", "guard", get(version=b"HTTP/1.0", host=None), BAD),
    Case("HTTP/1.0 keep-alive", "9.3", "connection", get(b"Connection: keep-alive", version=b"HTTP/1.0"), OK),
    Case(
        "COMP-NO-1XX-HTTP10",
        "9110 15.2",
        "connection",
        post(b"Expect: 100-continue", b"Content-Length: 5", body=b"hello", version=b"HTTP/1.0"),
        Passed((b"hello",), close=True),
    ),
    Case("COMP-UPGRADE-HTTP10", "9110 7.8", "guard", get(*UPGRADE, version=b"HTTP/1.0"), Refused(501)),
    Case("COMP-CONNECTION-CLOSE", "9.6", "connection", get(b"Connection: close"), Passed(close=True)),
]

TARGETS = [
    Case("COMP-ABSOLUTE-FORM", "3.2.2", "guard", get(target=b"http://shop.example/"), Passed(target=b"/")),
    Case(
        "absolute-form without a path",
        "3.2.2",
        "guard",
        get(target=b"http://shop.example?a"),
        Passed(target=b"/?a"),
    ),
    Case("SMUG-ABSOLUTE-URI-HOST-MISMATCH", "3.2.2", "guard", get(target=b"http://other.example/"), BAD),
    Case("COMP-ASTERISK-WITH-GET", "3.2.4", "guard", get(target=b"*"), BAD),
    # Told that it is not had, not that all is well: the gateway is no origin server.
    Case("COMP-OPTIONS-STAR", "3.2.4", "guard", get(method=b"OPTIONS", target=b"*"), Refused(501)),
    Case("RFC9112-3.2-FRAGMENT-IN-TARGET", "3.2", "guard", get(target=b"/path#frag"), BAD),
    Case("COMP-LONG-URL-OK", "3", "connection", get(target=b"/" + b"a" * 7990), OK),
    Case("MAL-LONG-URL", "9110 15.5.15", "connection", get(target=b"/" + b"a" * 100_000), Refused(414)),
    Case("MAL-NUL-IN-URL", "3.2", "parser", get(target=b"/\0test"), BAD),
    Case("MAL-NON-ASCII-URL", "3986 2", "guard", get(target=b"/caf\xc3\xa9"), BAD),
    Case(
        "MAL-URL-BACKSLASH", "3986 2", "upstream", get(target=b"/path\\file"), Passed(target=b"/path\\file")
    ),
    Case("MAL-URL-OVERLONG-UTF8", "3629 3", "guard", get(target=b"/\xc0\xaf"), BAD),
    Case("overlong UTF-8, escaped", "3629 3", "guard", get(target=b"/%c0%af"), BAD),
    Case("MAL-URL-PERCENT-NULL", "3986 7.3", "guard", get(target=b"/path%00.html"), BAD),
    Case("MAL-URL-PERCENT-CRLF", "3986 7.3", "guard", get(target=b"/path%0d%0aX-Injected:%20true"), BAD),
]

HOSTS = [
    Case("RFC9112-7.1-MISSING-HOST", "3.2", "guard", get(host=None), BAD),
    Case("h1spec: Missing Host header", "3.2", "guard", get(b"Content-Length: 0", host=None), BAD),
    Case("RFC9110-5.4-DUPLICATE-HOST", "3.2", "guard", get(b"Host: other.example"), BAD),
    Case("h1spec: Multiple Host headers", "3.2", "guard", get(b"Host: example.org"), BAD),
    Case("COMP-DUPLICATE-HOST-SAME", "3.2", "guard", get(HOST), BAD),
    Case("COMP-HOST-WITH-USERINFO", "3.2", "guard", get(host=b"Host: user@shop.example"), BAD),
    Case("COMP-HOST-WITH-PATH", "3.2", "guard", get(host=b"Host: shop.example/path"), BAD),
    Case("COMP-HOST-EMPTY-VALUE", "3.2", "guard", get(host=b"Host: "), BAD),
    Case("SMUG-MULTIPLE-HOST-COMMA", "3.2", "guard", get(host=b"Host: shop.example, other.example"), BAD),
]

FIELDS = [
    Case("RFC9112-5.1-OBS-FOLD", "5.2", "parser", get(b"X-Test: value", b" continued"), BAD),
    Case("RFC9110-5.6.2-SP-BEFORE-COLON", "5.1", "parser", get(b"X-Test : value"), BAD),
    Case("RFC9112-5-EMPTY-HEADER-NAME", "5", "parser", get(b": empty-name"), BAD),
    Case("RFC9112-5-INVALID-HEADER-NAME", "5", "parser", get(b"Bad[Name: value"), BAD),
    Case("h1spec: Invalid header characters", "5", "parser", get(b"X-Invalid[]: test"), BAD),
    Case("RFC9112-5-HEADER-NO-COLON", "5", "parser", get(b"NoColonHere"), BAD),
    Case("MAL-NON-ASCII-HEADER-NAME", "5", "parser", get(b"X-T\xebst: value"), BAD),
    Case("MAL-CONTROL-CHARS-HEADER", "9110 5.5", "parser", get(b"X-Test: abc\x07\x08\x0bdef"), BAD),
    Case(
        "h1spec: Header containing invalid control character", "9110 5.5", "parser", get(b"X-A: b\x07"), BAD
    ),
    Case("MAL-NUL-IN-HEADER-VALUE", "9110 5.5", "parser", get(b"X-Test: val\0ue"), BAD),
    Case("SMUG-BARE-CR-HEADER-VALUE", "2.2", "parser", get(b"X-Test: val\rue"), BAD),
    Case("h1spec: Invalid line ending", "2.2", "parser", get(b"\rSome-Header: Test"), BAD),
    Case("MAL-LONG-HEADER-VALUE", "6585 5", "connection", get(b"X-Big: " + b"A" * 100_000), Refused(431)),
    Case("MAL-LONG-HEADER-NAME", "6585 5", "connection", get(b"A" * 100_000 + b": val"), Refused(431)),
    Case(
        "MAL-MANY-HEADERS",
        "6585 5",
        "connection",
        get(*[b"X-H-%d: v" % n for n in range(10_000)]),
        Refused(431),
    ),
    Case(
        "h1spec: Valid GET request with edge cases",
        "5.1",
        "nobody",
        get(b"empty:", host=b"hoSt:\tshop.example"),
        OK,
    ),
    Case("h1spec: Empty header value", "5.1", "nobody", get(b"X-Empty-Header: "), OK),
    Case(
        "COMP-EXPECT-UNKNOWN",
        "9110 10.1.1",
        "forwarding",
        get(b"Expect: 200-ok"),
        Passed(absent=(b"expect",)),
    ),
    Case(
        "h1spec: Request with Expect header",
        "9110 10.1.1",
        "connection",
        get(b"Expect: 100-continue"),
        Passed(absent=(b"expect",)),
    ),
    Case(
        "COMP-DUPLICATE-CT",
        "9110 5.3",
        "upstream",
        post(b"Content-Length: 5", b"Content-Type: text/plain", b"Content-Type: text/html", body=b"hello"),
        FIVE,
    ),
    Case(
        "COMP-RANGE-POST",
        "9110 14.2",
        "upstream",
        post(b"Content-Length: 5", b"Range: bytes=0-10", body=b"hello"),
        Passed((b"hello",), fields=((b"range", b"bytes=0-10"),)),
    ),
    Case("COMP-RANGE-INVALID", "9110 14.2", "upstream", get(b"Range: bytes=abc-xyz"), OK),
    Case(
        "MAL-RANGE-OVERLAPPING",
        "9110 14.2",
        "upstream",
        get(b"Range: bytes=" + b",".join([b"0-"] * 1000)),
        OK,
    ),
    Case("COMP-ACCEPT-NONSENSE", "9110 12.5.1", "upstream", get(b"Accept: application/x-nonsense"), OK),
    Case(
        "COMP-POST-UNSUPPORTED-CT",
        "9110 15.5.16",
        "upstream",
        post(b"Content-Length: 5", b"Content-Type: application/x-nonsense", body=b"hello"),
        FIVE,
    ),
    # upgrades: no other protocol is carried
    Case("COMP-UPGRADE-POST", "9110 7.8", "guard", post(b"Connection: Upgrade", *UPGRADE), Refused(501)),
    Case("COMP-UPGRADE-MISSING-CONN", "9110 7.8", "guard", get(*UPGRADE), Refused(501)),
    Case(
        "COMP-UPGRADE-UNKNOWN",
        "9110 7.8",
        "guard",
        get(b"Connection: Upgrade", b"Upgrade: totally-made-up/1.0"),
        Refused(501),
    ),
    Case(
        "COMP-UPGRADE-INVALID-VER",
        "9110 7.8",
        "guard",
        get(b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Version: 99"),
        Refused(501),
    ),
    # hop-by-hop
    Case(
        "a field named in Connection goes no further",
        "9110 7.6.1",
        "forwarding",
        get(b"Connection: x-a, Tidegate-User", b"X-A: b", b"TE: trailers", b"Keep-Alive: 5"),
        Passed(absent=(b"x-a", b"te", b"keep-alive", b"connection", b"tidegate-user")),
    ),
]


def _conditional(name: str, field: bytes) -> Case:
    lower, _, value = field.partition(b": ")
    return Case(name, "9110 13", "upstream", get(field), Passed(fields=((lower.lower(), value),)))


CONDITIONALS = [
    _conditional("CAP-ETAG-304", b'If-None-Match: "v1"'),
    _conditional("CAP-ETAG-IN-304", b'If-None-Match: "v1", "v2"'),
    _conditional("CAP-ETAG-WEAK", b'If-None-Match: W/"no-etag"'),
    _conditional("CAP-INM-UNQUOTED", b"If-None-Match: no-etag"),
    _conditional("CAP-INM-WILDCARD", b"If-None-Match: *"),
    _conditional("CAP-INM-PRECEDENCE", b"If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT"),
    _conditional("CAP-LAST-MODIFIED-304", b"If-Modified-Since: Sun, 22 Nov 2026 00:00:00 GMT"),
    _conditional("CAP-IMS-FUTURE", b"If-Modified-Since: Thu, 01 Jan 2099 00:00:00 GMT"),
    _conditional("CAP-IMS-INVALID", b"If-Modified-Since: not-a-date"),
    _conditional("COOK-ECHO", b"Cookie: foo=bar"),
    _conditional("COOK-PARSED-BASIC", b"Cookie: foo=bar"),
    _conditional("COOK-PARSED-MULTI", b"Cookie: a=1; b=2; c=3"),
    _conditional("COOK-PARSED-EMPTY-VAL", b"Cookie: foo="),
    _conditional("COOK-PARSED-SPECIAL", b"Cookie: a=hello world; b=x=y"),
    _conditional("COOK-MALFORMED", b"Cookie: ===;;;"),
    _conditional("COOK-EMPTY", b"Cookie: "),
    _conditional("COOK-MANY-PAIRS", b"Cookie: " + b"; ".join(b"k%d=v" % n for n in range(1000))),
    Case(
        "COOK-MULTI-HEADER",
        "6265 5.4",
        "upstream",
        get(b"Cookie: a=1", b"Cookie: b=2"),
        Passed(fields=((b"cookie", b"a=1"), (b"cookie", b"b=2"))),
    ),
    Case("COOK-OVERSIZED", "6585 5", "connection", get(b"Cookie: big=" + b"A" * 65_536), Refused(431)),
    Case("COOK-NUL", "9110 5.5", "parser", get(b"Cookie: foo=\0bar"), BAD),
    Case("COOK-CONTROL-CHARS", "9110 5.5", "parser", get(b"Cookie: foo=\x01\x02\x03"), BAD),
]

_WHOLE = b"GET /hello HTTP/1.1\r\nHost: localhost\r\n\r\n"
FRAGMENTS = [
    Case(f"h1spec: Fragmented {what}", "8", "connection", _WHOLE[:length], Waits())
    for what, length in {
        "method": 1,
        "URL 1": 4,
        "URL 2": 10,
        "URL 3": 11,
        "HTTP version": 15,
        "request line": 19,
        "request line newline 1": 20,
        "request line newline 2": 21,
        "field name": 24,
        "field value 1": 26,
        "field value 2": 27,
        "field value 3": 36,
        "field value 4": 37,
        "request": 38,
        "request termination": 39,
    }.items()
]

TABLE = [*REQUEST_LINES, *TARGETS, *HOSTS, *FIELDS, *CONDITIONALS, *FRAGMENTS]
