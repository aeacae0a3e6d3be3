"""A service behind the gate: its servers, and when to wait for, retry or leave it."""

from __future__ import annotations

from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field

from gateway.settings.base import InputFile, Settings
from gateway.settings.concurrency import Concurrency
from gateway.units import Duration


class Timeout(Settings):
    """Deadlines of one exchange with an upstream."""

    connect: Duration = Field(1.0, gt=0)
    total: Duration = Field(5.0, gt=0)  # until the response header; then between two pieces of the body


class Breaker(Settings):
    """When to stop calling an upstream, and when to try again."""

    window: Duration = Field(10.0, ge=1)
    min_requests: int = Field(20, ge=1)  # fewer in the window never open it
    failure_ratio: float = Field(0.5, gt=0, le=1)
    slow_ratio: float = Field(0.8, gt=0, le=1)
    slow_after: Duration = Field(2.0, gt=0)
    open_for: Duration = Field(5.0, gt=0)
    probes: int = Field(3, ge=1)  # admitted at once while half-open
    # Statuses that say it is sick. No answer always is a failure, a client that leaves never is.
    failures: frozenset[Annotated[int, Field(ge=400, le=599)]] = frozenset({500, 502, 503, 504})
    per: Literal["upstream", "route"] = "upstream"  # route: a sick route leaves the others alone


class Retries(Settings):
    """Retries as a share of requests, so that they never multiply an outage."""

    budget: float = Field(0.2, ge=0, le=1)


class Health(Settings):
    """Active probes of each server."""

    path: str = Field("/readyz", pattern=r"^/[!-~]*$")
    interval: Duration = Field(2.0, ge=0.1)
    timeout: Duration = Field(1.0, gt=0)
    unhealthy_after: int = Field(3, ge=1)  # failed probes in a row
    healthy_after: int = Field(1, ge=1)  # good probes in a row


class Tls(Settings):
    """How https servers are verified."""

    verify: bool = True
    ca_file: InputFile | None = None
    server_name: str | None = None


def _server(value: object) -> object:
    if not isinstance(value, str):
        return value
    parts = urlsplit(value)
    try:
        port_ok = parts.port is None or parts.port > 0
    except ValueError:
        port_ok = False
    if parts.scheme not in {"http", "https"} or not parts.hostname or not port_ok:
        raise ValueError("not an upstream URL; write for example http://127.0.0.1:8100")
    if parts.path not in {"", "/"} or parts.query or parts.fragment or parts.username:
        raise ValueError("an upstream URL ends after host and port; paths are forwarded as received")
    return value.rstrip("/")


Server = Annotated[str, BeforeValidator(_server)]


class Upstream(Settings):
    """A service behind the gate."""

    servers: tuple[Server, ...] = Field(min_length=1)
    timeout: Timeout = Timeout()
    breaker: Breaker | None = None
    concurrency: Concurrency | None = None
    retries: Retries = Retries()
    health: Health | None = None
    tls: Tls = Tls()
    max_connections: int = Field(512, ge=1)  # per worker and server
    keep_alive: Duration = Field(4.0, ge=0)  # shorter than the upstream's own
