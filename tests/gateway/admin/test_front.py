"""The admin port vets requests as the public one does."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

GET = b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"


async def raw(gateway: Any, request: bytes) -> bytes:
    port = int(gateway.admin_url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (GET + b"\r\n", 200),
        (GET + b"X: " + b"a" * 40_000 + b"\r\n\r\n", 431),
        (GET + b"X: a\r\n" * 200 + b"\r\n", 431),
        (GET + b"Host: y\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nConnection: close\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 414),
        (GET + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"CONNECT x:1 HTTP/1.1\r\nHost: x:1\r\n\r\n", 501),
        (GET + b"Upgrade: websocket\r\n\r\n", 501),
        (b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", 400),
    ],
)
async def test_each_is_answered_as_on_the_public_port(
    one_gateway: Any, request_bytes: bytes, status: int
) -> None:
    """Malformed, oversized and foreign requests: problem details and the right status, never a stack."""
    answer = await raw(one_gateway, request_bytes)

    assert answer.startswith(b"HTTP/1.1 %d " % status)
    if status != 200:
        assert b"application/problem+json" in answer


async def test_odd_paths_are_taken_as_they_are(one_gateway: Any) -> None:
    """Escapes are read once; a name that is no feature's is just not there."""
    for path, status in (("%25", 404), ("%ff", 400), ("a%2fb", 404), ("%00", 400)):
        answer = await one_gateway.admin("GET", f"/api/features/{path}")
        assert answer.status_code == status, path
