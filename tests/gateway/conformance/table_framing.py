"""Where a body ends: lengths, chunks, both at once, and requests hidden in bodies."""
# ruff: noqa: E501 - a table is read along its columns

from __future__ import annotations

from tests.gateway.conformance.cases import (
    BAD,
    CHUNKED,
    FIVE,
    HELLO,
    OK,
    Case,
    Passed,
    Refused,
    Waits,
    chunks,
    get,
    post,
)


def length(value: bytes, body: bytes = b"hello") -> bytes:
    return post(b"Content-Length: " + value, body=body)


def coding(value: bytes, body: bytes = b"hello") -> bytes:
    """A transfer coding beside a length, as smugglers write it."""
    return post(b"Transfer-Encoding:" + value, b"Content-Length: 5", body=body)


LENGTHS = [
    Case("COMP-POST-CL-BODY", "6.2", "nobody", length(b"5"), FIVE),
    Case("h1spec: Valid POST request with body", "6.2", "nobody", length(b"5"), FIVE),
    Case("COMP-POST-CL-ZERO", "6.2", "nobody", length(b"0", b""), OK),
    Case("COMP-POST-NO-CL-NO-TE", "6.3", "nobody", post(), OK),
    Case("COMP-POST-CL-UNDERSEND", "8", "connection", length(b"10"), Waits()),
    Case("COMP-GET-WITH-CL-BODY", "9110 9.3.1", "upstream", get(b"Content-Length: 5", body=b"hello"), FIVE),
    Case("RFC9112-6.1-CL-NON-NUMERIC", "6.3", "parser", length(b"abc"), BAD),
    Case("h1spec: Non-numeric Content-Length header", "6.3", "parser", length(b"abc"), BAD),
    Case("RFC9112-6.1-CL-PLUS-SIGN", "6.3", "parser", length(b"+5"), BAD),
    Case("SMUG-CL-NEGATIVE", "6.3", "parser", length(b"-1", b""), BAD),
    Case("h1spec: Negative Content-Length header", "6.3", "parser", length(b"-1234"), BAD),
    Case("h1spec: Overflowing negative Content-Length header", "6.3", "parser", length(b"-1" + b"2" * 26), BAD),
    Case("SMUG-CL-NEGATIVE-ZERO", "6.3", "parser", length(b"-0", b""), BAD),
    Case("SMUG-CL-LEADING-ZEROS", "6.3", "forwarding", length(b"005"), FIVE),
    Case("SMUG-CL-DOUBLE-ZERO", "6.3", "forwarding", length(b"00", b""), OK),
    Case("SMUG-CL-LEADING-ZEROS-OCTAL", "6.3", "forwarding", length(b"0200", b"A" * 200), Passed((b"A" * 200,))),
    Case("SMUG-CL-OCTAL", "6.3", "parser", length(b"0o5"), BAD),
    Case("SMUG-CL-HEX-PREFIX", "6.3", "parser", length(b"0x5"), BAD),
    Case("SMUG-CL-UNDERSCORE", "6.3", "parser", length(b"1_0", b"helloworld"), BAD),
    Case("SMUG-CL-INTERNAL-SPACE", "6.3", "parser", length(b"1 0", b"hello12345"), BAD),
    Case("SMUG-CL-TRAILING-SPACE", "5.1", "connection", length(b"5 "), FIVE),
    Case("SMUG-CL-EXTRA-LEADING-SP", "5.1", "parser", length(b"  5"), FIVE),
    Case("MAL-CL-TAB-BEFORE-VALUE", "5.1", "parser", post(b"Content-Length:\t5", body=b"hello"), FIVE),
    Case("MAL-CL-EMPTY", "6.3", "parser", length(b"", b""), BAD),
    Case("MAL-CL-OVERFLOW", "6.3", "parser", length(b"99999999999999999999", b""), BAD),
    Case("MAL-POST-CL-HUGE-NO-BODY", "9110 15.5.14", "guard", length(b"999999999", b""), Refused(413)),
    Case("SMUG-DUPLICATE-CL", "6.3", "parser", post(b"Content-Length: 5", b"Content-Length: 10", body=b"hello" * 2), BAD),
    Case("the same length twice", "6.3", "parser", post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"), BAD),
    Case("SMUG-CL-COMMA-DIFFERENT", "6.3", "parser", length(b"5, 10"), BAD),
    Case("SMUG-CL-COMMA-SAME", "6.3", "parser", length(b"5, 5"), BAD),
    Case("SMUG-CL-COMMA-TRIPLE", "6.3", "parser", length(b"5, 5, 5"), BAD),
    Case("SMUG-HEAD-CL-BODY", "9110 9.3.2", "upstream", get(b"Content-Length: 5", method=b"HEAD", body=b"hello"), FIVE),
    Case("SMUG-OPTIONS-CL-BODY", "9110 9.3.7", "upstream", get(b"Content-Length: 5", method=b"OPTIONS", body=b"hello"), FIVE),
    Case("NORM-UNDERSCORE-CL", "9110 5.1", "forwarding", post(b"Content-Length: 5", b"Content_Length: 99", body=b"hello"), Passed((b"hello",), absent=(b"content_length",))),
    Case("NORM-SP-BEFORE-COLON-CL", "5.1", "parser", post(b"Content-Length: 11", b"Content-Length : 5", body=b"hello world"), BAD),
    Case("NORM-TAB-IN-NAME", "5.1", "parser", post(b"Content-Length: 11", b"Content\tLength: 99", body=b"hello world"), BAD),
    # told to wait, it did not: the body is one all the same
    Case("SMUG-EXPECT-100-CL", "9110 10.1.1", "connection", post(b"Content-Length: 5", b"Expect: 100-continue", body=b"hello"), FIVE),
]  # fmt: skip

CODINGS = [
    Case("COMP-UNKNOWN-TE-501", "6.1", "guard", post(b"Transfer-Encoding: gzip"), BAD),
    Case("gzip, chunked", "6.1", "guard", post(b"Transfer-Encoding: gzip, chunked", body=HELLO), Refused(501)),
    Case("SMUG-TE-XCHUNKED", "6.1", "parser", coding(b" xchunked"), BAD),
    Case("SMUG-TE-TRAILING-SPACE", "6.3", "parser", coding(b" chunked "), BAD),
    Case("SMUG-TE-SP-BEFORE-COLON", "5.1", "parser", post(b"Transfer-Encoding : chunked", b"Content-Length: 5", body=b"hello"), BAD),
    Case("SMUG-TE-DOUBLE-CHUNKED", "6.1", "parser", coding(b" chunked, chunked"), BAD),
    Case("chunked twice, no length", "6.1", "guard", post(b"Transfer-Encoding: chunked, chunked", body=HELLO), BAD),
    Case("SMUG-TE-CASE-MISMATCH", "6.3", "parser", coding(b" Chunked"), BAD),
    Case("SMUG-TE-NOT-FINAL-CHUNKED", "6.3", "parser", post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"), BAD),
    Case("SMUG-TE-HTTP10", "6.1", "parser", post(CHUNKED, b"Content-Length: 5", body=b"hello", version=b"HTTP/1.0"), BAD),
    Case("chunked in HTTP/1.0, no length", "6.1", "guard", post(CHUNKED, body=HELLO, version=b"HTTP/1.0"), BAD),
    Case("SMUG-TE-EMPTY-VALUE", "6.1", "parser", coding(b" "), BAD),
    Case("SMUG-TE-LEADING-COMMA", "6.1", "parser", coding(b" , chunked"), BAD),
    Case("a leading comma, no length", "6.1", "guard", post(b"Transfer-Encoding: , chunked", body=HELLO), BAD),
    Case("SMUG-TE-TRAILING-COMMA", "6.1", "parser", coding(b" chunked,"), BAD),
    Case("SMUG-TE-DUPLICATE-HEADERS", "6.1", "parser", coding(b" chunked\r\nTransfer-Encoding: identity"), BAD),
    Case("two codings, no length", "6.1", "parser", post(CHUNKED, b"Transfer-Encoding: identity", body=HELLO), BAD),
    Case("SMUG-TE-IDENTITY", "6.1", "parser", coding(b" identity"), BAD),
    Case("SMUG-TE-VTAB", "5.1", "parser", coding(b" \x0bchunked"), BAD),
    Case("SMUG-TE-FORMFEED", "5.1", "parser", coding(b" \x0cchunked"), BAD),
    Case("SMUG-TE-NULL", "5.1", "parser", coding(b" chunked\0"), BAD),
    Case("SMUG-TE-TAB-BEFORE-VALUE", "6.3", "parser", coding(b"\tchunked"), BAD),
    Case("a tab before chunked, no length", "5.1", "parser", post(b"Transfer-Encoding:\tchunked", body=HELLO), FIVE),
    Case("SMUG-TE-OBS-FOLD", "5.2", "parser", coding(b"\r\n chunked"), BAD),
    Case("SMUG-CHUNKED-WITH-PARAMS", "7", "parser", coding(b" chunked;ext=val"), BAD),
    Case("SMUG-TRANSFER_ENCODING", "9110 5.1", "forwarding", post(b"Transfer_Encoding: chunked", b"Content-Length: 5", body=b"hello"), Passed((b"hello",), absent=(b"transfer_encoding",))),
    Case("NORM-UNDERSCORE-TE", "9110 5.1", "forwarding", post(b"Content-Length: 5", b"Transfer_Encoding: chunked", body=b"hello"), Passed((b"hello",), absent=(b"transfer_encoding",))),
    Case("NORM-CASE-TE", "6.3", "parser", post(b"Content-Length: 5", b"TRANSFER-ENCODING: chunked", body=b"hello"), BAD),
    Case("SMUG-CL-TE-BOTH", "6.3", "parser", post(b"Content-Length: 23", CHUNKED, body=b"D\r\nhello-bananas\r\n0\r\n\r\n"), BAD),
    Case("h1spec: Conflicting Transfer-Encoding and Content-Length", "6.3", "parser", get(CHUNKED, b"Content-Length: 5"), BAD),
]  # fmt: skip

CHUNKS = [
    Case("COMP-CHUNKED-BODY", "7.1", "nobody", chunks(HELLO), FIVE),
    Case("COMP-CHUNKED-MULTI", "7.1", "nobody", chunks(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"), Passed((b"hello world",))),
    Case("COMP-CHUNKED-EMPTY", "7.1", "nobody", chunks(b"0\r\n\r\n"), OK),
    Case("COMP-CHUNKED-NO-FINAL", "8", "connection", chunks(b"5\r\nhello\r\n"), Waits()),
    Case("COMP-CHUNKED-HEX-UPPERCASE", "7.1", "nobody", chunks(b"A\r\nhelloworld\r\n0\r\n\r\n"), Passed((b"helloworld",))),
    Case("COMP-CHUNKED-EXTENSION", "7.1.1", "forwarding", chunks(b"5;ext=value\r\nhello\r\n0\r\n\r\n"), FIVE),
    Case("COMP-CHUNKED-TRAILER-VALID", "7.1.2", "connection", chunks(b"5\r\nhello\r\n0\r\nX-Checksum: abc\r\n\r\n"), Passed((b"hello",), absent=(b"x-checksum",))),
    Case("SMUG-TRAILER-CL", "7.1.2", "connection", chunks(b"5\r\nhello\r\n0\r\nContent-Length: 50\r\n\r\n"), BAD),
    Case("SMUG-TRAILER-TE", "7.1.2", "connection", chunks(b"5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n"), BAD),
    Case("SMUG-TRAILER-HOST", "7.1.2", "connection", chunks(b"5\r\nhello\r\n0\r\nHost: evil.example\r\n\r\n"), FIVE),
    Case("SMUG-TRAILER-AUTH", "7.1.2", "connection", chunks(b"5\r\nhello\r\n0\r\nAuthorization: Bearer evil\r\n\r\n"), Passed((b"hello",), absent=(b"authorization",))),
    Case("SMUG-TRAILER-CONTENT-TYPE", "7.1.2", "connection", chunks(b"5\r\nhello\r\n0\r\nContent-Type: text/evil\r\n\r\n"), Passed((b"hello",), absent=(b"content-type",))),
    Case("SMUG-CHUNK-BARE-SEMICOLON", "7.1.1", "parser", chunks(b"5;\r\nhello\r\n0\r\n\r\n"), BAD),
    Case("SMUG-CHUNK-EXT-INVALID-TOKEN", "7.1.1", "parser", chunks(b"5;bad[=x\r\nhello\r\n0\r\n\r\n"), BAD),
    Case("SMUG-CHUNK-EXT-CTRL", "7.1.1", "parser", chunks(b"5;\0ext\r\nhello\r\n0\r\n\r\n"), BAD),
    Case("SMUG-CHUNK-EXT-CR", "7.1.1", "parser", chunks(b"5;a\rX\r\nhello\r\n0\r\n\r\n"), BAD),
    Case("SMUG-CHUNK-EXT-LF", "7.1.1", "parser", chunks(b"5;\nhello\r\n0\r\n\r\n"), BAD),
    Case("MAL-CHUNK-EXT-64K", "7.1.1", "connection", chunks(b"5;ext=" + b"A" * 65_536 + b"\r\nhello\r\n0\r\n\r\n"), BAD),
    Case("SMUG-CHUNK-UNDERSCORE", "7.1", "parser", chunks(b"1_0\r\nhello world!!!!!\r\n0\r\n\r\n"), BAD),
    Case("SMUG-CHUNK-HEX-PREFIX", "7.1", "parser", chunks(b"0x5\r\nhello\r\n0\r\n\r\n"), BAD),
    Case("SMUG-CHUNK-SIZE-PLUS", "7.1", "parser", chunks(b"+5\r\nhello\r\n0\r\n\r\n"), BAD),
    Case("SMUG-CHUNK-NEGATIVE", "7.1", "parser", chunks(b"-1\r\nhello\r\n0\r\n\r\n"), BAD),
    Case("SMUG-CHUNK-SIZE-TRAILING-OWS", "7.1", "parser", chunks(b"5 \r\nhello\r\n0\r\n\r\n"), BAD),
    Case("SMUG-CHUNK-LEADING-SP", "7.1", "parser", chunks(b" 5\r\nhello\r\n0\r\n\r\n"), BAD),
    Case("SMUG-CHUNK-MISSING-TRAILING-CRLF", "7.1", "parser", chunks(b"5\r\nhello0\r\n\r\n"), BAD),
    Case("SMUG-CHUNK-SPILL", "7.1", "parser", chunks(b"5\r\nhello!!\r\n0\r\n\r\n"), BAD),
    Case("SMUG-CHUNK-LF-TERM", "7.1", "parser", chunks(b"5\r\nhello\n0\r\n\r\n"), BAD),
    Case("SMUG-CHUNK-LF-TRAILER", "7.1", "parser", chunks(b"5\r\nhello\r\n0\r\n\n"), BAD),
    Case("SMUG-CHUNK-BARE-CR-TERM", "7.1", "parser", chunks(b"5\rhello\r\n0\r\n\r\n"), BAD),
    Case("MAL-CHUNK-SIZE-OVERFLOW", "7.1", "parser", chunks(b"FFFFFFFFFFFFFFFF0\r\nhello\r\n0\r\n\r\n"), BAD),
    Case("an endless trailer section", "6585 5", "connection", chunks(b"0\r\n" + b"X-T: " + b"a" * 40_000 + b"\r\n\r\n"), BAD),
]  # fmt: skip

_HIDDEN = get(target=b"/hidden")


def hidden(*fields: bytes, before: bytes = b"0\r\n\r\n") -> bytes:
    """A request that one way of framing sees as body and the other as the next request."""
    body = before + _HIDDEN
    given = [field.replace(b"{cl}", b"%d" % len(body)) for field in fields]
    return post(*given, body=body)


SMUGGLED = [
    Case("SMUG-CLTE-PIPELINE", "6.3", "parser", post(b"Content-Length: 4", CHUNKED, body=b"0\r\n\r\n"), BAD),
    Case("SMUG-TECL-PIPELINE", "6.3", "parser", post(CHUNKED, b"Content-Length: 30", body=b"0\r\n\r\n"), BAD),
    Case("SMUG-CLTE-CONN-CLOSE", "6.3", "parser", post(b"Content-Length: 5", CHUNKED, body=b"0\r\n\r\n"), BAD),
    Case("SMUG-TECL-CONN-CLOSE", "6.3", "parser", post(CHUNKED, b"Content-Length: 5", body=b"0\r\n\r\n"), BAD),
    Case("SMUG-CLTE-DESYNC", "6.3", "parser", post(b"Content-Length: 6", CHUNKED, body=b"0\r\n\r\nX"), BAD),
    Case("SMUG-TECL-DESYNC", "6.3", "parser", post(CHUNKED, b"Content-Length: 30", body=b"0\r\n\r\nX"), BAD),
    Case("SMUG-CLTE-SMUGGLED-GET", "6.3", "parser", hidden(b"Content-Length: {cl}", CHUNKED), BAD),
    Case("SMUG-CLTE-SMUGGLED-GET-CL-PLUS", "6.3", "parser", hidden(b"Content-Length: +{cl}", CHUNKED), BAD),
    Case("SMUG-CLTE-SMUGGLED-GET-CL-NON-NUMERIC", "6.3", "parser", hidden(b"Content-Length: {cl}x", CHUNKED), BAD),
    Case("SMUG-CLTE-SMUGGLED-GET-TE-OBS-FOLD", "5.2", "parser", hidden(b"Transfer-Encoding:\r\n chunked", b"Content-Length: {cl}"), BAD),
    Case("SMUG-CLTE-SMUGGLED-HEAD", "6.3", "parser", hidden(b"Content-Length: {cl}", CHUNKED).replace(b"GET /hidden", b"HEAD /hiddn"), BAD),
    Case("SMUG-CLTE-SMUGGLED-GET-TE-TRAILING-SPACE", "6.3", "parser", hidden(b"Content-Length: {cl}", CHUNKED + b" "), BAD),
    Case("SMUG-CLTE-SMUGGLED-GET-TE-LEADING-COMMA", "6.3", "parser", hidden(b"Content-Length: {cl}", b"Transfer-Encoding: , chunked"), BAD),
    Case("SMUG-CLTE-SMUGGLED-GET-TE-CASE-MISMATCH", "6.3", "parser", hidden(b"Content-Length: {cl}", b"Transfer-Encoding: Chunked"), BAD),
    Case("SMUG-TE-DUPLICATE-HEADERS-SMUGGLED-GET", "6.1", "parser", hidden(CHUNKED, b"Transfer-Encoding: identity", b"Content-Length: {cl}"), BAD),
    Case("SMUG-TECL-SMUGGLED-GET", "6.3", "parser", hidden(CHUNKED, b"Content-Length: 4", before=b"2f\r\n"), BAD),
    Case("SMUG-DUPLICATE-CL-SMUGGLED-GET", "6.3", "parser", hidden(b"Content-Length: 4", b"Content-Length: {cl}", before=b"PING"), BAD),
    Case("a request as body stays a body", "6.2", "nobody", hidden(b"Content-Length: {cl}"), Passed((b"0\r\n\r\n" + _HIDDEN,))),
    Case("SMUG-GET-CL-PREFIX-DESYNC", "6.2", "nobody", get(b"Content-Length: 23", body=b"GET / HTTP/1.1\r\nHost: x"), Passed((b"GET / HTTP/1.1\r\nHost: x",))),
    Case("SMUG-CL0-BODY-POISON", "6.2", "parser", post(b"Content-Length: 0", body=b"X"), Passed((b"",), close=True, status=200)),
    Case("SMUG-GET-CL-BODY-DESYNC", "6.2", "nobody", get(b"Content-Length: 5", body=b"hello"), FIVE),
    Case("SMUG-OPTIONS-CL-BODY-DESYNC", "6.2", "nobody", get(b"Content-Length: 5", method=b"OPTIONS", body=b"hello"), FIVE),
    Case("SMUG-EXPECT-100-CL-DESYNC", "9110 10.1.1", "connection", post(b"Content-Length: 5", b"Expect: 100-continue", body=b"hello"), FIVE),
    Case("SMUG-OPTIONS-TE-OBS-FOLD", "5.2", "parser", get(b"Transfer-Encoding:\r\n chunked", b"Content-Length: 5", method=b"OPTIONS", body=b"hello"), BAD),
    Case("SMUG-CHUNK-INVALID-SIZE-DESYNC", "7.1", "parser", chunks(b"+0\r\n\r\nX"), BAD),
    Case("SMUG-PIPELINE-SAFE", "9.3.2", "connection", get() + get(), Passed((b"", b""))),
    Case("a pipeline of bodies", "9.3.2", "connection", chunks(HELLO) + length(b"3", b"two") + get(), Passed((b"hello", b"two", b""))),
]  # fmt: skip

TABLE = [*LENGTHS, *CODINGS, *CHUNKS, *SMUGGLED]
