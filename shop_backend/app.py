"""The shop as an ASGI app: connects its parts, registers every feature's routes."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator

import httpx
import psycopg
from redis.exceptions import RedisError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from shop_backend import (
    callbacks,
    cart,
    catalog,
    errors,
    metrics,
    orders,
    pages,
    profile,
    recommendations,
    sessions,
)
from shop_backend.catalog import Catalog
from shop_backend.config import Settings
from shop_backend.context import Context
from shop_backend.parts import Parts, connect
from shop_backend.sessions import Sessions
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
        catalog=Catalog(parts.database, parts.stock, settings.catalog),
        stock=parts.stock,
        sessions=Sessions(parts.tokens, parts.redis_volatile, settings.sessions),
        tokens=parts.tokens,
        vault=Vault(settings.require("card_key")),
        provider=parts.provider,
        redis_volatile=parts.redis_volatile,
        redis_durable=parts.redis_durable,
    )


def routes(context: Context) -> list[BaseRoute]:
    """Every feature's routes; the most particular first."""
    return [
        *_health(context),
        *sessions.routes(context),
        *recommendations.routes(context),
        *profile.routes(context),
        *catalog.routes(context),
        *cart.routes(context),
        *orders.routes(context),
        *callbacks.routes(context),
        *pages.routes(context),
    ]


def create_app(settings: Settings, *, transport: httpx.AsyncBaseTransport | None = None) -> Starlette:
    """The app; it connects when it is started.

    Args:
        settings: as loaded.
        transport: how requests to the provider leave, for tests.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with connect(settings, transport=transport) as parts:
            context = build_context(settings, parts)
            pool = metrics.PoolCollector(parts.database.usage)
            metrics.REGISTRY.register(pool)
            # Routes need the parts, which need a running loop; so they come now, before the first request.
            app.router.routes = routes(context)
            app.state.context = context
            try:
                yield
            finally:
                metrics.REGISTRY.unregister(pool)

    app = Starlette(
        lifespan=lifespan,
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


def _health(context: Context) -> list[Route]:
    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "ok"}, headers={"cache-control": "no-store"})

    async def readyz(_: Request) -> Response:
        state = {}
        for name, probe in (
            ("database", _ask_database(context)),
            ("stock", _ask_redis(context.redis_durable)),
            ("sessions", _ask_redis(context.redis_volatile)),
        ):
            try:
                await probe
                state[name] = "ok"
            except (errors.Unavailable, psycopg.Error, RedisError, OSError) as error:
                state[name] = type(error).__name__
        # Without sessions Redis the shop still sells: that must not take it out of the gateway.
        ready = state["database"] == state["stock"] == "ok"
        return JSONResponse(state, 200 if ready else 503, {"cache-control": "no-store"})

    return [Route("/livez", livez, methods=["GET"]), Route("/readyz", readyz, methods=["GET"])]


async def _ask_database(context: Context) -> None:
    async with context.database.primary() as connection:
        await connection.execute("SELECT 1")


async def _ask_redis(client: object) -> None:
    await client.ping()  # type: ignore[attr-defined]  # redis-py types its async commands as either kind


async def _on_outage(request: Request, error: Exception) -> Response:
    _log.warning("%s %s: a server is away: %s", request.method, request.url.path, type(error).__name__)
    return errors.problem(errors.Unavailable("back in a moment; try again", retry_after=1))
