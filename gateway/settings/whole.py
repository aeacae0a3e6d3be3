"""The whole file, and what of it is one block of a few lines."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gateway.redis_url import RedisUrl
from gateway.settings.admin import Admin
from gateway.settings.base import Name, Settings, absent_when_empty, none_when_empty
from gateway.settings.degradation import Degradation, Feature
from gateway.settings.identity import Identity
from gateway.settings.limit import Limit
from gateway.settings.listen import Listen
from gateway.settings.route import Route
from gateway.settings.upstream import Upstream
from gateway.units import Duration, Size


def _is_redis(url: str) -> str:
    RedisUrl.parse(url)
    return url


class Redis(Settings):
    """The volatile Redis that gateways share."""

    url: Annotated[str, AfterValidator(_is_redis)]
    """redis://, rediss:// or unix://; of a cluster redis+cluster://HOST:PORT,HOST:PORT; behind sentinels
    redis+sentinel://HOST:PORT,HOST:PORT/NAME. rediss+… over TLS."""
    timeout: Duration = Field(0.02, gt=0, le=5)
    """No request waits longer on Redis."""
    prefix: str = Field("tidegate", pattern=r"^[A-Za-z0-9_.-]{1,40}$")
    """What its keys begin with."""


class Cache(Settings):
    """The memory of all routes' response caches."""

    max_bytes: Size = Field(64 << 20, ge=0)
    """Per worker; the least used answers go first."""


class AccessLog(Settings):
    """One JSON line per request, written by a thread of its own."""

    file: Annotated[Path | None, BeforeValidator(none_when_empty)] = None
    """Left out: no log; "-": standard output."""
    buffer: int = Field(10_000, ge=100)
    """Lines held while the disk is slow; then dropped and counted."""


class Tracing(Settings):
    """Spans of some requests to an OpenTelemetry collector; takes the extra `otel`."""

    endpoint: Annotated[str, Field(pattern=r"^https?://[!-~]+$")]
    """The collector's base URL, OTLP over HTTP, for example http://127.0.0.1:4318."""
    sample: float = Field(0.01, ge=0, le=1)
    """Share of the requests that are recorded. A client's own wish is not heard."""
    service: str = Field("tidegate-gateway", min_length=1)
    """The name under which they are found."""

    @model_validator(mode="after")
    def _installed(self) -> Self:
        if find_spec("opentelemetry") is None or find_spec("opentelemetry.sdk") is None:
            raise ValueError("OpenTelemetry is not installed; pip install 'tidegate[otel]'")
        return self


class Config(Settings):
    """The whole file."""

    listen: Listen = Listen()
    """Where shoppers come in."""
    admin: Admin = Admin()
    """Where operators come in."""
    redis: Annotated[Redis | None, BeforeValidator(absent_when_empty("url"))] = None
    """What gateways share; left out: limits and switches are local to this host."""
    identity: Identity = Identity()
    """Who is asking."""
    upstreams: dict[Name, Upstream] = Field(min_length=1)
    """Services behind the gate, by name."""
    limits: dict[Name, Limit] = Field(default_factory=dict)
    """By name, for routes to charge."""
    features: dict[Name, Feature] = Field(default_factory=dict)
    """By name, for routes to belong to and steps to give up."""
    degradation: Degradation = Degradation()
    """The ladder."""
    routes: tuple[Route, ...] = Field(min_length=1)
    """The first that matches takes the request."""
    cache: Cache = Cache()
    """Memory for answers that are kept."""
    access_log: AccessLog = AccessLog()
    """One line a request."""
    tracing: Annotated[Tracing | None, BeforeValidator(absent_when_empty("endpoint"))] = None
    """Where spans go; left out: nowhere, and nothing is spent on them."""
