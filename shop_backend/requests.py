"""Reading what a client sent: bounded bodies, strict JSON, every mistake named."""

from __future__ import annotations

import functools
import json
import re
from ipaddress import IPv6Address, ip_address, ip_network
from typing import Annotated, Any, NoReturn, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import ClientDisconnect, Request

from shop_backend.errors import BadRequest, PayloadTooLarge, Unprocessable

_SKU = r"^[a-z0-9][a-z0-9-]{0,63}$"
_EMAIL = (
    r"^[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}"
    r"@[A-Za-z0-9](?:[A-Za-z0-9-]{0,62})(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]{0,62}))*\.[A-Za-z]{2,24}$"
)
_PHONE = r"^(\+[1-9][0-9]{6,14})?$"
_PUNCTUATION = re.compile(r"[ ().\-/]")
_PRINTABLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,198}[\x21-\x7e])?")

Sku = Annotated[str, Field(pattern=_SKU)]
Email = Annotated[str, Field(max_length=254, pattern=_EMAIL)]


def _bare(value: object) -> object:
    return _PUNCTUATION.sub("", value) if isinstance(value, str) and len(value) < 50 else value


# E.164, as sms gateways take it; "" for none, which also forgets one.
Phone = Annotated[str, BeforeValidator(_bare), Field(pattern=_PHONE)]

# What shoppers read in place of pydantic's words, which are for programmers.
_FORMS = {
    _SKU: "must be a product's sku: a to z, digits and hyphens",
    _EMAIL: "must be an address like name@example.com",
    _PHONE: "must begin with + and the country code, for example +49 30 123456",
}
_WORDS = {
    "missing": "is missing",
    "extra_forbidden": "is not known here",
    "string_type": "must be text",
    "string_unicode": "must be text",
    "string_too_short": "must have at least {min_length} characters",
    "string_too_long": "must have at most {max_length} characters",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "is too large",
    "float_type": "must be a number",
    "finite_number": "must be a number",
    "bool_type": "must be true or false",
    "greater_than_equal": "must be at least {ge}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "model_type": "must be a JSON object",
}


class Body(BaseModel):
    """A JSON body: no conversions, no unknown members."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True)


B = TypeVar("B", bound=Body)


async def read(request: Request, limit: int) -> bytes:
    """The body as sent, of at most `limit` bytes.

    Raises:
        PayloadTooLarge: it is longer.
        BadRequest: the client left before its end.
    """
    announced = request.headers.get("content-length", "0")
    if announced.isdigit() and int(announced[:18]) > limit:
        raise PayloadTooLarge(f"the body may have {limit} bytes")
    chunks: list[bytes] = []
    size = 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise PayloadTooLarge(f"the body may have {limit} bytes")
            chunks.append(chunk)
    except ClientDisconnect:
        raise BadRequest("the body broke off") from None  # to nobody: who should read it has left
    return b"".join(chunks)


def parse(model: type[B], raw: bytes) -> B:
    """The body as a model.

    Raises:
        BadRequest: it is no JSON.
        Unprocessable: it is JSON of another shape; `errors` names each field.
    """
    try:
        value = json.loads(raw.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise BadRequest("the body must be JSON in UTF-8") from error
    try:
        return model.model_validate(value)
    except ValidationError as error:
        errors = [
            {"field": ".".join(map(str, e["loc"])) or "body", "error": _words(e)} for e in error.errors()[:20]
        ]
        summary = "; ".join(f"{e['field']}: {e['error']}" for e in errors)
        # A member's name is the client's own text and need not be encodable.
        safe = summary.encode("utf-8", "replace").decode()
        raise Unprocessable(safe, errors=_safe(errors)) from error


def _words(mistake: ErrorDetails) -> str:
    context = mistake.get("ctx", {})
    if mistake["type"] == "string_pattern_mismatch":
        return _FORMS.get(context["pattern"], f"must match {context['pattern']}")
    words = _WORDS.get(mistake["type"])
    return mistake["msg"] if words is None else words.format_map(context)


def idempotency_key(request: Request) -> str:
    """The header Idempotency-Key.

    Raises:
        BadRequest: it is missing (as in draft-ietf-httpapi-idempotency-key-header) or sent twice.
        Unprocessable: it is not 1 to 200 printable ASCII characters.
    """
    values = request.headers.getlist("idempotency-key")
    if len(values) != 1:
        raise BadRequest("send the header Idempotency-Key once, with a value of your own for each order")
    if not _PRINTABLE.fullmatch(values[0]):
        raise Unprocessable("Idempotency-Key: must be 1 to 200 printable ASCII characters")
    return values[0]


def client_network(request: Request) -> str:
    """Whose connection the request came by, as the gateway says: an IPv4 address, or an IPv6 network of /64.

    Empty when many clients may share it: behind a proxy that hides them all look local.
    """
    told = request.headers.get("x-forwarded-for", "")
    return _network(told.partition(",")[0].strip() or (request.client.host if request.client else ""))


@functools.lru_cache(maxsize=8192)
def _network(address: str) -> str:
    try:
        ip = ip_address(address)
    except ValueError:
        return ""
    if isinstance(ip, IPv6Address):
        ip = ip.ipv4_mapped or ip
    if not ip.is_global:
        return ""
    return str(ip) if ip.version == 4 else str(ip_network((int(ip) >> 64 << 64, 64)))


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")


def _safe(errors: list[dict[str, Any]]) -> list[dict[str, str]]:
    return [{k: str(v).encode("utf-8", "replace").decode() for k, v in e.items()} for e in errors]
