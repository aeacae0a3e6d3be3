"""THE ordered list of policies. What a request meets, and in which order, stands here and nowhere else."""

from __future__ import annotations

from gateway.config import Route
from gateway.exchange import Handler, compose
from gateway.parts import Parts
from gateway.policies.breaker import Breaker
from gateway.policies.degrade import Degrade, nothing
from gateway.policies.load_shed import LoadShed


def build(route: Route, parts: Parts) -> Handler:
    """The walk of one request; read top to bottom."""
    upstream = route.upstream
    cache, circuit = parts.response_cache(route), parts.breakers.of(route)
    fallback = parts.fallback(route.feature, cache)
    kept = cache.last if cache is not None else nothing
    return compose(
        parts.trace(),
        parts.shut_off(route),
        parts.rate_limit(route.limits, route.cost),
        Degrade(route.feature, route.priority, parts.switches, fallback, kept),
        cache,
        # Below the cache: what costs the upstream nothing takes no slot.
        LoadShed(parts.gates[upstream], route.priority),
        Breaker(circuit, fallback, route.feature) if circuit is not None else None,
        then=parts.upstreams[upstream].__call__,
    )
