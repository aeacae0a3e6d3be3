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
    """What of a route's answers is kept. They say themselves whether and how long; these are the bounds.

    Of Accept-Encoding the upstream sees which of br, gzip and zstd the client allows, or `identity`: an
    answer that varies by it is kept once for each of these, not for each spelling. Weights are not passed on.

    While the upstream can't answer, or only critical requests pass, what is kept stands in. It also does so
    when it was made while other features were off (`Vary: Tidegate-Degraded`): a page of before is better
    than none, and a switch spares the upstream rather than taking back what it said. Where it must hold for
    kept answers too, because a feature is wrong and not just dear, let them say `must-revalidate`.
    """

    ttl: Duration = Field(60.0, ge=0)
    """Served as fresh for at most so long, whatever they say."""
    stale_while_revalidate: Duration = 0.0
    """Served old while it is asked anew; for answers that don't say it."""
    stale_if_error: Duration = 60.0
    """Served old while the upstream fails; for answers that don't say it."""
    query: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] | None = None
    """Query parameters that tell answers apart; all others are passed on, but make no difference. Left out:
    the whole query as it stands."""
    max_body: Size = Field(256 << 10, ge=1)
    """Larger ones pass through."""
    wait: Duration = Field(10.0, gt=0)
    """For one who asks the same already; then on its own."""


class Route(Settings):
    """Which requests go where, and what is checked on the way. The first match wins."""

    match: Annotated[str, AfterValidator(_pattern)]
    """Path pattern: `/exact`, `/p/{sku}` for one segment, `/static/**` for all below."""
    methods: tuple[Annotated[str, Field(pattern=r"^[A-Z]{1,20}$")], ...] = ()
    """In upper case; left out: all."""
    hosts: tuple[Annotated[str, Field(pattern=r"^(\*\.)?[a-z0-9.-]{1,253}$")], ...] = ()
    """Host names, also `*.example.com`; left out: all."""
    upstream: str
    """Where its requests go: a name from upstreams."""
    feature: str | None = None
    """The feature it belongs to: while that is off, its fallback is answered."""
    limits: tuple[str, ...] = ()
    """Names from limits, charged all together or not at all."""
    cost: int = Field(1, ge=1)
    """Tokens that a request takes of each limit."""
    priority: Priority = "normal"
    """Who is let in first when slots are short, and who stays when the ladder is at its end."""
    cache: RouteCache | None = None
    """Keep its answers, as they themselves allow."""
    shut: dict[Parameter, Literal["body"]] = Field(default_factory=dict)
    """Parameters of Tidegate-Shut that stand in the JSON body; those of the path are known."""
