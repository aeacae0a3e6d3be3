"""Under what an answer is kept: the target, and what the upstream saw of the fields that Vary names."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from urllib.parse import unquote_to_bytes

from gateway.exchange import Exchange
from gateway.policies import cache_coding

Primary = tuple[str, str, bytes, bytes]  # upstream, scheme, host, target
Key = tuple[Primary, tuple[bytes, ...], tuple[bytes | None, ...]]  # and the Vary fields with their values

_DEGRADED = b"tidegate-degraded"
_PLAIN = re.compile(rb"[A-Za-z0-9_.~-]+")  # a parameter's name that all read alike

# Fields of which the upstream sees our value, not the client's.
_OURS: dict[bytes, Callable[[Exchange], bytes | None]] = {
    cache_coding.FIELD: lambda exchange: cache_coding.coding(exchange.headers),
    b"host": lambda exchange: exchange.host,
    _DEGRADED: lambda exchange: exchange.degraded.encode(),
    b"tidegate-user": lambda exchange: (exchange.user or "").encode(),
    b"x-forwarded-for": lambda exchange: exchange.forwarded_for,
    b"x-forwarded-host": lambda exchange: exchange.host,
    b"x-forwarded-proto": lambda exchange: exchange.scheme.encode(),
}
# Different in every request, or dropped on the way: an answer that varies by one is never the same again.
NEVER_THE_SAME = frozenset(
    {
        *(b"connection", b"forwarded", b"proxy-authorization", b"te", b"tidegate-deadline", b"traceparent"),
        *(
            b"tracestate",
            b"x-forwarded-port",
            b"x-forwarded-prefix",
            b"x-forwarded-scheme",
            b"x-forwarded-server",
            b"x-forwarded-ssl",
        ),
        *(b"x-real-ip", b"x-request-id"),
    }
)


def primary_key(exchange: Exchange, query: Collection[bytes] | None = None) -> Primary:
    """What a GET for the same thing has in common.

    Args:
        exchange: the request.
        query: the parameters that make a difference, folded; None is the whole query as it stands.
    """
    target = exchange.target
    if query is not None and b"?" in target:
        path, _, given = target.partition(b"?")
        counted = [part for part in given.split(b"&") if part and not _makes_no_difference(part, query)]
        target = path + b"?" + b"&".join(counted) if counted else path
    return exchange.upstream, exchange.scheme, exchange.host.lower(), target


def _makes_no_difference(part: bytes, query: Collection[bytes]) -> bool:
    """Whether no upstream, however it reads queries, finds a parameter in this part that counts.

    They decode names, and some take `;` for `&`, `SKU` for `sku`, ` sku` and `sku[]` for it too, or `a.b` for
    `a_b`: what one of them might read must not be hidden from the key.
    """
    name = unquote_to_bytes(part.partition(b"=")[0])
    return b";" not in part and _PLAIN.fullmatch(name) is not None and fold(name) not in query


def fold(name: bytes) -> bytes:
    """What names of parameters have in common that some upstream takes for one."""
    return name.lower().replace(b".", b"_")


def field_values(exchange: Exchange, names: tuple[bytes, ...]) -> tuple[bytes | None, ...]:
    """Of each field, what the upstream saw; None when it was not there (RFC 9111, 4.1)."""
    return tuple(_value(exchange, name) for name in names)


def kin(key: Key) -> Key | None:
    """What keys have in common that differ in Tidegate-Degraded only; None where that makes no difference.

    The field is the gateway's own, never the client's, and says what the shop should spare itself: what was
    made for one value of it is no secret from whoever asks under another. That holds for no other field.
    """
    primary, names, values = key
    if _DEGRADED not in names:
        return None
    at = names.index(_DEGRADED)
    return primary, names, (*values[:at], None, *values[at + 1 :])


def _value(exchange: Exchange, wanted: bytes) -> bytes | None:
    ours = _OURS.get(wanted)
    if ours is not None:
        return ours(exchange)
    lines = [value for name, value in exchange.headers if name == wanted]
    return b", ".join(lines) if lines else None
