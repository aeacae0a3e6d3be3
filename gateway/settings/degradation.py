"""Features, and the ladder that gives them up."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from gateway.settings.base import InputFile, Name, Settings, word
from gateway.units import Duration


class Fallback(Settings):
    """What is answered in place of a feature that is off: json, text, file or empty, or what was kept."""

    stale: Duration | None = Field(None, ge=0)
    """First of all the answer that the route's cache keeps, fresh or old for up to so long; the others are
    for when it keeps none."""

    json_: Any = Field(None, alias="json")
    """Any JSON value, answered as application/json."""
    text: str | None = None
    """Answered as text/plain."""
    file: InputFile | None = None
    """Answered as its ending says; read when the configuration is."""
    empty: bool = False
    """Answered with no body."""
    status: int = Field(200, ge=200, le=599)
    """Status code of the answer."""
    content_type: str | None = Field(None, pattern=r"^[!-~ ]+$")
    """Content-Type, when not that of the body's kind."""

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = self.model_fields_set & {"json_", "text", "file"} | ({"empty"} if self.empty else set())
        if len(given) > 1 or not (given or self.stale is not None):
            raise ValueError("give exactly one of json, text, file or empty: true")
        return self


class Feature(Settings):
    """A part of the shop that can be switched off while the rest goes on."""

    state: Annotated[Literal["auto", "on", "off"], BeforeValidator(word)] = "auto"
    """auto: the ladder decides; on or off: always so. A switch of the admin API goes before it."""
    fallback: Fallback | None = None
    """What is answered while it is off; left out: 503."""


class Step(Settings):
    """A rung of the ladder; each adds to those before it."""

    name: Name
    """Its name, for `tidegate step NAME`."""
    off: tuple[Name, ...] = ()
    """Features that are given up from here on."""
    only: Literal["critical"] | None = None
    """critical: from here on nothing else is served. Only a late event loop, or critical requests that find
    no slot, climb so far."""


class Climb(Settings):
    """Pressure that, held so long, moves the ladder one step up."""

    pressure: float = Field(0.8, gt=0, le=10)
    """1 is full."""
    after: Duration = 3.0
    """How long it must hold."""


class Descend(Settings):
    """Pressure below which, held so long, the ladder comes one step down."""

    pressure: float = Field(0.5, gt=0, le=10)
    """1 is full; must be below climb's."""
    after: Duration = 30.0
    """How long it must hold."""


def _none_when_off(value: object) -> object:
    return None if value is False or value == "off" else value


class Signals(Settings):
    """What alone counts as full pressure, beside slots taken and waited for; off: it does not count."""

    loop_lag: Annotated[Duration | None, BeforeValidator(_none_when_off)] = Field(
        0.25, gt=0, json_schema_extra={"x-off": True}
    )
    """A turn of a worker's event loop that takes so long."""
    cpu: Annotated[float | None, BeforeValidator(_none_when_off)] = Field(
        1.0, gt=0, json_schema_extra={"x-off": True}
    )
    """So many cores used by one worker."""
    breakers: bool = True
    """A breaker that is not closed, unless an operator forced it."""


class Degradation(Settings):
    """The ladder: what is given up first, and when."""

    steps: tuple[Step, ...] = ()
    """The rungs, from the first to be given up to the last."""
    signals: Signals = Signals()
    """What counts as pressure."""
    climb: Climb = Climb()
    """When to go up."""
    descend: Descend = Descend()
    """When to come down."""

    @model_validator(mode="after")
    def _hysteresis(self) -> Self:
        if self.descend.pressure >= self.climb.pressure:
            raise ValueError("descend.pressure must be below climb.pressure, else the ladder flaps")
        return self
