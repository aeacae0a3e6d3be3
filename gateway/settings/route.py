"""Which requests go where."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from gateway import pattern
from gateway.settings.base import Parameter, Priority, Settings
from gateway.units import Duration, Size


def _pattern(value: str) -> str:
    pattern.parse(value)
    return value


class RouteCache(Settings):
    """What of a route's answers is kept. They say themselves whether and how long; these are the bounds."""

    ttl: Duration = Field(60.0, ge=0)  # served as fresh for at most so long, whatever they say
    stale_while_revalidate: Duration = 0.0  # for answers that don't say it
    stale_if_error: Duration = 60.0  # for answers that don't say it
    max_body: Size = Field(256 << 10, ge=1)  # larger ones pass through
    wait: Duration = Field(10.0, gt=0)  # for one who asks the same already; then on its own


class Route(Settings):
    """Which requests go where, and what is checked on the way. The first match wins."""

    match: Annotated[str, AfterValidator(_pattern)]
    methods: tuple[Annotated[str, Field(pattern=r"^[A-Z]{1,20}$")], ...] = ()
    hosts: tuple[Annotated[str, Field(pattern=r"^(\*\.)?[a-z0-9.-]{1,253}$")], ...] = ()  # or *.example.com
    upstream: str
    feature: str | None = None
    limits: tuple[str, ...] = ()
    cost: int = Field(1, ge=1)  # tokens that a request takes of each limit
    priority: Priority = "normal"
    cache: RouteCache | None = None
    # Parameters of Tidegate-Shut that stand in the JSON body.
    shut: dict[Parameter, Literal["body"]] = Field(default_factory=dict)
