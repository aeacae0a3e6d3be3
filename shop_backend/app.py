"""The shop as an ASGI app: connects its parts, registers every feature's routes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import psycopg
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute

from shop_backend import (
    callbacks,
    cart,
    catalog,
    contact,
    errors,
    health,
    metrics,
    orders,
    pages,
    profile,
    recommendations,
    sessions,
)
from shop_backend.config import Settings
from shop_backend.context import Context
from shop_backend.deadline import Deadlines
from shop_backend.origin import SameOrigin
from shop_backend.parts import Parts, connect
from shop_backend.sessions import Sessions
from shop_backend.tracing import Traced
from shop_backend.vault import Vault

_log = logging.getLogger(__name__)


def build_context(settings: Settings, parts: Parts) -> Context:
    """The parts as request handlers see them.

    Raises:
        SetupError: the card key is missing or malformed.
    """
    return Context(
        settings=settings,
        database=parts.database,
        catalog=parts.catalog(settings.catalog),
        stock=parts.stock,
        sessions=Sessions(
            parts.tokens,
            parts.redis_volatile,
            settings.sessions,
            secure=settings.public_url.startswith("https://"),
        ),
        tokens=parts.tokens,
        vault=Vault(settings.require("card_key")),
        providers=parts.providers,
        redis_volatile=parts.redis_volatile,
        redis_durable=parts.redis_durable,
    )


def routes(context: Context, servers: health.Readiness) -> list[BaseRoute]:
    """Every feature's routes. They are tried in turn, so what every order asks for comes first."""
    return [
        *orders.routes(context),
        *callbacks.routes(context),
        *health.routes(servers),
        *sessions.routes(context),
        *recommendations.routes(context),
        *profile.routes(context),
        *contact.routes(context),
        *catalog.routes(context),
        *cart.routes(context),
        *pages.routes(context),
    ]


def create_app(settings: Settings) -> Starlette:
    """The app; it connects when it is started.

    Args:
        settings: as loaded.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with connect(settings) as parts:
            context = build_context(settings, parts)
            # Routes need the parts, which need a running loop; so they come now, before the first request.
            servers = health.readiness(context)
            collectors = (
                metrics.PoolCollector(parts.database.usage, parts.database.ceilings, parts.database.waits),
                metrics.ServersCollector(servers.state, servers.names, asyncio.get_running_loop()),
            )
            app.router.routes = routes(context, servers)
            app.state.context = context
            await context.catalog.warm()
            for collector in collectors:
                metrics.REGISTRY.register(collector)
            try:
                yield
            finally:
                for collector in collectors:
                    metrics.REGISTRY.unregister(collector)
                await servers.close()

    app = Starlette(
        lifespan=lifespan,
        middleware=[
            Middleware(Traced),
            Middleware(Deadlines),
            Middleware(SameOrigin, public_url=settings.public_url, exempt=("/callbacks/",)),
        ],
        exception_handlers={
            errors.ShopError: errors.on_shop_error,
            HTTPException: errors.on_http_exception,
            psycopg.OperationalError: _on_outage,
            RedisError: _on_outage,
            Exception: errors.on_crash,
        },
    )
    app.router.redirect_slashes = False  # an address is right or it is not
    return app


async def _on_outage(request: Request, error: Exception) -> Response:
    _log.warning("%s %s: a server is away: %s", request.method, request.url.path, type(error).__name__)
    return errors.problem(errors.Unavailable("back in a moment; try again", retry_after=1))
