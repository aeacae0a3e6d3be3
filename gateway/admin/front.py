"""The admin port speaks HTTP as carefully as the public one: requests are vetted, bounded and timed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

from starlette.types import ASGIApp, Receive, Scope, Send

from gateway import guard
from gateway.config import Admin, Identity, Listen
from gateway.errors import GatewayError
from gateway.exchange import Exchange
from gateway.identity import Identity as Locator

LISTEN = Listen(max_body=64 << 20)  # forms end long before, and then the refusal is recorded


class Front:
    """Hands vetted requests on to an ASGI app that expects all of ASGI's scope.

    Args:
        app: the admin app.
        settings: as they are now; name the proxies that may speak for a client.
    """

    def __init__(self, app: ASGIApp, settings: Callable[[], Admin]) -> None:
        self._app = app
        self._settings = settings
        self._read: Admin | None = None
        self._locator = Locator(Identity(), ())

    def _locate(self, exchange: Exchange) -> None:
        """Find out from where a request comes, and how."""
        settings = self._settings()
        if settings is not self._read:
            self._read, self._locator = settings, Locator(Identity(), settings.trusted_proxies)
        self._locator.identify(exchange)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        exchange = Exchange.begin(scope, None)
        try:
            guard.inspect(scope, LISTEN, exchange)  # type: ignore[arg-type]  # a scope is a dict
            self._locate(exchange)
        except GatewayError as error:
            await _refuse(error, send)
            return
        path, _, query = exchange.target.partition(b"?")
        whole: dict[str, Any] = {
            **scope,
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "path": unquote(path.decode("latin-1")),
            "raw_path": path,
            "query_string": query,
            "root_path": "",
            "server": None,
            "scheme": exchange.scheme,
            "client": (exchange.address, 0),
        }
        await self._app(whole, receive, send)


async def _refuse(error: GatewayError, send: Send) -> None:
    headers, body = error.problem()
    fields = [*headers, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": error.status, "headers": fields})
    await send({"type": "http.response.body", "body": body})
