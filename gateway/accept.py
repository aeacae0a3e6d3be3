"""What a client prefers, by the weights of its Accept fields (RFC 9110, 12.4.2)."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

_QUALITY = re.compile(r"\s*q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?)\s*", re.IGNORECASE)
_JSON = frozenset({"application/json", "application/problem+json", "application/*"})


def weights(value: str) -> Iterator[tuple[str, float]]:
    """The members in lower case, each with its weight: 0 when it is not wanted, or the weight is none."""
    for member in value.lower().split(","):
        name, *parameters = member.split(";")
        weight = 1.0
        for parameter in parameters:
            if parameter.partition("=")[0].strip() == "q":
                found = _QUALITY.fullmatch(parameter)
                weight = float(found[1]) if found else 0.0
        yield name.strip(), weight


def prefers_html(accept: str) -> bool:
    """Whether an Accept field is a browser's on its way to a page: HTML by name, rather than any JSON."""
    html = json = 0.0
    for name, weight in weights(accept):
        if name == "text/html":
            html = max(html, weight)
        elif name in _JSON:
            json = max(json, weight)
    return html > json


def language(accept: str, ours: Collection[str] = ("en", "zh")) -> str:
    """The first of our languages by the weights of Accept-Language (12.5.4); English by default."""
    best, most = "en", 0.0
    for tag, weight in weights(accept):
        named = tag.partition("-")[0]
        if named in ours and weight > most:
            best, most = named, weight
    return best
