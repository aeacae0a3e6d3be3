"""Accept-Encoding cut down to what answers are told apart by, for the upstream and for the key alike.

Clients spell the same wish in endless ways (order, weights, codings that nobody sends), and each spelling
would have an answer of its own. What is left never allows more than the client did (RFC 9110, 12.5.3).
"""

from __future__ import annotations

import re
from functools import lru_cache

from gateway.exchange import Header, Headers

FIELD = b"accept-encoding"
CODINGS = (b"br", b"gzip", b"zstd")  # an upstream that has others answers without
_ALIASES = {b"x-gzip": b"gzip"}  # RFC 9110, 8.4.1.3
_WEIGHT = re.compile(rb"[ \t]*q=(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)[ \t]*", re.IGNORECASE)


def coding(headers: Header) -> bytes | None:
    """What is left of the field; None when it is not there."""
    lines = [value for name, value in headers if name == FIELD]
    return _allowed(b",".join(lines)) if lines else None


def with_coding(headers: Header) -> Headers:
    """The fields with what is left of this one."""
    left = coding(headers)
    if left is None:
        return list(headers)
    return [field for field in headers if field[0] != FIELD] + [(FIELD, left)]


@lru_cache(256)  # browsers have few ways to say it; whoever makes up more pays for the reading only
def _allowed(said: bytes) -> bytes:
    wanted: dict[bytes, bool] = {}
    for member in said.lower().split(b","):
        name, semicolon, parameter = member.partition(b";")
        name = name.strip(b" \t")
        weight = _WEIGHT.fullmatch(parameter)
        allowed = float(weight[1]) > 0 if weight else not semicolon
        name = _ALIASES.get(name, name)
        wanted[name] = wanted.get(name, True) and allowed
    rest = wanted.get(b"*", False)
    return b", ".join(one for one in CODINGS if wanted.get(one, rest)) or b"identity"
