"""Refuse a request whose limits are full, and tell every client what is left to it."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv6Address
from typing import Protocol

from gateway import config
from gateway.errors import Overloaded, RateLimited
from gateway.exchange import Charge, Exchange, Handler, Hit, Reply, Verdict

Count = Callable[[str, str], None]  # (limit, decision): allowed, denied, shadow or fallback
Key = Callable[[Exchange], str]

_PLAIN = re.compile(r"[A-Za-z0-9_.@+=-]{1,64}")  # no separator of ours, and short


class LimitStore(Protocol):
    """Where tokens are counted."""

    async def take(self, hits: Sequence[Hit]) -> Verdict:
        """Charge one token of every limit at once, or none; shadow limits never refuse."""
        ...


# ---- whom a limit counts ---------------------------------------------------------------------


def _bounded(value: str) -> str:
    """The value, or a digest of it when it is long or has odd characters: keys stay short and unambiguous."""
    if _PLAIN.fullmatch(value):
        return value
    return "~" + hashlib.blake2b(value.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


@lru_cache(maxsize=8192)
def _network(address: str) -> str:
    """Whom an address stands for: itself, or in IPv6 its /64, since one client has all of those."""
    try:
        six = IPv6Address(address.partition("%")[0])
    except ValueError:
        return _bounded(address)
    if six.ipv4_mapped is not None:
        return str(six.ipv4_mapped)
    return f"{IPv6Address(int(six) >> 64 << 64)}/64"


def _by_address(exchange: Exchange) -> str:
    address = exchange.address
    return "a:" + (_network(address) if ":" in address else _bounded(address))


def _by_user(exchange: Exchange) -> str:
    user = exchange.user
    return _by_address(exchange) if user is None else "u:" + _bounded(user)


def _by_route(exchange: Exchange) -> str:
    return "r:" + _bounded(exchange.route)


def _by_header(name: str) -> Key:
    field = name.lower().encode()

    def key(exchange: Exchange) -> str:
        values = [value for header, value in exchange.headers if header == field]
        # Without the field, all count as one.
        return "h:" + _bounded(b",".join(values).decode("latin-1")) if values else "h"

    return key


def _by_param(name: str) -> Key:
    def key(exchange: Exchange) -> str:
        value = exchange.params.get(name)
        return "p" if value is None else "p:" + _bounded(value)

    return key


def _everybody(_: Exchange) -> str:
    return ""


def _key(per: tuple[str, ...]) -> Key:
    """How the key of `per` is made."""
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
        return makers[0] if makers else _everybody
    return lambda exchange: "|".join([make(exchange) for make in makers])


class Rule:
    """One limit of a route, made ready when the config is read.

    Attributes:
        name: the limit's name in the config.
        policy: its member of the RateLimit-Policy field.
        prefix: what its member of the RateLimit field begins with.
        shadow: counts and reports, never refuses.
        refuses_unchecked: refuses everybody while the store is away.
    """

    __slots__ = (
        "_constant",
        "_key",
        "_rate",
        "_terms",
        "name",
        "policy",
        "prefix",
        "refuses_unchecked",
        "shadow",
    )

    def __init__(self, name: str, limit: config.Limit) -> None:
        self.name = name
        self.shadow = limit.mode == "shadow"
        self.policy = b'"%s";q=%d;w=%d' % (name.encode(), limit.rate.amount, limit.rate.window)
        self.prefix = b'"%s";r=' % name.encode()
        self.refuses_unchecked = limit.on_store_failure == "refuse"
        self._rate = str(limit.rate)
        self._terms = (
            limit.rate.amount,
            limit.rate.window,
            limit.algorithm,
            limit.on_store_failure,
            self.shadow,
        )
        self._key = _key(limit.per)
        self._constant = self._hit("") if self._key is _everybody else None

    def __str__(self) -> str:
        return f"{self.name} ({self._rate})"

    def hit(self, exchange: Exchange) -> Hit:
        """What this request is charged."""
        return self._constant or self._hit(self._key(exchange))

    def _hit(self, key: str) -> Hit:
        return Hit(self.name, key, *self._terms)


# ---- the policy ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RateLimit:
    """Charge all limits of a route at once, or refuse and charge none.

    Every answer, refusals too, carries the fields of draft-ietf-httpapi-ratelimit-headers-10; a shadow limit
    is not in them. A refusal is a 429, or a 503 when a limit whose `on_store_failure` is "refuse" could
    not be checked, since that is no fault of the client's.
    """

    limits: tuple[Rule, ...]
    store: LimitStore
    count: Count

    async def __call__(self, exchange: Exchange, proceed: Handler) -> Reply:
        """Handle one exchange.

        Raises:
            RateLimited: a limit is full; `retry_after` is 1 second or more.
            Overloaded: a limit could not be checked, and says that then nobody passes.
        """
        verdict = await self.store.take([rule.hit(exchange) for rule in self.limits])
        policies, states = [], []
        refused: list[tuple[Rule, Charge]] = []
        for rule, charge in zip(self.limits, verdict, strict=True):
            if charge.fallback:
                self.count(rule.name, "fallback")
            elif charge.allowed:
                self.count(rule.name, "allowed")
            else:
                self.count(rule.name, "shadow" if rule.shadow else "denied")
            if rule.shadow:
                continue
            if not charge.allowed:
                refused.append((rule, charge))
            policies.append(rule.policy)
            states.append(b"%s%d;t=%d" % (rule.prefix, charge.remaining, math.ceil(charge.reset)))
        if policies:
            exchange.reply_headers.append((b"ratelimit-policy", b", ".join(policies)))
            exchange.reply_headers.append((b"ratelimit", b", ".join(states)))
        if refused:
            raise _refusal(refused)
        return await proceed(exchange)


def _refusal(refused: list[tuple[Rule, Charge]]) -> RateLimited | Overloaded:
    retry_after = max(1.0, *(charge.retry_after for _, charge in refused))
    unchecked = [rule for rule, charge in refused if charge.fallback and rule.refuses_unchecked]
    if unchecked:
        return Overloaded("limits can't be checked just now; try again shortly", retry_after=retry_after)
    names = ", ".join(str(rule) for rule, _ in refused)
    return RateLimited(
        f"over the limit {names}; try again in {math.ceil(retry_after)} s",
        retry_after=retry_after,
        extra={"violated-policies": [rule.name for rule, _ in refused]},
    )


def build(
    names: Iterable[str], limits: Mapping[str, config.Limit], store: LimitStore, count: Count
) -> RateLimit | None:
    """The policy of a route with these limits, each once; None when none of them is on.

    Raises:
        KeyError: there is no limit of this name.
    """
    rules = [Rule(name, limits[name]) for name in dict.fromkeys(names) if limits[name].mode != "off"]
    return RateLimit(tuple(rules), store, count) if rules else None
