"""One limit at one rate, made ready when the configuration is read, so that a request costs little."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway import config
from gateway.errors import NO_STORE, PROBLEM_JSON, RateLimited
from gateway.exchange import Hit, Reply, Terms
from gateway.field import Block, Field
from gateway.policies.limit_access import Access
from gateway.policies.limit_key import everybody, key_of, unrefused
from gateway.tally import LimitTally
from gateway.units import Rate

_STATUS: Final = RateLimited.status
_ANSWERS: Final = 128  # refusals kept ready, for as many different waits

DEFAULT: Final = "default"  # the tier of those who have none, or one that the limit doesn't name


class Rule:
    """One limit, as it is for one tier of users on one route.

    Attributes:
        name: the limit's name in the config.
        terms: what it asks of those it counts.
        key: whom a request counts as.
        constant: what every request is charged, when all count as one.
        policy: its member of the RateLimit-Policy field.
        state: its member of the RateLimit field; takes tokens left and seconds.
        says: name and rate, for people.
        shadow: counts and reports, never refuses.
        tally: where its decisions are counted.
    """

    __slots__ = (
        "_answers",
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

    def __init__(self, name: str, limit: config.Limit, rate: Rate, cost: int, tally: LimitTally) -> None:
        self.name = name
        self.shadow = limit.mode == "shadow"
        self.terms = Terms(
            name,
            rate.amount,
            rate.window,
            limit.algorithm,
            limit.on_store_failure,
            self.shadow,
            min(cost, rate.amount),  # an operator's change may be below it; then a request takes all
        )
        self.key = unrefused(key_of(limit.per)) if self.shadow else key_of(limit.per)
        self.constant: Hit | None = (self.terms, "") if self.key is everybody else None
        self.policy = b'"%s";q=%d;w=%d' % (name.encode(), rate.amount, rate.window)
        self.state = b'"%s";r=%%d;t=%%d' % name.encode()
        self.tally = tally
        self.says = f"{name} ({rate})"
        detail = f"over the limit {self.says}; try again in %d s"
        _, self._problem = RateLimited(detail, extra={"violated-policies": [name]}).problem()
        self._answers: dict[int, tuple[Block, bytes]] = {}  # by seconds: fields, body

    def refusal(self, seconds: int) -> Reply:
        """The answer to a request that this limit alone refuses."""
        answer = self._answers.get(seconds)
        if answer is None:
            if len(self._answers) >= _ANSWERS:
                self._answers.clear()
            body = self._problem % seconds
            retry, length = (b"retry-after", b"%d" % seconds), (b"content-length", b"%d" % len(body))
            fields = Block([Field(*field) for field in (PROBLEM_JSON, NO_STORE, retry, length)])
            answer = self._answers[seconds] = (fields, body)
        fields, body = answer
        return Reply(_STATUS, fields, body)


@dataclass(frozen=True, slots=True)
class RouteLimit:
    """A limit of a route: its rule for each tier, and who stands outside of it.

    Attributes:
        tiers: by the tier's name; `default` is there.
        access: allow and deny lists; None when both are empty.
    """

    tiers: Mapping[str, Rule]
    access: Access | None

    @classmethod
    def of(cls, name: str, limit: config.Limit, cost: int, tally: LimitTally) -> RouteLimit:
        """The limit of this name on a route where a request costs so many tokens."""
        tiers = {tier: Rule(name, limit, rate, cost, tally) for tier, rate in limit.rates.items()}
        return cls(tiers, Access(limit.allow, limit.deny) if limit.allow or limit.deny else None)

    @property
    def default(self) -> Rule:
        """For those without a tier of their own."""
        return self.tiers[DEFAULT]
