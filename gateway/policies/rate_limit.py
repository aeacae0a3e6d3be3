"""Refuse a request whose limits are full, and tell every client what is left to it."""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, Protocol

from gateway import config, error_page
from gateway.errors import Forbidden, Overloaded, RateLimited
from gateway.exchange import Charge, Exchange, Handler, Hit, Reply, Verdict
from gateway.field import Field
from gateway.policies.limit_rule import RouteLimit, Rule
from gateway.tally import LimitTally

NEAR: Final = 5  # one part in so many left: 80 % used
SECOND: Final = 1_000_000  # microseconds
JITTER: Final = 0.1  # of the wait is added to Retry-After at most, but up to
LEAST_JITTER, MOST_JITTER = 1.0, 60.0  # seconds: a crowd that is refused at once must not be back at once


class LimitStore(Protocol):
    """Where tokens are counted. Charges every limit at once, or none; shadow limits never refuse."""

    def try_take(self, hits: Sequence[Hit]) -> Verdict | None:
        """The verdict, if it is there without waiting."""
        ...

    def take(self, hits: Sequence[Hit]) -> Awaitable[Verdict]:
        """The verdict, after `try_take` had none."""
        ...


class Panel:
    """The rules that judge a request, and what they tell its client.

    Attributes:
        rules: one for each limit.
        makers: what makes each one's hit: constant, or its terms with whom the request counts as.
        policies: the RateLimit-Policy field.
        states: the RateLimit field; takes tokens left and seconds of each limit that is told.
    """

    __slots__ = ("makers", "policies", "rules", "states")

    def __init__(self, rules: Sequence[Rule]) -> None:
        self.rules = tuple(rules)
        self.makers = tuple([(rule.constant, rule.terms, rule.key) for rule in rules])
        told = [rule for rule in rules if not rule.shadow]
        self.policies = Field(b"ratelimit-policy", b", ".join([rule.policy for rule in told]))
        self.states = b", ".join([rule.state for rule in told])

    def known(self, verdict: Verdict) -> bytes:
        """As `states`, with the limits that were asked only; what was not asked is not told."""
        both = zip(self.rules, verdict, strict=True)
        return b", ".join([rule.state for rule, charge in both if charge is not None and not rule.shadow])


class RateLimit:
    """Charge all limits of a route at once, or refuse and charge none.

    Every answer, refusals too, carries the fields of draft-ietf-httpapi-ratelimit-headers-10; a shadow limit
    is not in them. A refusal is a 429, or a 503 when a limit whose `on_store_failure` is "refuse" could
    not be checked, since that is no fault of the client's, or a 403 to who is on a limit's deny list.

    Args:
        limits: the route's.
        store: where their tokens are counted.
        rng: draws the jitter of Retry-After, from 0 to 1.
    """

    __slots__ = ("_one_for_all", "_panels", "_rng", "_store", "limits")

    def __init__(self, limits: Sequence[RouteLimit], store: LimitStore, rng: Callable[[], float]) -> None:
        self.limits = tuple(limits)
        self._store = store
        self._rng = rng
        self._panels: dict[tuple[Rule, ...], Panel] = {}  # as many as there are tiers and ways to be exempt
        alike = all(len(limit.tiers) == 1 and limit.access is None for limit in limits)
        self._one_for_all = Panel([limit.default for limit in limits]) if alike else None

    def __call__(self, exchange: Exchange, proceed: Handler) -> Awaitable[Reply]:
        """Handle one exchange; at once, when the store needs no waiting.

        A refusal over a limit is returned, for an attacker gets many: raised, it would cost as much again.

        Raises:
            Overloaded: a limit could not be checked, and says that then nobody passes.
            Forbidden: the client is on a deny list.
        """
        panel = self._one_for_all
        if panel is None:
            panel = self._panel(exchange)
            if not panel.rules:
                return proceed(exchange)
        hits: list[Hit] = []
        for constant, terms, key in panel.makers:  # short as it is, a comprehension would cost more
            hits.append(constant or (terms, key(exchange)))
        verdict = self._store.try_take(hits)
        if verdict is None:
            return self._wait(exchange, proceed, panel, hits)
        return self._judge(exchange, panel, hits, verdict) or proceed(exchange)

    async def _wait(self, exchange: Exchange, proceed: Handler, panel: Panel, hits: Sequence[Hit]) -> Reply:
        verdict = await self._store.take(hits)
        return self._judge(exchange, panel, hits, verdict) or await proceed(exchange)

    def _panel(self, exchange: Exchange) -> Panel:
        """Who judges this request: the rules of its tier, without the limits that let it pass."""
        rules = []
        for limit in self.limits:
            rule = limit.tiers.get(exchange.tier or "") or limit.default
            standing = limit.access.standing(exchange) if limit.access is not None else None
            if standing == "deny":
                if not rule.shadow:
                    rule.tally.denied += 1
                    raise Forbidden("you are not allowed here; ask the operators if that is a mistake")
                rule.tally.shadow += 1
            if standing is None:
                rules.append(rule)
        key = tuple(rules)
        panel = self._panels.get(key)
        if panel is None:
            panel = self._panels[key] = Panel(rules)
        return panel

    def _judge(self, exchange: Exchange, panel: Panel, hits: Sequence[Hit], verdict: Verdict) -> Reply | None:
        """Count, tell the client, refuse. Only who is at the limit or near it is counted by name."""
        told: list[int] = []
        refused: list[tuple[Rule, Charge]] = []
        states = panel.states
        for rule, hit, charge in zip(panel.rules, hits, verdict):  # noqa: B905 - costs as much as the loop
            if charge is None:
                states = b""
                continue
            allowed, left, quota, reset, _, fallback = charge
            tally, shadow = rule.tally, rule.shadow
            if allowed:
                if fallback:
                    tally.fallback += 1
                else:
                    tally.allowed += 1
                near = left * NEAR <= quota
                if near:
                    tally.near += 1
            else:
                near = True
                if fallback:
                    tally.fallback += 1
                elif shadow:
                    tally.shadow += 1
                else:
                    tally.denied += 1
                if not shadow:
                    refused.append((rule, charge))
            if near and hit[1]:
                tally.busiest.see(hit[1])
            if not shadow:
                told += left, -(-reset // SECOND)
                last = rule
        if not told:
            return None
        if not states:  # most often one was asked
            states = last.state if len(told) == 2 else panel.known(verdict)
        state = states % tuple(told)
        headers = exchange.reply_headers
        headers.append(panel.policies)
        headers.append((b"ratelimit", state))
        return self._refusal(exchange, refused) if refused else None

    def _refusal(self, exchange: Exchange, refused: Sequence[tuple[Rule, Charge]]) -> Reply:
        longest, unchecked = 0, False
        for rule, charge in refused:
            if charge[4] > longest:
                longest = charge[4]
            if charge[5] and rule.terms.on_store_failure == "refuse":
                unchecked = True
        wait = longest / SECOND
        spread = JITTER * wait
        if spread < LEAST_JITTER:
            spread = LEAST_JITTER
        elif spread > MOST_JITTER:
            spread = MOST_JITTER
        seconds = math.ceil(wait + spread * self._rng()) or 1
        if unchecked:
            raise Overloaded("limits can't be checked just now; try again shortly", retry_after=seconds)
        exchange.outcome = RateLimited.outcome
        page = error_page.page(exchange, RateLimited, seconds)
        if page is not None:
            return Reply(RateLimited.status, page.fields, page.body)
        if len(refused) == 1:
            return refused[0][0].refusal(seconds)
        says = ", ".join(rule.says for rule, _ in refused)
        headers, body = RateLimited(
            f"over the limits {says}; try again in {seconds} s",
            retry_after=seconds,
            extra={"violated-policies": [rule.name for rule, _ in refused]},
        ).problem()
        return Reply(RateLimited.status, headers, body)


def build(
    names: Iterable[str],
    limits: Mapping[str, config.Limit],
    store: LimitStore,
    tally: Callable[[str], LimitTally],
    cost: int = 1,
    rng: Callable[[], float] = random.random,
) -> RateLimit | None:
    """The policy of a route with these limits, each once; None when none of them is on.

    Args:
        names: of the route's limits.
        limits: all there are.
        store: where tokens are counted.
        tally: gives each limit its counts, always the same ones.
        cost: tokens that a request of this route takes of each limit.
        rng: draws the jitter of Retry-After, from 0 to 1.

    Raises:
        KeyError: there is no limit of this name.
    """
    on = [
        RouteLimit.of(name, limits[name], cost, tally(name))
        for name in dict.fromkeys(names)
        if limits[name].mode != "off"
    ]
    return RateLimit(on, store, rng) if on else None
