"""What may be asked of the provider: the bodies it takes, checked and bounded."""

from __future__ import annotations

import json
import posixpath
from typing import Annotated, Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import Field

from shop_backend.errors import BadRequest
from shop_backend.requests import Body, parse

MAX_BODY = 16 * 1024  # bytes

Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9._:-]{1,100}$")]
Cents = Annotated[int, Field(ge=1, le=100_000_000)]
Url = Annotated[str, Field(pattern=r"^https?://[!-~]{1,1900}$")]


class CheckoutBody(Body):
    """`POST /checkouts`."""

    order_id: Identifier
    amount_cents: Cents
    currency: Annotated[str, Field(pattern=r"^[A-Z]{3}$")]
    callback_url: Url
    return_url: Url
    description: Annotated[str, Field(min_length=1, max_length=300)] = "Your order"


class PayBody(Body):
    """`POST /checkouts/{id}/pay`. Copies of the callback, and when they leave.

    Attributes:
        delay: seconds until the first callback leaves.
        duplicates: how many more copies of it are sent.
        storm: how many times all callbacks of this checkout are sent again, in any order.
    """

    outcome: Literal["success", "fail"]
    delay: Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)] = 0.0
    duplicates: Annotated[int, Field(ge=0, le=100)] = 0
    storm: Annotated[int, Field(ge=0, le=1000)] = 0


class RefundBody(Body):
    """`POST /refunds`."""

    payment_id: Identifier
    amount_cents: Cents


def parse_pay(raw: bytes, content_type: str) -> tuple[PayBody, bool]:
    """A payment as JSON, or as the page's form sends it; and whether it is the form.

    Raises:
        BadRequest: it can't be read.
        Unprocessable: it is not of the model.
    """
    kind = content_type.partition(";")[0].strip().lower()
    # curl -d sends JSON under a form's type.
    if kind != "application/x-www-form-urlencoded" or raw.lstrip().startswith(b"{"):
        return parse(PayBody, raw), False
    try:
        fields = dict(parse_qsl(raw.decode("ascii"), max_num_fields=10))
    except ValueError as error:
        raise BadRequest("the form can't be read") from error
    return parse(PayBody, json.dumps({"outcome": fields.get("outcome")}).encode()), True


def is_under(url: str, base: str) -> bool:
    """Whether `url` leads to the server and below the path of `base`, however it is spelled.

    This is what keeps the provider from being sent to other servers of its network.
    """
    try:
        there, home = urlsplit(url), urlsplit(base)
        same = (there.scheme, there.hostname, _port(there.scheme, there.port)) == (
            home.scheme,
            home.hostname,
            _port(home.scheme, home.port),
        )
    except ValueError:
        return False
    if not same or not there.hostname or "@" in there.netloc or "\\" in url or there.fragment:
        return False
    path = unquote(there.path)
    if "%" in path or posixpath.normpath("/" + path.lstrip("/")) != "/" + path.strip("/"):
        return False  # spelled in a roundabout way: no honest merchant does that
    root = home.path.rstrip("/")
    return path == root or path.startswith(root + "/")


def _port(scheme: str, port: int | None) -> int | None:
    return port if port is not None else {"http": 80, "https": 443}.get(scheme)
