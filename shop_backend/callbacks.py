"""Payment callbacks: verified, queued, acknowledged. What they do, a worker decides."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, cast

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shop_backend import tracing
from shop_backend.errors import BadRequest, Unauthenticated, Unavailable
from shop_backend.metrics import CALLBACKS
from shop_backend.payments import Forged, Stale
from shop_backend.requests import read
from shop_backend.stock import keys

if TYPE_CHECKING:
    from shop_backend.context import Context  # wiring; nothing here needs it at run time

_log = logging.getLogger(__name__)


def routes(context: Context) -> list[Route]:
    """POST /callbacks/sandbox."""

    async def receive(request: Request) -> Response:
        raw = await read(request, context.settings.max_body)
        provider = context.provider
        try:
            provider.verify(request.headers, raw)
        except Forged as error:
            CALLBACKS.labels("stale" if isinstance(error, Stale) else "forged").inc()
            _log.warning("callback refused: %s", error)
            raise Unauthenticated("the signature does not verify, or is not of now") from error
        try:
            provider.read(raw.decode("utf-8"))
        except ValueError as error:
            CALLBACKS.labels("malformed").inc()
            raise BadRequest("signed, but not an event this shop knows") from error
        fields: dict[Any, Any] = {
            "provider": provider.name,
            "body": raw.decode("utf-8"),
            "received_ms": int(time.time() * 1000),
            tracing.FIELD: tracing.current(),
        }
        try:
            await cast("Awaitable[Any]", context.redis_durable.xadd(keys.CALLBACKS, fields))
        except RedisError as error:
            raise Unavailable("callbacks can't be queued just now; send it again", retry_after=1) from error
        CALLBACKS.labels("queued").inc()
        return Response(status_code=200, headers={"cache-control": "no-store"})

    return [Route("/callbacks/sandbox", receive, methods=["POST"])]
