"""The admin API, on a port of its own: every operation guarded, read and recorded in one place."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from gateway.admin import forms, openapi
from gateway.admin.auth import SAFE, Principal, address
from gateway.admin.changes import Changes
from gateway.admin.front import Front
from gateway.admin.looks import Looks
from gateway.admin.operations import Call, Operation, respond
from gateway.admin.overview import Overview
from gateway.admin.page import CONSOLE, Page, Static
from gateway.admin.trail import Entry
from gateway.errors import (
    GatewayError,
    Internal,
    MethodNotAllowed,
    NotFound,
    TooManyLogins,
    Unauthorized,
)

if TYPE_CHECKING:
    from gateway.master import Master

_log = logging.getLogger("gateway.admin")
_NOBODY = Principal("", "viewer", "")
Endpoint = Callable[[Request], Coroutine[Any, Any, Response]]


def build(master: Master, overview: Overview) -> Front:
    """The admin app of one gateway."""
    operations = [*Looks(master, overview).operations(), *Changes(master, overview).operations()]

    async def describe(_: Call[None]) -> Response:
        return JSONResponse(described)

    says = "What this API is made of, in OpenAPI."
    operations.append(Operation("GET", "/api/openapi.json", describe, says, dict[str, Any], "nobody"))
    described = openapi.document(operations)

    page = Page(lambda request: master.door.session(request) is not None)

    def not_found(request: Request, error: Exception) -> Response:
        return _http_problem(request, error, master)

    app = Starlette(
        routes=[
            Route("/", page.show, methods=["GET"]),
            Mount("/static", Static(directory=CONSOLE)),
            *[
                Route(one.path, _endpoint(one, master), methods=[one.method], name=one.id)
                for one in operations
            ],
        ],
        exception_handlers={GatewayError: _problem, HTTPException: not_found, Exception: _unforeseen},
    )
    return Front(app, lambda: master.config.admin)


def _endpoint(operation: Operation, master: Master) -> Endpoint:
    """Lets in who may, reads the form, does it; and records who was refused."""

    async def endpoint(request: Request) -> Response:
        by = _nobody(request)
        form: Any = None
        try:
            if operation.needs != "nobody":
                by = master.door.enter(request)
            if operation.needs == "operator":
                by.may_change()
            if operation.form == "text":
                form = await forms.raw(request, forms.MAX_FILE)
            elif operation.form is not None:
                form = await forms.read(request, operation.form)
            answer: Response = respond(operation, await operation.handler(Call(request, by, form)))
        except GatewayError as error:
            # Whoever just looks and has no token, or a wrong name, is nobody's concern; a wrong token is.
            guessed = isinstance(error, Unauthorized | TooManyLogins) and "authorization" in request.headers
            if guessed or request.method not in SAFE:
                _record_refusal(master, request, error, operation.kind, by)
                await master.trail.written()
            raise
        return answer

    return endpoint if operation.method in SAFE else _to_its_end(endpoint)


def _to_its_end(endpoint: Endpoint) -> Endpoint:
    """What changes something goes on when who asked for it leaves: it must not be done and not recorded."""
    under_way: set[asyncio.Task[Response]] = set()

    def left(task: asyncio.Task[Response]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None and not isinstance(error, GatewayError | ClientDisconnect):
            _log.error("what an operator began and did not wait for failed", exc_info=error)

    async def whole(request: Request) -> Response:
        task = asyncio.create_task(endpoint(request), name="operation")
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(left)
            raise

    return whole


def _record_refusal(master: Master, request: Request, error: GatewayError, kind: str, by: Principal) -> None:
    name = " ".join([request.method, request.scope["raw_path"].decode("latin-1")])[:200]  # as it was spelt
    who = by.who if by.name else f"somebody at {by.address}"
    master.totals.own.count("tidegate_admin_refusals_total", str(error.status))
    master.trail.refused(
        Entry(
            *(master.trail.now(), kind or "request", name),
            by=who,
            role=by.role if by.name else "",
            result="refused",
            status=error.status,
            detail=error.detail[:500],
        )
    )


def _nobody(request: Request) -> Principal:
    return replace(_NOBODY, address=address(request))


def _who(request: Request, master: Master) -> Principal:
    """Who sends what no operation takes; it is refused all the same."""
    try:
        return master.door.enter(request)
    except GatewayError:
        return _nobody(request)


def _answer(error: GatewayError) -> Response:
    headers, body = error.problem()
    return Response(body, error.status, {name.decode(): value.decode() for name, value in headers})


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, GatewayError)  # noqa: S101 - starlette dispatches by class
    return _answer(error)


def _http_problem(request: Request, error: Exception, master: Master) -> Response:
    allow = getattr(error, "headers", None) or {}
    said: GatewayError = NotFound("no such page in the admin API; GET /api/openapi.json lists what there is")
    if getattr(error, "status_code", 404) == 405:
        fields = [(b"allow", str(allow.get("Allow", "GET")).encode())]
        said = MethodNotAllowed(f"{request.method} is not for this path", fields=fields)
    if request.method not in SAFE:
        _record_refusal(master, request, said, "", _who(request, master))
    return _answer(said)


async def _unforeseen(request: Request, error: Exception) -> Response:
    _log.error("%s %s failed", request.method, request.url.path, exc_info=error)
    return _answer(Internal("the admin API failed; the log has the reason"))
