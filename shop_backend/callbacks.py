"""Payment callbacks: verified, queued, acknowledged. What they do, a worker decides."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shop_backend import tracing
from shop_backend.batcher import Batcher
from shop_backend.errors import BadRequest, Unauthenticated, Unavailable
from shop_backend.metrics import CALLBACKS
from shop_backend.providers import Forged, Irrelevant, PaymentProvider, Stale
from shop_backend.requests import read
from shop_backend.stock import keys

if TYPE_CHECKING:
    from shop_backend.context import Context  # wiring; nothing here needs it at run time

_log = logging.getLogger(__name__)

_EVERY = 0.01  # seconds, at least, from one round trip to the next


def routes(context: Context) -> list[Route]:
    """POST /callbacks/NAME for every provider."""
    return [
        Route(f"/callbacks/{name}", _receiver(context, provider), methods=["POST"])
        for name, provider in context.providers.items()
    ]


def _receiver(context: Context, provider: PaymentProvider) -> Callable[[Request], Awaitable[Response]]:
    counted = {
        result: CALLBACKS.labels(result) for result in ("queued", "ignored", "malformed", "stale", "forged")
    }
    done = {"cache-control": "no-store"}

    async def append(news: Sequence[dict[Any, Any]]) -> list[Any]:
        async with context.redis_durable.pipeline(transaction=False) as pipe:
            for fields in news:
                pipe.xadd(keys.CALLBACKS, fields)
            answers: list[Any] = await pipe.execute(raise_on_error=False)
            return answers

    queue: Batcher[dict[Any, Any], Any] = Batcher(append, every=_EVERY)

    async def receive(request: Request) -> Response:
        raw = await read(request, context.settings.max_body)
        try:
            provider.verify(request.headers, raw)
        except Forged as error:
            counted["stale" if isinstance(error, Stale) else "forged"].inc()
            _log.warning("callback of %s refused: %s", provider.name, error)
            raise Unauthenticated("the signature does not verify, or is not of now") from error
        try:
            body = raw.decode("utf-8")
            news = provider.read(body)
        except ValueError as error:
            counted["malformed"].inc()
            raise BadRequest("signed, but not an event this shop knows") from error
        if isinstance(news, Irrelevant):
            counted["ignored"].inc()
            return Response(status_code=200, headers=done)
        fields: dict[Any, Any] = {
            "provider": provider.name,
            "body": body,
            "received_ms": int(time.time() * 1000),
            tracing.FIELD: tracing.current(),
        }
        try:
            await queue.ask(fields)
        except RedisError as error:
            raise Unavailable("callbacks can't be queued just now; send it again", retry_after=1) from error
        counted["queued"].inc()
        return Response(status_code=200, headers=done)

    return receive
