"""Features, and the ladder that gives them up."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from gateway.settings.base import InputFile, Name, Settings, word
from gateway.units import Duration


class Fallback(Settings):
    """What is answered in place of a feature that is off. One of json, text, file or empty."""

    json_: Any = Field(None, alias="json")
    text: str | None = None
    file: InputFile | None = None
    empty: bool = False
    status: int = Field(200, ge=200, le=599)
    content_type: str | None = Field(None, pattern=r"^[!-~ ]+$")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        given = self.model_fields_set & {"json_", "text", "file"} | ({"empty"} if self.empty else set())
        if len(given) != 1:
            raise ValueError("give exactly one of json, text, file or empty: true")
        return self


class Feature(Settings):
    """A part of the shop that can be switched off while the rest goes on."""

    # auto: the ladder decides
    state: Annotated[Literal["auto", "on", "off"], BeforeValidator(word)] = "auto"
    fallback: Fallback | None = None


class Step(Settings):
    """A rung of the ladder; each adds to those before it."""

    name: Name
    off: tuple[Name, ...] = ()
    only: Literal["critical"] | None = None


class Climb(Settings):
    """Pressure that, held so long, moves the ladder one step up."""

    pressure: float = Field(0.8, gt=0)
    after: Duration = 3.0


class Descend(Settings):
    """Pressure below which, held so long, the ladder comes one step down."""

    pressure: float = Field(0.5, gt=0)
    after: Duration = 30.0


def _none_when_off(value: object) -> object:
    return None if value is False or value == "off" else value


class Signals(Settings):
    """What alone counts as full pressure, beside slots taken and waited for; off: it does not count."""

    loop_lag: Annotated[Duration | None, BeforeValidator(_none_when_off)] = Field(0.25, gt=0)  # of one turn
    cpu: Annotated[float | None, BeforeValidator(_none_when_off)] = Field(1.0, gt=0)  # cores, of a worker
    breakers: bool = True  # one that is not closed by itself


class Degradation(Settings):
    """The ladder: what is given up first, and when."""

    steps: tuple[Step, ...] = ()
    signals: Signals = Signals()
    climb: Climb = Climb()
    descend: Descend = Descend()

    @model_validator(mode="after")
    def _hysteresis(self) -> Self:
        if self.descend.pressure >= self.climb.pressure:
            raise ValueError("descend.pressure must be below climb.pressure, else the ladder flaps")
        return self
