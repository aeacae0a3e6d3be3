"""The admin port is not reached through the public one, however the path is spelt."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

PATHS = [
    *(
        "/api/status",
        "//api/status",
        "/./api/status",
        "/x/../api/status",
        "/%2e%2e/api/status",
        "/api%2fstatus",
    ),
    *("/%61pi/status", "/api/status/", "/api/status;x=1", "/api/status?x", "/API/STATUS", "\\api\\status"),
    *(
        "/..;/api/status",
        "/api/./status",
        "/api//status",
        "/api/status%00",
        "/api/status%20",
        "/api/status/.",
    ),
    *("/admin/api/status", "/livez", "/readyz", "/metrics", "/api/openapi.json", "/static/console.js"),
    *(
        "http://127.0.0.1:{admin}/api/status",
        "http://localhost:{admin}/metrics",
        "//127.0.0.1:{admin}/metrics",
    ),
]
OURS = (
    b"uptime_seconds",
    b"tidegate_requests_total",
    b'"live"',
    b"openapi",
    b"Tidegate console",
    b"urn:tidegate:un",
)


async def everything(gateway: Any, admin_port: int, path: str, host: str) -> list[bytes]:
    path = path.format(admin=admin_port)
    fields = f"Host: {host}\r\nAuthorization: Bearer a-token-for-tests\r\nConnection: close\r\n\r\n"
    return await asyncio.gather(
        *(
            gateway.raw(f"{method} {path} HTTP/1.1\r\n{fields}".encode())
            for method in ("GET", "PUT", "POST", "DELETE", "OPTIONS")
        )
    )


async def test_no_spelling_reaches_the_admin_api(start_gateway: Any) -> None:
    """Whatever the path, the host and the method, with the right token too: never the admin API's answer."""
    gateway = await start_gateway()
    port = int(gateway.admin_url.rsplit(":", 1)[1])
    before = (await gateway.admin("GET", "/api/audit")).json()

    for path in PATHS:
        for host in ("shop.example", f"127.0.0.1:{port}", f"localhost:{port}"):
            for answer in await everything(gateway, port, path, host):
                assert answer.startswith(b"HTTP/1.1 ")
                assert not any(word in answer for word in OURS), (path, host, answer)
    for target in (f"127.0.0.1:{port}", f"localhost:{port}"):
        tunnel = await gateway.raw(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        assert not tunnel.startswith(b"HTTP/1.1 2")

    assert (await gateway.admin("GET", "/api/audit")).json() == before


@pytest.mark.parametrize("path", ["/api/nothing", "/api/../api/status", "//api/status", "/api/status/x"])
async def test_unknown_pages_of_the_admin_port_are_404(one_gateway: Any, path: str) -> None:
    """Neither an error page of a framework nor a redirect, and no path but the one that is spelt."""
    port = int(one_gateway.admin_url.rsplit(":", 1)[1])
    reader, writer = await asyncio.open_connection("127.0.0.1", port)  # an HTTP client would tidy the path
    fields = "Host: ops.example\r\nAuthorization: Bearer a-token-for-tests\r\nConnection: close\r\n\r\n"
    writer.write(f"GET {path} HTTP/1.1\r\n{fields}".encode())
    head, _, _ = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()

    assert head.startswith(b"HTTP/1.1 404 ")
    assert b"\r\ncontent-type: application/problem+json" in head.lower()


async def test_a_huge_body_is_refused_as_soon_as_it_is_too_large(one_gateway: Any) -> None:
    """413 long before the end; the refusal is recorded."""
    refused = await one_gateway.admin("PUT", "/api/step", b"x" * (8 << 20))

    assert refused.status_code == 413
    recorded = (await one_gateway.admin("GET", "/api/audit")).json()["refused"][0]
    assert (recorded["status"], recorded["name"]) == (413, "PUT /api/step")
