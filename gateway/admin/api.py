"""The admin API, on a port of its own."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prometheus_client.exposition import choose_encoder
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from gateway.admin import forms, views
from gateway.admin.auth import Token
from gateway.config import ConfigError
from gateway.errors import BadForm, GatewayError, Internal, MethodNotAllowed, NotFound

if TYPE_CHECKING:
    from gateway.master import Master

_log = logging.getLogger("gateway.admin")
_CONSOLE = Path(__file__).parent / "console"
_PAGE_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
Endpoint = Callable[[Request], Awaitable[Response]]


def build(master: Master, token: Token) -> Starlette:
    """The admin app of one gateway."""
    admin = _Admin(master)

    def guarded(endpoint: Endpoint) -> Endpoint:
        async def checked(request: Request) -> Response:
            token.check(request)
            return await endpoint(request)

        return checked

    def both(path: str, see: Endpoint, change: Endpoint) -> list[Route]:
        return [
            Route(path, guarded(see), methods=["GET"]),
            Route(path, guarded(change), methods=["PUT"]),
        ]

    return Starlette(
        routes=[
            Route("/", _console, methods=["GET"]),
            Mount("/static", StaticFiles(directory=_CONSOLE)),
            Route("/livez", admin.live, methods=["GET"]),
            Route("/readyz", admin.ready, methods=["GET"]),
            Route("/metrics", admin.metrics, methods=["GET"]),
            Route("/api/status", guarded(admin.status), methods=["GET"]),
            Route("/api/features", guarded(admin.features), methods=["GET"]),
            *both("/api/features/{name}", admin.feature, admin.set_feature),
            *both("/api/step", admin.step, admin.set_step),
            Route("/api/breakers", guarded(admin.breakers), methods=["GET"]),
            *both("/api/breakers/{name}", admin.breaker, admin.set_breaker),
            Route("/api/limits", guarded(admin.limits), methods=["GET"]),
            *both("/api/limits/{name}", admin.limit, admin.set_limit),
            Route("/api/shut-offs", guarded(admin.shut_offs), methods=["GET"]),
            Route("/api/shut-offs", guarded(admin.unshut_all), methods=["DELETE"]),
            Route("/api/shut-offs/{id}", guarded(admin.unshut), methods=["DELETE"]),
            Route("/api/config", guarded(admin.config), methods=["GET"]),
            Route("/api/config/reload", guarded(admin.reload), methods=["POST"]),
            Route("/api/audit", guarded(admin.audit), methods=["GET"]),
        ],
        exception_handlers={
            GatewayError: _problem,
            HTTPException: _http_problem,
            Exception: _unforeseen,
        },
    )


class _Admin:
    """The handlers, over one master."""

    def __init__(self, master: Master) -> None:
        self._master = master

    # ---- without token -----------------------------------------------------------------------

    async def live(self, _: Request) -> Response:
        """This process answers."""
        return JSONResponse({"status": "live"})

    async def ready(self, _: Request) -> Response:
        """Every worker serves."""
        crew = self._master.crew
        ready = crew is not None and crew.ready >= crew.size and not self._master.draining
        body = {
            "status": "ready" if ready else "draining" if self._master.draining else "starting",
            "workers": crew.ready if crew is not None else 0,
        }
        return JSONResponse(body, status_code=200 if ready else 503)

    async def metrics(self, request: Request) -> Response:
        """All workers' metrics, in the format that the scraper asks for."""
        if self._master.crew is not None:
            await self._master.crew.scrape()
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(self._master.totals.registry), headers={"content-type": content_type})

    # ---- with token: look --------------------------------------------------------------------

    async def status(self, _: Request) -> Response:
        """Everything on one page."""
        await self._fresh()
        return JSONResponse(views.status(self._master))

    async def features(self, _: Request) -> Response:
        """All features."""
        return JSONResponse(
            {"features": [views.feature(self._master, n) for n in self._master.config.features]}
        )

    async def feature(self, request: Request) -> Response:
        """One feature."""
        return JSONResponse(views.feature(self._master, self._known(request, "feature")))

    async def step(self, _: Request) -> Response:
        """The ladder."""
        return JSONResponse(views.step(self._master))

    async def breakers(self, _: Request) -> Response:
        """All breakers."""
        await self._fresh()
        return JSONResponse(
            {"breakers": [views.breaker(self._master, n) for n in self._master.config.upstreams]}
        )

    async def breaker(self, request: Request) -> Response:
        """One breaker."""
        name = self._known(request, "upstream")
        await self._fresh()
        return JSONResponse(views.breaker(self._master, name))

    async def limits(self, _: Request) -> Response:
        """All limits."""
        await self._fresh()
        return JSONResponse({"limits": [views.limit(self._master, n) for n in self._master.config.limits]})

    async def limit(self, request: Request) -> Response:
        """One limit."""
        name = self._known(request, "limit")
        await self._fresh()
        return JSONResponse(views.limit(self._master, name))

    async def shut_offs(self, _: Request) -> Response:
        """What the upstreams have shut off."""
        return JSONResponse({"shut_offs": views.shut_offs(self._master)})

    async def config(self, _: Request) -> Response:
        """The settings that hold."""
        return JSONResponse(views.config(self._master))

    async def audit(self, _: Request) -> Response:
        """Who changed what, when and why; the newest first."""
        return JSONResponse({"changes": [asdict(pin) for pin in reversed(self._master.pins.trail)]})

    # ---- with token: change ------------------------------------------------------------------

    async def set_feature(self, request: Request) -> Response:
        """Pin a feature on or off, or leave it to the ladder."""
        name = self._known(request, "feature")
        form = await forms.read(request, forms.FeatureForm)
        done = await self._pin(request, "feature", name, form.state, form)
        return JSONResponse(views.feature(self._master, name) | done)

    async def set_step(self, request: Request) -> Response:
        """Pin the ladder to a rung, or let it climb."""
        form = await forms.read(request, forms.StepForm)
        top = len(self._master.config.degradation.steps)
        if isinstance(form.step, int) and form.step > top:
            raise BadForm(f"the ladder has steps 0 to {top}")
        done = await self._pin(request, "step", "", str(form.step), form)
        return JSONResponse(views.step(self._master) | done)

    async def set_breaker(self, request: Request) -> Response:
        """Force a breaker, or let it judge."""
        name = self._known(request, "upstream")
        form = await forms.read(request, forms.BreakerForm)
        if self._master.config.upstreams[name].breaker is None:
            raise BadForm(f"upstream {name} has no breaker; give it one in {self._master.file.path}")
        done = await self._pin(request, "breaker", name, form.state, form)
        await self._fresh()
        return JSONResponse(views.breaker(self._master, name) | done)

    async def set_limit(self, request: Request) -> Response:
        """Change a limit's rate for a while."""
        name = self._known(request, "limit")
        form = await forms.read(request, forms.LimitForm)
        done = await self._pin(request, "limit", name, form.rate, form)
        return JSONResponse(views.limit(self._master, name) | done)

    async def unshut_all(self, request: Request) -> Response:
        """Let through again whatever the upstreams have shut off."""
        return JSONResponse({"cleared": self._master.unshut(None, by=_who(request))})

    async def unshut(self, request: Request) -> Response:
        """Let through again one thing that an upstream has shut off."""
        cleared = self._master.unshut({request.path_params["id"]}, by=_who(request))
        if not cleared:
            raise NotFound("nothing of that id is shut off; GET /api/shut-offs lists what is")
        return JSONResponse({"cleared": cleared})

    async def reload(self, _: Request) -> Response:
        """Take the configuration file as it stands."""
        try:
            applied, of = await self._master.reload()
        except ConfigError as error:
            said = "the file is not used; the configuration before it holds"
            raise BadForm(said, extra={"mistakes": error.lines}) from None
        return JSONResponse({"version": self._master.file.version, "applied": applied, "workers": of})

    # ---- helpers -----------------------------------------------------------------------------

    def _known(self, request: Request, kind: str) -> str:
        name: str = request.path_params["name"]
        config = self._master.config
        known: Any = {"feature": config.features, "upstream": config.upstreams, "limit": config.limits}[kind]
        if name not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise NotFound(f"no {kind} of that name is configured; there are: {listed}")
        return name

    async def _pin(
        self, request: Request, kind: str, name: str, value: str, form: forms.Form
    ) -> dict[str, int]:
        applied, of = await self._master.pin(
            kind, name, value, lasts=form.lasts, reason=form.reason, by=_who(request)
        )
        return {"applied": applied, "workers": of}

    async def _fresh(self) -> None:
        if self._master.crew is not None:
            await self._master.crew.scrape()


async def _console(_: Request) -> Response:
    """The console's page; it holds no data and asks for the token itself."""
    return FileResponse(_CONSOLE / "index.html", headers=_PAGE_HEADERS)


def _who(request: Request) -> str:
    return f"operator at {request.client.host}" if request.client is not None else "operator"


def _answer(error: GatewayError) -> Response:
    headers, body = error.problem()
    return Response(body, error.status, {name.decode(): value.decode() for name, value in headers})


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)  # noqa: S101 - starlette dispatches by class
    return _answer(error)


async def _http_problem(request: Request, error: Exception) -> Response:
    allow = getattr(error, "headers", None) or {}
    if getattr(error, "status_code", 404) == 405:
        fields = [(b"allow", str(allow.get("Allow", "GET")).encode())]
        return _answer(MethodNotAllowed(f"{request.method} is not for this path", fields=fields))
    return _answer(NotFound("no such page in the admin API"))


async def _unforeseen(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _answer(Internal("the admin API failed; the log has the reason"))
