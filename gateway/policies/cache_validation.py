"""Conditional requests: the client's, answered from what is kept; and ours, to learn whether it still holds.

Section numbers are those of RFC 9110.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from gateway.exchange import Exchange, Header, Headers
from gateway.policies.cache_coding import with_coding
from gateway.policies.cache_rules import parse_date

# What a 304 repeats of the 200 in whose place it stands (15.4.5), and what we add.
_IN_304 = frozenset(
    {b"cache-control", b"content-location", b"date", b"etag", b"expires", b"last-modified", b"vary"}
)
_CONDITIONS = frozenset({b"if-none-match", b"if-modified-since"})
_PLAIN_CONNECTION = frozenset({b"keep-alive", b"close"})
_ODD = frozenset({b"if-match", b"if-unmodified-since", b"expect"})
_RANGED = frozenset({b"range", b"if-range"})
_CREDENTIALS = frozenset({b"authorization", b"cookie", b"proxy-authorization"})
# Of the hop to the upstream, which is no concern of whoever is served from memory (RFC 9111, 3.1).
FOR_PROXIES = frozenset({b"proxy-authenticate", b"proxy-authentication-info", b"proxy-authorization"})
# Fields of a 304 that don't change what is kept: of its body (RFC 9111, 3.2), and of this one request.
_NOT_RENEWED = FOR_PROXIES | {
    *(b"age", b"content-encoding", b"content-length", b"content-range", b"content-type"),
    *(b"tidegate-shut", b"x-request-id"),
}


@dataclass(slots=True)
class Asked:
    """What a request says to a cache.

    Attributes:
        credentials: it says who is asking.
        ranged: it wants a part.
        odd: it is none that a cache answers: a body, other conditions, fields hidden from the upstream.
        none_match: its If-None-Match, or empty.
        modified_since: its If-Modified-Since, or empty.
    """

    credentials: bool = False
    ranged: bool = False
    odd: bool = False
    none_match: bytes = b""
    modified_since: bytes = b""


def read(exchange: Exchange) -> Asked:
    """What a request says to a cache. Its Cache-Control is advice (RFC 9111, 5.2.1), and not taken."""
    # A body on GET is seen by the upstream and not by the key: whoever sends one gets an answer of his own.
    asked = Asked(odd=exchange.has_body, credentials=exchange.user is not None)
    for name, value in exchange.headers:
        if name in _CREDENTIALS:
            asked.credentials = True
        elif name == b"if-none-match":
            asked.none_match = asked.none_match + b"," + value if asked.none_match else value
        elif name == b"if-modified-since":
            asked.modified_since = value
        elif name in _RANGED:
            asked.ranged = True
        elif name in _ODD:
            asked.odd = True
        elif name == b"connection" and value.lower() not in _PLAIN_CONNECTION:
            # It may name a field that Vary names: the upstream then answers to less than the key says.
            asked.odd = True
    return asked


def not_modified(asked: Asked, headers: Header) -> bool:
    """Whether the client has what these headers belong to (13.2.2)."""
    if asked.none_match:
        tag = _first(headers, b"etag")
        given = {_weak(part.strip()) for part in _tags(asked.none_match)}
        return b"*" in given or (bool(tag) and _weak(tag) in given)
    modified = _first(headers, b"last-modified")
    if not asked.modified_since or not modified:
        return False
    now = time.time()
    since, changed = parse_date(asked.modified_since, now), parse_date(modified, now)
    return since is not None and changed is not None and changed <= since


def headers_of_304(headers: Header) -> Headers:
    """Those of a 200's fields that the 304 in its place has."""
    return [field for field in headers if field[0] in _IN_304]


def fetch_headers(headers: Header, kept: Header | None) -> Headers:
    """A request's fields as we ask for the whole answer, or whether the one kept still holds."""
    ours = [field for field in with_coding(headers) if field[0] not in _CONDITIONS]
    if kept is not None:
        tag, modified = _first(kept, b"etag"), _first(kept, b"last-modified")
        if tag:
            ours.append((b"if-none-match", tag))
        if modified:
            ours.append((b"if-modified-since", modified))
    return ours


def has_validator(headers: Header) -> bool:
    """Whether the upstream can be asked if this still holds."""
    return any(name in {b"etag", b"last-modified"} for name, _ in headers)


def same_validator(kept: Header, answered: Header) -> bool:
    """Whether a 304 speaks of what is kept (RFC 9111, 4.3.4)."""
    tag = _first(answered, b"etag")
    return not tag or _weak(tag) == _weak(_first(kept, b"etag"))


def renewed(kept: Header, answered: Header) -> Headers:
    """Kept fields as a 304 changes them (RFC 9111, 3.2)."""
    new = [field for field in answered if field[0] not in _NOT_RENEWED]
    names = {name for name, _ in new}
    return [field for field in kept if field[0] not in names] + new


def _tags(value: bytes) -> list[bytes]:
    """The members of a list of entity tags; a comma may stand inside the quotes."""
    found, inside, start = [], False, 0
    for place, byte in enumerate(value):
        if byte == 0x22:
            inside = not inside
        elif byte == 0x2C and not inside:
            found.append(value[start:place])
            start = place + 1
    return [*found, value[start:]]


def _weak(tag: bytes) -> bytes:
    return tag.removeprefix(b"W/")


def _first(headers: Header, wanted: bytes) -> bytes:
    for name, value in headers:
        if name == wanted:
            return value
    return b""
