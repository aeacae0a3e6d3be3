"""A gateway from the tutorials: runs in the peers' own virtualenv, not in ours."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pybreaker
from slowapi import Limiter, _rate_limit_exceeded_handler  # type: ignore[import-not-found]  # not in our venv
from slowapi.errors import RateLimitExceeded  # type: ignore[import-not-found]  # the same
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


def _user(request: Request) -> str:
    return request.headers.get("x-user", "")


def _everybody() -> str:
    return "all"


limiter = Limiter(key_func=_user, storage_uri="memory://")
breaker = pybreaker.CircuitBreaker(fail_max=20, reset_timeout=5)
client = httpx.AsyncClient(
    base_url=os.environ["UPSTREAM"],
    timeout=httpx.Timeout(5.0, connect=1.0),
    limits=httpx.Limits(max_connections=512, max_keepalive_connections=512),
)
_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "host", "content-length"}


@limiter.limit(os.environ["OVERALL_LIMIT"], key_func=_everybody)  # type: ignore[untyped-decorator]  # slowapi is not in our venv
@limiter.limit(os.environ["USER_LIMIT"])  # type: ignore[untyped-decorator]  # the same
async def proxy(request: Request) -> Response:
    """Forward a request; answer 503 while the breaker is open."""
    headers = {name: value for name, value in request.headers.items() if name not in _HOP}
    try:
        with breaker.calling():
            answer = await client.request(
                request.method, request.url.path, headers=headers, content=await request.body()
            )
            if answer.status_code >= 500:
                answer.raise_for_status()
    except (pybreaker.CircuitBreakerError, httpx.HTTPError):
        return Response(status_code=503)
    kept = {name: value for name, value in answer.headers.items() if name not in _HOP}
    return Response(answer.content, answer.status_code, kept)


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    """Close the client at the end."""
    yield
    await client.aclose()


app = Starlette(routes=[Route("/{path:path}", proxy, methods=["GET", "POST"])], lifespan=lifespan)
app.state.limiter = limiter
app.add_exception_handler(RateLimitExceeded, _rate_limit_exceeded_handler)
