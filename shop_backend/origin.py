"""Browsers sent here by other sites: what changes something is refused, whatever type its body claims."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from shop_backend.errors import CrossSite, problem

_SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_PORTS = {"http": ":80", "https": ":443"}


class SameOrigin:
    """ASGI middleware: 403 for unsafe methods that another site's page makes a browser send.

    Browsers say so themselves, in Sec-Fetch-Site and Origin; programs send neither and are let through.

    Args:
        app: what is protected.
        public_url: the address that browsers know, beside the one in Host.
        exempt: beginnings of paths that prove their sender in another way.
    """

    def __init__(self, app: ASGIApp, *, public_url: str, exempt: tuple[str, ...] = ()) -> None:
        self._app = app
        self._home = _host(public_url)
        self._exempt = exempt

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on what is no foreign page's doing."""
        why = self._objection(scope) if scope["type"] == "http" else None
        if why is not None:
            await problem(CrossSite(f"{why}; send it from the shop's own pages"))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _objection(self, scope: Scope) -> str | None:
        if scope["method"] in _SAFE or scope["path"].startswith(self._exempt):
            return None
        headers = Headers(scope=scope)
        sites = headers.getlist("sec-fetch-site")
        if any(site.strip().lower() not in ("same-origin", "none") for site in sites):
            return "another site's page asked for this"
        origins = headers.getlist("origin")
        if not origins:
            return None
        # The gateway says in X-Forwarded-Host whom the browser addressed; no page can set that.
        ours = {self._home, *map(_bare, headers.getlist("host") + headers.getlist("x-forwarded-host"))}
        if any(_host(origin) not in ours - {""} for origin in origins):
            return "Origin is another site"
        return None


def _host(origin: str) -> str:
    """Host and port of a URL, without the scheme's own port; empty for "null" and nonsense."""
    try:
        parts = urlsplit(origin.strip().lower())
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if parts.scheme not in _PORTS or not host:
        return ""
    host = f"[{host}]" if ":" in host else host
    return host if port is None or f":{port}" == _PORTS[parts.scheme] else f"{host}:{port}"


def _bare(host: str) -> str:
    host = host.strip().lower()
    for port in _PORTS.values():
        host = host.removesuffix(port) if not host.endswith("]") else host
    return host
