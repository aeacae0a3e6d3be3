"""A service behind the gate: its servers, and when to wait for, retry or leave it."""

from __future__ import annotations

import re
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from gateway.settings.base import InputFile, Settings
from gateway.settings.concurrency import Concurrency
from gateway.units import Duration


class Timeout(Settings):
    """Deadlines of one exchange with an upstream."""

    connect: Duration = Field(2.0, gt=0)
    """For a connection, TLS included; `total` bounds it too. A lost SYN is sent again after 1 s
    (RFC 6298, 2.1), so that 1 s or less makes an error of each."""
    total: Duration = Field(5.0, gt=0)
    """Until the response header; then between two pieces of the body."""


class Breaker(Settings):
    """When to stop calling an upstream, and when to try again."""

    window: Duration = Field(10.0, ge=1)
    """How far back results are looked at."""
    min_requests: int = Field(20, ge=1)
    """Fewer in the window never open it."""
    failure_ratio: float = Field(0.5, gt=0, le=1)
    """Share of failures that opens it; judged at each failure, never at a success."""
    slow_ratio: float = Field(0.8, gt=0, le=1)
    """Share of slow answers that opens it; judged at each slow one."""
    slow_after: Duration = Field(2.0, gt=0)
    """From here on an answer is slow."""
    open_for: Duration = Field(5.0, gt=0)
    """How long the upstream is left alone before probes; jittered."""
    probes: int = Field(3, ge=1)
    """Admitted at once while half-open, by all workers of a host together. Each but the one that found it
    sick waits a moment, and then admits one at a time; where workers are more than that, it probes alone."""
    failures: frozenset[Annotated[int, Field(ge=400, le=599)]] = frozenset({500, 502, 503, 504})
    """Statuses that say it is sick. No answer always is a failure, a client that leaves never is."""
    per: Literal["upstream", "route"] = "upstream"
    """route: a sick route leaves the others alone."""


class Retries(Settings):
    """Retries as a share of requests, so that they never multiply an outage."""

    budget: float = Field(0.2, ge=0, le=1)
    """Retries as a share of requests; only requests that may be repeated, before the first byte."""


class Health(Settings):
    """Active probes of each server."""

    path: str = Field("/readyz", pattern=r"^/[!-~]*$")
    """Where to ask; 2xx is healthy."""
    interval: Duration = Field(2.0, ge=0.1)
    """Between two probes of a server."""
    timeout: Duration = Field(1.0, gt=0)
    """For one probe."""
    unhealthy_after: int = Field(3, ge=1)
    """Failed probes in a row."""
    healthy_after: int = Field(1, ge=1)
    """Good probes in a row."""


class Tls(Settings):
    """How https servers are verified."""

    verify: bool = True
    """Whether certificates are checked."""
    ca_file: InputFile | None = None
    """Authorities to trust, as PEM; left out: the system's."""
    server_name: str | None = None
    """Name to ask for and verify; left out: the host's."""


_SERVER = re.compile(  # scheme, host, port; names and zones as resolvers take them
    r"https?://(?:[a-z0-9._-]{1,253}|\[[0-9a-f:.]+(?:%[a-z0-9._-]+)?\])(?::[0-9]{1,5})?", re.IGNORECASE
)


def _server(value: object) -> object:
    if not isinstance(value, str):
        return value
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError:
        port = 0
    else:
        if parts.path not in {"", "/"} or parts.query or parts.fragment or parts.username:
            raise ValueError("an upstream URL ends after host and port; paths are forwarded as received")
    if any(map(str.isspace, value)):  # urlsplit takes it for a part of the host, or strips it
        raise ValueError("a space stands in this URL; write for example http://127.0.0.1:8100")
    if port == 0 or not _SERVER.fullmatch(value.removesuffix("/")):
        raise ValueError("not an upstream URL; write for example http://127.0.0.1:8100")
    return value.removesuffix("/")


def endpoint(server: str) -> tuple[str, str, int]:
    """Scheme, host and port of a server: the same for each way to write it."""
    parts = urlsplit(server)
    usual = 443 if parts.scheme == "https" else 80
    return parts.scheme, parts.hostname or "", parts.port or usual


Server = Annotated[str, BeforeValidator(_server)]


class Upstream(Settings):
    """A service behind the gate."""

    servers: tuple[Server, ...] = Field(min_length=1)
    """Their URLs, without a path; the less busy of two is asked."""
    timeout: Timeout = Timeout()
    """Deadlines."""
    breaker: Breaker | None = None
    """When to stop calling it; left out: never."""
    concurrency: Concurrency | None = None
    """How much it may hold at once; left out: as much as comes."""
    retries: Retries = Retries()
    """How often to try again."""
    health: Health | None = None
    """Active probes; left out: servers are judged by their answers alone."""
    tls: Tls = Tls()
    """For https servers."""
    max_connections: int = Field(512, ge=1)
    """Per worker and server."""
    keep_alive: Duration = Field(4.0, ge=0)
    """How long an idle connection is kept; shorter than the upstream's own."""
