"""The shortest ASGI application that answers what the upstream would."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from benchmarks.upstream import LARGE, SMALL


def _messages(body: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    return (
        {"type": "http.response.start", "status": 200, "headers": headers},
        {"type": "http.response.body", "body": body},
    )


_SMALL = _messages(SMALL.encode())
_LARGE = _messages(LARGE.encode())


async def answer(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answer; a body is read to its end first."""
    if scope["method"] == "POST":
        while (await receive()).get("more_body", False):
            pass
    for message in _LARGE if scope["path"] == "/api/large" else _SMALL:
        await send(message)
