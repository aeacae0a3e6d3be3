"""Requests as bytes on a socket, through the gateway's own server and guard: what passes and what does not.

Sections are those of RFC 9112 unless another is named.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from gateway import guard
from gateway.bounds import Bounds
from gateway.config import Listen
from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.server import protocol_for
from tests.waiting import PATIENCE

LISTEN = Listen(max_body=1000, max_target=300, max_headers=20, max_header_bytes=2000)


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Vet, and say what was understood."""
    exchange = Exchange(
        method="",
        target=b"",
        path="",
        headers=scope["headers"],
        host=b"",
        address="",
        receive=receive,
        started=0.0,
    )
    try:
        guard.inspect(scope, LISTEN, exchange)
    except GatewayError as error:
        headers, body = error.problem()
        status = error.status
    else:
        headers, status = [], 200
        body = b"|".join(
            [
                exchange.method.encode(),
                exchange.target,
                exchange.path.encode(),
                exchange.host,
                str(exchange.content_length).encode(),
                str(exchange.has_body).encode(),
            ]
        )
    headers += [(b"content-length", b"%d" % len(body)), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


@pytest.fixture(scope="module")
def door() -> Iterator[int]:
    """The port of a server with the gateway's protocol, on a thread of its own."""
    config = uvicorn.Config(
        app, http=protocol_for(Bounds(LISTEN)), ws="none", lifespan="off", log_config=None, access_log=False
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join()


def answer_to(port: int, request: bytes) -> tuple[int, bytes]:
    """Send bytes, and read the status and the body of the only answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as client:
        client.sendall(request)
        with client.makefile("rb") as reader:
            answer = reader.read()
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body


def get(
    target: bytes = b"/", *fields: bytes, host: bytes | None = b"shop.example", version: bytes = b"1.1"
) -> bytes:
    lines = [b"GET %s HTTP/%s" % (target, version)]
    if host is not None:
        lines.append(b"Host: " + host)
    return b"\r\n".join([*lines, *fields, b"", b""])


def post(*fields: bytes, body: bytes = b"", version: bytes = b"1.1") -> bytes:
    return b"\r\n".join([b"POST /x HTTP/" + version, b"Host: shop.example", *fields, b"", body])


REFUSED = {
    # the Host field, section 3.2
    "host missing": (get(host=None), 400),
    "host missing in 1.0": (get(host=None, version=b"1.0"), 400),
    "host repeated": (get(b"/", b"Host: shop.example"), 400),
    "host repeated with another": (get(b"/", b"Host: evil.example"), 400),
    "host empty": (get(host=b""), 400),
    "host with a comma": (get(host=b"shop.example, evil.example"), 400),
    "host with a path": (get(host=b"shop.example/x"), 400),
    "host with a user": (get(host=b"shop.example@evil.example"), 400),
    "host with a space": (get(host=b"shop.example evil"), 400),
    "host with a bad port": (get(host=b"shop.example:http"), 400),
    "host with a port too high": (get(host=b"shop.example:65536"), 400),
    "host as open bracket": (get(host=b"[::1"), 400),
    "host with a NUL": (get(host=b"shop\x00.example"), 400),
    "host raw non-ASCII": (get(host=b"sh\xc3\xb6p.example"), 400),
    # methods: RFC 9110, 9.3.6 and 9.3.8
    "TRACE": (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    "CONNECT": (b"CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example:443\r\n\r\n", 501),
    "no such method": (b"GE(T / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    # framing: 6.1, 6.2, 6.3
    "length and chunked": (post(b"Content-Length: 5", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
    "chunked and length": (post(b"Transfer-Encoding: chunked", b"Content-Length: 5", body=b"0\r\n\r\n"), 400),
    "two lengths": (post(b"Content-Length: 5", b"Content-Length: 6", body=b"hello"), 400),
    "the same length twice": (post(b"Content-Length: 5", b"Content-Length: 5", body=b"hello"), 400),
    "a list of lengths": (post(b"Content-Length: 5, 5", body=b"hello"), 400),
    "a signed length": (post(b"Content-Length: +5", body=b"hello"), 400),
    "a negative length": (post(b"Content-Length: -5", body=b"hello"), 400),
    "a hexadecimal length": (post(b"Content-Length: 0x5", body=b"hello"), 400),
    "an empty length": (post(b"Content-Length: ", body=b"hello"), 400),
    "a length beyond integers": (post(b"Content-Length: 99999999999999999999999", body=b""), 400),
    "too long a body": (post(b"Content-Length: 1001", body=b"x" * 1001), 413),
    "another coding": (post(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
    "an unknown last coding": (post(b"Transfer-Encoding: gzip", body=b""), 400),
    "chunked is not last": (post(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"), 400),
    "chunked twice": (post(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"), 400),
    "chunked in two fields": (
        post(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        400,
    ),
    "identity": (post(b"Transfer-Encoding: identity", body=b""), 400),
    "almost chunked": (post(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"), 400),
    "chunked with a vertical tab": (post(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"), 400),
    "chunked with a parameter": (post(b"Transfer-Encoding: chunked;q=1", body=b"0\r\n\r\n"), 400),
    "chunked in HTTP/1.0": (post(b"Transfer-Encoding: chunked", body=b"0\r\n\r\n", version=b"1.0"), 400),
    # fields: 5.1, 5.2 and RFC 9110, 5.5
    "a space before the colon": (get(b"/", b"X-A : b"), 400),
    "a folded line": (get(b"/", b"X-A: b", b" c"), 400),
    "a bare CR": (get(b"/", b"X-A: b\rc"), 400),
    "a control character in a value": (get(b"/", b"X-A: b\x01c"), 400),
    "a name with a bracket": (get(b"/", b"X(A: b"), 400),
    "a name that is empty": (get(b"/", b": b"), 400),
    # targets, section 3.2
    "a fragment": (get(b"/a#b"), 400),
    "absolute-form of another host": (get(b"http://evil.example/"), 400),
    "absolute-form of another port": (get(b"http://shop.example:81/"), 400),
    "absolute-form with a user": (get(b"http://a@shop.example/"), 400),
    "another scheme": (get(b"ftp://shop.example/"), 400),
    "authority-form": (get(b"shop.example:80"), 400),
    "a relative target": (get(b"x"), 400),
    "an asterisk for GET": (get(b"*"), 400),
    "an asterisk for OPTIONS": (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    "raw non-ASCII in the path": (get("/ü".encode()), 400),
    "raw non-ASCII in the query": (get("/?ü".encode()), 400),
    "DEL in the path": (get(b"/\x7f"), 400),
    "a bad escape": (get(b"/%zz"), 400),
    "a cut escape": (get(b"/%4"), 400),
    "an escaped NUL": (get(b"/a%00b"), 400),
    "an escaped line end": (get(b"/a%0d%0ab"), 400),
    "an overlong slash": (get(b"/a%c0%afb"), 400),
    "escaped twice": (get(b"/a%252fb"), 400),
    "a letter escaped twice": (get(b"/%2561pi/orders"), 400),
    "above the root": (get(b"/../a"), 400),
    # sizes: RFC 9110, 15.5.14 and 15.5.15; RFC 6585, 5
    "too long a target": (get(b"/" + b"a" * 400), 414),
    "too many fields": (get(b"/", *[b"X-%d: a" % n for n in range(25)]), 431),
    "too large fields": (get(b"/", b"X-A: " + b"a" * 3000), 431),
    # upgrades: RFC 9110, 7.8
    "WebSocket": (
        get(b"/", b"Connection: Upgrade", b"Upgrade: websocket"),
        501,
    ),
    "h2c": (
        get(b"/", b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c"),
        501,
    ),
    "the preface of HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "HTTP/1.2 or later": (get(version=b"1.7"), 400),
}

PASSED = {
    "plain": (get(b"/a?b=c"), b"GET|/a?b=c|/a|shop.example|None|False"),
    "a port": (get(b"/", host=b"shop.example:8000"), b"GET|/|/|shop.example:8000|None|False"),
    "IPv6": (get(b"/", host=b"[::1]:8000"), b"GET|/|/|[::1]:8000|None|False"),
    "HTTP/1.0": (get(b"/", version=b"1.0"), b"GET|/|/|shop.example|None|False"),
    "a length": (post(b"Content-Length: 5", body=b"hello"), b"POST|/x|/x|shop.example|5|True"),
    "a length of nothing": (post(b"Content-Length: 0"), b"POST|/x|/x|shop.example|0|False"),
    "the longest body": (
        post(b"Content-Length: 1000", body=b"x" * 1000),
        b"POST|/x|/x|shop.example|1000|True",
    ),
    "chunked": (
        post(b"Transfer-Encoding: Chunked", body=b"5\r\nhello\r\n0\r\n\r\n"),
        b"POST|/x|/x|shop.example|None|True",
    ),
    "absolute-form": (get(b"http://SHOP.example:80/a?b"), b"GET|/a?b|/a|shop.example|None|False"),
    "an odd query": (get(b"/?a={b}|c^`%zz"), b"GET|/?a={b}|c^`%zz|/|shop.example|None|False"),
    "an empty query": (get(b"/a?"), b"GET|/a?|/a|shop.example|None|False"),
    "spelled oddly, forwarded as received": (
        get(b"/a/%2e%2e//b;x/%c3%a9"),
        "GET|/a/%2e%2e//b;x/%c3%a9|/b/é|shop.example|None|False".encode(),
    ),
    "raw UTF-8 in a field": (get(b"/", "X-A: ü".encode()), b"GET|/|/|shop.example|None|False"),
    "an unknown method": (
        b"PROPFIND /a HTTP/1.1\r\nHost: shop.example\r\n\r\n",
        b"PROPFIND|/a|/a|shop.example|None|False",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(door: int, case: str) -> None:
    """What breaks HTTP, or could be read in two ways, gets its status and goes nowhere."""
    request, status = REFUSED[case]
    assert (answer_to(door, request))[0] == status


@pytest.mark.parametrize("case", PASSED)
def test_passed(door: int, case: str) -> None:
    """What is unusual but plain passes, and is understood as it was meant."""
    request, understood = PASSED[case]
    assert answer_to(door, request) == (200, understood)
