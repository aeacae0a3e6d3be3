"""The shape of the gateway's configuration: every block, key, default and bound."""

from gateway.settings.admin import Admin
from gateway.settings.base import Priority
from gateway.settings.concurrency import Concurrency
from gateway.settings.degradation import Degradation, Fallback, Feature, Signals
from gateway.settings.identity import Identity, Jwt
from gateway.settings.limit import Limit
from gateway.settings.listen import Listen
from gateway.settings.route import Route, RouteCache
from gateway.settings.upstream import Breaker, Health, Retries, Timeout, Tls, Upstream
from gateway.settings.whole import AccessLog, Cache, Config, Redis, Tracing

__all__ = [
    "AccessLog",
    "Admin",
    "Breaker",
    "Cache",
    "Concurrency",
    "Config",
    "Degradation",
    "Fallback",
    "Feature",
    "Health",
    "Identity",
    "Jwt",
    "Limit",
    "Listen",
    "Priority",
    "Redis",
    "Retries",
    "Route",
    "RouteCache",
    "Signals",
    "Timeout",
    "Tls",
    "Tracing",
    "Upstream",
]
