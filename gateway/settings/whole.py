"""The whole file, and what of it is one block of a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import BeforeValidator, Field

from gateway.settings.admin import Admin
from gateway.settings.base import Name, Settings, absent_when_empty, none_when_empty
from gateway.settings.degradation import Degradation, Feature
from gateway.settings.identity import Identity
from gateway.settings.limit import Limit
from gateway.settings.listen import Listen
from gateway.settings.route import Route
from gateway.settings.upstream import Upstream
from gateway.units import Duration, Size


class Redis(Settings):
    """The volatile Redis that gateways share."""

    url: Annotated[str, Field(pattern=r"^(redis|rediss|unix)://")]
    timeout: Duration = Field(0.02, gt=0, le=5)  # no request waits longer on Redis
    prefix: str = Field("tidegate", pattern=r"^[A-Za-z0-9_.-]{1,40}$")


class Cache(Settings):
    """The memory of all routes' response caches."""

    max_bytes: Size = Field(64 << 20, ge=0)  # per worker; the least used answers go first


class AccessLog(Settings):
    """One JSON line per request, written by a thread of its own."""

    file: Annotated[Path | None, BeforeValidator(none_when_empty)] = (
        None  # none: no log; "-": standard output
    )
    buffer: int = Field(10_000, ge=100)  # lines held while the disk is slow; then dropped and counted


class Config(Settings):
    """The whole file."""

    listen: Listen = Listen()
    admin: Admin = Admin()
    redis: Annotated[Redis | None, BeforeValidator(absent_when_empty("url"))] = None
    identity: Identity = Identity()
    upstreams: dict[Name, Upstream] = Field(min_length=1)
    limits: dict[Name, Limit] = Field(default_factory=dict)
    features: dict[Name, Feature] = Field(default_factory=dict)
    degradation: Degradation = Degradation()
    routes: tuple[Route, ...] = Field(min_length=1)
    cache: Cache = Cache()
    access_log: AccessLog = AccessLog()
