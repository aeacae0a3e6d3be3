"""What operators send: read strictly, refused with the reason."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)
from starlette.requests import Request

from gateway.errors import BadForm, PayloadTooLarge
from gateway.units import parse_duration, parse_rate

_MAX_BODY = 16 << 10  # bytes
MAX_FILE = 1 << 20  # bytes of a configuration file that is sent
_LONGEST = 30 * 86400.0  # seconds; a switch that lasts longer belongs into the configuration


def _lasting(value: object) -> float | None:
    if value is None:
        return None
    seconds = parse_duration(value)
    if not 1 <= seconds <= _LONGEST:
        raise ValueError("lasts between 1s and 30d; leave `for` out to keep it until changed")
    return seconds


def _rate(value: str) -> str:
    return value if value in {"auto", "off", "shadow"} else str(parse_rate(value))


def _rung(value: object, handler: ValidatorFunctionWrapHandler) -> int | str:
    try:
        rung: int | str = handler(value)
    except ValidationError:
        raise ValueError("the number of a step, or auto; GET /api/step has their names") from None
    return rung


def _one_line(value: str) -> str:
    if not value.isprintable():  # it goes into logs and onto terminals
        raise ValueError("write it on one line, without control characters")
    return value


class Form(BaseModel):
    """What every change may say of itself."""

    model_config = ConfigDict(extra="forbid", strict=True)

    lasts: Annotated[float | None, BeforeValidator(_lasting), Field(alias="for")] = None  # seconds
    reason: Annotated[str, Field(max_length=500), AfterValidator(_one_line)] = ""


class FeatureForm(Form):
    """`PUT /api/features/{name}`."""

    state: Literal["on", "off", "auto"]


class StepForm(Form):
    """`PUT /api/step`."""

    step: Annotated[Annotated[int, Field(ge=0)] | Literal["auto"], WrapValidator(_rung)]


class BreakerForm(Form):
    """`PUT /api/breakers/{upstream}`."""

    state: Literal["open", "closed", "auto"]


class LimitForm(Form):
    """`PUT /api/limits/{name}`: another rate, or "off", "shadow" or "auto"."""

    rate: Annotated[str, Field(max_length=100), AfterValidator(_rate)]


class LoginForm(BaseModel):
    """`POST /api/session`."""

    model_config = ConfigDict(extra="forbid", strict=True)

    token: str = Field(min_length=1, max_length=1000)


F = TypeVar("F", bound=BaseModel)


async def raw(request: Request, most: int = _MAX_BODY) -> bytes:
    """A request's body.

    Raises:
        PayloadTooLarge: it has more bytes than that.
    """
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise PayloadTooLarge(f"at most {most} bytes are read here")
    return bytes(body)


async def read(request: Request, form: type[F]) -> F:
    """The form in a request's body.

    Raises:
        BadForm: it is no JSON, or not what the form wants.
        PayloadTooLarge: it is no form.
    """
    sent = await raw(request)
    try:
        body: Any = json.loads(sent.decode("utf-8"))
    except (ValueError, RecursionError):
        raise BadForm("the body is not JSON in UTF-8") from None
    if not isinstance(body, dict):
        raise BadForm("the body must be a JSON object")
    try:
        return form.model_validate(body)
    except ValidationError as error:
        said = []
        for details in error.errors(include_url=False, include_input=False):
            where = ".".join(str(part) for part in details["loc"][:1]) or "body"
            what = details["msg"].removeprefix("Value error, ").replace("Input should be", "should be")
            said.append({"field": where, "detail": what})
        needed = [name for name, field in form.model_fields.items() if field.is_required()]
        told = "; ".join(f"{one['field']}: {one['detail']}" for one in said)
        optional = "; optional: for, reason" if issubclass(form, Form) else ""
        raise BadForm(f"{told} (needed: {', '.join(needed)}{optional})", extra={"errors": said}) from None
