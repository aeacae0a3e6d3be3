"""Whom a limit counts: the key that tells one client's counter from another's."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from functools import lru_cache
from typing import Final

from gateway.addresses import client_network
from gateway.errors import BadRequest
from gateway.exchange import Exchange, Header
from gateway.field import Block
from gateway.fields import values

Key = Callable[[Exchange], str]

_PLAIN: Final = re.compile(r"[A-Za-z0-9_.@+=-]{1,64}")  # no separator of ours, and short (_SHORT)
_SHORT: Final = 64  # characters
_REMEMBERED: Final = 8192  # addresses


def _bounded(value: str) -> str:
    """The value, or a digest of it when it is long or has odd characters: keys stay short and unambiguous."""
    # The first for speed: nearly all users are letters, digits and dashes.
    if value.isascii() and value.replace("-", "").isalnum() and len(value) <= _SHORT:
        return value
    if _PLAIN.fullmatch(value):
        return value
    return "~" + hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@lru_cache(maxsize=_REMEMBERED)
def _address(address: str) -> str:
    """Whom an address stands for: itself, or in IPv6 its /64, since one client has all of those."""
    return "a:" + (client_network(address) or _bounded(address))


def _by_address(exchange: Exchange) -> str:
    return _address(exchange.address)


def _by_user(exchange: Exchange) -> str:
    user = exchange.user
    return _address(exchange.address) if user is None else "u:" + _bounded(user)


def _by_route(exchange: Exchange) -> str:
    return "r:" + _bounded(exchange.route)


def _by_header(name: str) -> Key:
    field = name.lower().encode()

    def key(exchange: Exchange) -> str:
        headers = exchange.headers
        if type(headers) is not Block:
            return make(headers)
        known = headers.counted_as
        if known is None:
            known = headers.counted_as = {}
        made = known.get(field)
        if made is None:
            made = known[field] = make(headers)
        return made

    def make(headers: Header) -> str:
        found = set(values(headers, field))
        if len(found) > 1:  # which of them the upstream goes by is its own affair
            raise BadRequest(f"the field {name} came with several values; send one")
        # Without the field, all count as one.
        return "h:" + _bounded(found.pop().decode("latin-1")) if found else "h"

    return key


def _by_param(name: str) -> Key:
    def key(exchange: Exchange) -> str:
        value = exchange.params.get(name)
        return "p" if value is None else "p:" + _bounded(value)

    return key


def everybody(_: Exchange) -> str:
    """One key for all."""
    return ""


def key_of(per: tuple[str, ...]) -> Key:
    """How the key of `per` is made; BadRequest is raised for a request that could be counted in two ways."""
    plain: dict[str, Key] = {"user": _by_user, "address": _by_address, "route": _by_route}
    makers: list[Key] = []
    for part in per:
        kind, _, name = part.partition(":")
        if kind == "header":
            makers.append(_by_header(name))
        elif kind == "param":
            makers.append(_by_param(name))
        elif kind != "global":
            makers.append(plain[kind])
    if len(makers) <= 1:
        return makers[0] if makers else everybody
    return lambda exchange: "|".join([make(exchange) for make in makers])


def unrefused(key: Key) -> Key:
    """The same for a limit that refuses nobody; those who could be counted in two ways count as one."""
    if key is everybody:
        return key

    def counted(exchange: Exchange) -> str:
        try:
            return key(exchange)
        except BadRequest:
            return "?"

    return counted
