"""Refuse a request whose limits are full, and tell every client what is left to it."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Protocol

from gateway import config
from gateway.errors import NO_STORE, PROBLEM_JSON, Overloaded, RateLimited
from gateway.exchange import Charge, Exchange, Handler, Headers, Hit, Reply, Terms, Verdict
from gateway.policies.limit_key import everybody, key_of

NEAR = 5  # one part in so many left: 80 % used
JITTER = 0.1  # of the wait is added to Retry-After at most, but up to
LEAST_JITTER, MOST_JITTER = 1.0, 60.0  # seconds: a crowd that is refused at once must not be back at once


class LimitStore(Protocol):
    """Where tokens are counted. Charges every limit at once, or none; shadow limits never refuse."""

    def try_take(self, hits: Sequence[Hit]) -> Verdict | None:
        """The verdict, if it is there without waiting."""
        ...

    async def take(self, hits: Sequence[Hit]) -> Verdict:
        """The verdict, after `try_take` had none."""
        ...


class Tally(Protocol):
    """What became of the checks of one limit; plain numbers, read when metrics are due."""

    allowed: int
    denied: int
    shadow: int
    fallback: int
    near: int  # admitted with 80 % of the quota used, or more


class Rule:
    """One limit of a route, made ready when the config is read.

    Attributes:
        name: the limit's name in the config.
        terms: what it asks of those it counts.
        key: whom a request counts as.
        constant: what every request is charged, when all count as one.
        policy: its member of the RateLimit-Policy field.
        state: its member of the RateLimit field; takes tokens left and seconds.
        shadow: counts and reports, never refuses.
        tally: where its decisions are counted.
    """

    __slots__ = (
        "_detail",
        "_extra",
        "_problem",
        "constant",
        "key",
        "name",
        "policy",
        "says",
        "shadow",
        "state",
        "tally",
        "terms",
    )

    def __init__(self, name: str, limit: config.Limit, tally: Tally) -> None:
        rate = limit.rate
        self.name = name
        self.shadow = limit.mode == "shadow"
        self.terms = Terms(
            name, rate.amount, rate.window, limit.algorithm, limit.on_store_failure, self.shadow
        )
        self.key = key_of(limit.per)
        self.constant = Hit(self.terms, "") if self.key is everybody else None
        self.policy = b'"%s";q=%d;w=%d' % (name.encode(), rate.amount, rate.window)
        self.state = b'"%s";r=%%d;t=%%d' % name.encode()
        self.tally = tally
        self.says = f"{name} ({rate})"
        self._detail = f"over the limit {self.says}; try again in %d s"
        self._extra = {"violated-policies": [name]}
        problem = {
            "type": RateLimited.type,
            "title": RateLimited.title,
            "status": RateLimited.status,
            "detail": self._detail,
        }
        self._problem = json.dumps(problem | self._extra).encode()

    def hit(self, exchange: Exchange) -> Hit:
        """What this request is charged."""
        return self.constant or Hit(self.terms, self.key(exchange))

    def refusal(self, seconds: int) -> RateLimited:
        """The answer to a request that this limit alone refuses."""
        return _Refused(
            self._detail % seconds,
            self._problem % seconds,
            retry_after=seconds,
            extra=self._extra,
        )


class _Refused(RateLimited):
    """A refusal whose answer was written when the config was read; an attacker gets many."""

    def __init__(self, detail: str, body: bytes, *, retry_after: int, extra: dict[str, Any]) -> None:
        super().__init__(detail, retry_after=retry_after, extra=extra)
        self._answer = ([PROBLEM_JSON, NO_STORE, (b"retry-after", b"%d" % retry_after)], body)

    def problem(self) -> tuple[Headers, bytes]:
        """The header fields and the JSON body that say so."""
        return self._answer


# ---- the policy ------------------------------------------------------------------------------


class RateLimit:
    """Charge all limits of a route at once, or refuse and charge none.

    Every answer, refusals too, carries the fields of draft-ietf-httpapi-ratelimit-headers-10; a shadow limit
    is not in them. A refusal is a 429, or a 503 when a limit whose `on_store_failure` is "refuse" could
    not be checked, since that is no fault of the client's.

    Args:
        rules: the route's limits.
        store: where their tokens are counted.
        rng: draws the jitter of Retry-After, from 0 to 1.
    """

    __slots__ = ("_policies", "_rng", "_states", "_store", "rules")

    def __init__(self, rules: Sequence[Rule], store: LimitStore, rng: Callable[[], float]) -> None:
        self.rules = tuple(rules)
        self._store = store
        self._rng = rng
        told = [rule for rule in rules if not rule.shadow]
        self._policies = (b"ratelimit-policy", b", ".join([rule.policy for rule in told]))
        self._states = b", ".join([rule.state for rule in told])

    def __call__(self, exchange: Exchange, proceed: Handler) -> Awaitable[Reply]:
        """Handle one exchange; at once, when the store needs no waiting.

        Raises:
            RateLimited: a limit is full; `retry_after` is 1 second or more.
            Overloaded: a limit could not be checked, and says that then nobody passes.
        """
        hits = [rule.constant or Hit(rule.terms, rule.key(exchange)) for rule in self.rules]
        verdict = self._store.try_take(hits)
        if verdict is None:
            return self._wait(exchange, proceed, hits)
        self._judge(exchange, verdict)
        return proceed(exchange)

    async def _wait(self, exchange: Exchange, proceed: Handler, hits: Sequence[Hit]) -> Reply:
        self._judge(exchange, await self._store.take(hits))
        return await proceed(exchange)

    def _judge(self, exchange: Exchange, verdict: Verdict) -> None:
        """Count, tell the client, refuse."""
        told: list[int] = []
        refused: list[tuple[Rule, Charge]] = []
        for rule, charge in zip(self.rules, verdict, strict=True):
            if charge is None:
                continue
            tally = rule.tally
            if charge.fallback:
                tally.fallback += 1
            elif charge.allowed:
                tally.allowed += 1
            elif rule.shadow:
                tally.shadow += 1
            else:
                tally.denied += 1
            if charge.allowed and charge.remaining * NEAR <= charge.quota:
                tally.near += 1
            if not rule.shadow:
                told.append(charge.remaining)
                told.append(math.ceil(charge.reset))
                if not charge.allowed:
                    refused.append((rule, charge))
        if told:
            fields = exchange.reply_headers
            fields.append(self._policies)
            fields.append((b"ratelimit", self._states % tuple(told) if all(verdict) else self._some(verdict)))
            if refused:
                raise self._refusal(refused)

    def _some(self, verdict: Verdict) -> bytes:
        """The members of the RateLimit field that are known; what was not asked is not told."""
        return b", ".join(
            [
                rule.state % (charge.remaining, math.ceil(charge.reset))
                for rule, charge in zip(self.rules, verdict, strict=True)
                if charge is not None and not rule.shadow
            ]
        )

    def _refusal(self, refused: list[tuple[Rule, Charge]]) -> RateLimited | Overloaded:
        wait = max([charge.retry_after for _, charge in refused])
        spread = min(MOST_JITTER, max(LEAST_JITTER, JITTER * wait))
        seconds = max(1, math.ceil(wait + spread * self._rng()))
        if any(c.fallback and rule.terms.on_store_failure == "refuse" for rule, c in refused):
            return Overloaded("limits can't be checked just now; try again shortly", retry_after=seconds)
        if len(refused) == 1:
            return refused[0][0].refusal(seconds)
        says = ", ".join(rule.says for rule, _ in refused)
        return RateLimited(
            f"over the limits {says}; try again in {seconds} s",
            retry_after=seconds,
            extra={"violated-policies": [rule.name for rule, _ in refused]},
        )


def build(
    names: Iterable[str],
    limits: Mapping[str, config.Limit],
    store: LimitStore,
    tally: Callable[[str], Tally],
    rng: Callable[[], float] = random.random,
) -> RateLimit | None:
    """The policy of a route with these limits, each once; None when none of them is on.

    Args:
        names: of the route's limits.
        limits: all there are.
        store: where tokens are counted.
        tally: gives each limit its counts, always the same ones.
        rng: draws the jitter of Retry-After, from 0 to 1.

    Raises:
        KeyError: there is no limit of this name.
    """
    rules = [
        Rule(name, limits[name], tally(name)) for name in dict.fromkeys(names) if limits[name].mode != "off"
    ]
    return RateLimit(rules, store, rng) if rules else None
