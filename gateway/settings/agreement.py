"""Where the blocks of a configuration don't agree with each other."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from gateway import pattern
from gateway.settings.route import Route
from gateway.settings.upstream import endpoint
from gateway.settings.whole import Config

Path = tuple[str | int, ...]


def meant(given: str, known: Iterable[str]) -> str:
    """What an unknown word may have been meant to be, in brackets."""
    known = list(known)
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.6)
    if close:
        return f" (did you mean {close[0]}?)"
    return f" (known: {', '.join(sorted(known)[:12])})" if known else " (none are defined)"


def strangers(data: dict[str, Any]) -> Iterable[tuple[Path, str]]:
    """Each place that names an upstream, feature or limit that there is none of.

    Args:
        data: a whole file, perhaps with other mistakes in it, which are not told.
    """
    for at, kind, name in _mentions(data):
        known = data.get(f"{kind}s") or {}
        if not isinstance(name, str) or not isinstance(known, dict) or name in known:
            continue
        if known or kind != "upstream":  # without any of these there is no file, and that is told
            yield at, f"unknown {kind} {name!r}" + meant(name, known)


def _mentions(data: dict[str, Any]) -> Iterable[tuple[Path, str, object]]:
    """Each place that should name an upstream, feature or limit; which of these, and what stands there."""
    for index, route in enumerate(_listed(data, "routes")):
        for kind in ("upstream", "feature"):
            yield ("routes", index, kind), kind, route.get(kind) if isinstance(route, dict) else None
        for place, name in enumerate(_listed(route, "limits")):
            yield ("routes", index, "limits", place), "limit", name
    for index, step in enumerate(_listed(data.get("degradation"), "steps")):
        for place, name in enumerate(_listed(step, "off")):
            yield ("degradation", "steps", index, "off", place), "feature", name


def _listed(block: object, key: str) -> list[Any]:
    value = block.get(key) if isinstance(block, dict) else None
    return value if isinstance(value, list) else []


def idle(config: Config) -> Iterable[tuple[Path, str]]:
    """Each thing that is defined and changes nothing: no mistake, but perhaps not what was meant."""
    charged = {name for route in config.routes for name in route.limits}
    for name in config.limits:
        if name not in charged:
            yield ("limits", name), "no route charges this limit; name it in the limits of one"
    used = {route.feature for route in config.routes}
    for index, step in enumerate(config.degradation.steps):
        for place, name in enumerate(step.off):
            if name not in used:
                said = f"no route belongs to {name!r}; that it is off is only told to the upstreams"
                yield ("degradation", "steps", index, "off", place), said
    for name, feature in config.features.items():
        if name not in used and feature.fallback is not None:
            yield ("features", name, "fallback"), "never answered: no route belongs to this feature"


def disagreements(config: Config) -> Iterable[tuple[Path, str]]:
    """Each place where one block asks for what another doesn't have, beside `strangers`."""
    if config.listen.port and config.listen.port == config.admin.port:
        yield (
            ("admin", "port"),
            f"{config.admin.port} is listen.port already; operators need one of their own",
        )
    for name, upstream in config.upstreams.items():
        servers: dict[tuple[str, str, int], int] = {}
        for index, url in enumerate(upstream.servers):
            if _is_admin(url, config):
                said = f"{url} is the admin port; no shopper may reach it"
                yield ("upstreams", name, "servers", index), said
            if (first := servers.setdefault(endpoint(url), index)) != index:
                said = f"{url} is servers[{first}] already; remove it, servers have no weights"
                yield ("upstreams", name, "servers", index), said
        timeout = upstream.timeout
        if "connect" in timeout.model_fields_set and timeout.connect > timeout.total:
            yield ("upstreams", name, "timeout"), "connect is longer than total"
    yield from _ladder_disagreements(config)
    yield from _limit_disagreements(config)
    for name, feature in config.features.items():
        keeps = any(route.feature == name and route.cache is not None for route in config.routes)
        if feature.fallback is not None and feature.fallback.stale is not None and not keeps:
            said = "no route of this feature keeps answers; give one a cache: {}, or remove it"
            yield ("features", name, "fallback", "stale"), said
    seen: dict[tuple[object, ...], int] = {}
    for index, route in enumerate(config.routes):
        yield from _route_disagreements(config, index, route)
        twin = seen.setdefault((route.match.rstrip("/"), route.methods, route.hosts), index)
        if twin != index:
            yield ("routes", index, "match"), f"never reached: routes[{twin}] takes the same requests first"
        elif (above := _shadow(config, index)) is not None:
            yield ("routes", index, "match"), f"never reached: routes[{above}] takes every request first"


_LOCAL = frozenset({"127.0.0.1", "localhost", "::1", "0.0.0.0", "::"})  # noqa: S104 - compared with


def _is_admin(url: str, config: Config) -> bool:
    """Whether a server of an upstream is where operators come in."""
    parts = urlsplit(url)
    if not config.admin.port or parts.port != config.admin.port:
        return False
    host = parts.hostname or ""
    return host == config.admin.host or (host in _LOCAL and config.admin.host in _LOCAL)


def _ladder_disagreements(config: Config) -> Iterable[tuple[Path, str]]:
    names: dict[str, int] = {}
    off: dict[str, str] = {}
    for index, step in enumerate(config.degradation.steps):
        at: Path = ("degradation", "steps", index)
        if step.name == "auto":
            yield (*at, "name"), "'auto' frees the ladder, so no step can have that name; choose another"
        if names.setdefault(step.name, index) != index:
            yield (*at, "name"), f"{step.name!r} is the name of steps[{names[step.name]}] already"
        for place, feature in enumerate(step.off):
            if feature in off:
                yield (
                    (*at, "off", place),
                    f"{feature!r} is off since step {off[feature]!r} already; remove it",
                )
            off.setdefault(feature, step.name)


def _limit_disagreements(config: Config) -> Iterable[tuple[Path, str]]:
    """Limits that ask for more than a request tells of itself."""
    if config.identity.jwt is not None:
        return
    for name, limit in config.limits.items():
        if len(limit.rates) > 1:
            yield (
                ("limits", name, "rate"),
                "tiers are read from a verified token; set identity.jwt, or give one rate",
            )
        for key, entries in (("allow", limit.allow), ("deny", limit.deny)):
            for place, entry in enumerate(entries):
                if entry.startswith("user:"):
                    yield (
                        ("limits", name, key, place),
                        f"{entry} is known by a verified token only; set identity.jwt",
                    )


def _route_disagreements(config: Config, index: int, route: Route) -> Iterable[tuple[Path, str]]:
    at: Path = ("routes", index)
    parameters = pattern.parse(route.match).parameters
    for name in route.shut:
        if name in parameters:
            yield (*at, "shut", name), f"{name!r} is a parameter of the path already; remove it here"
    if route.cost > 1 and not route.limits:
        yield (*at, "cost"), "the route has no limits to charge it to; add limits, or remove it"
    for place, name in enumerate(route.limits):
        if name not in config.limits:
            continue  # see `strangers`
        if name in route.limits[:place]:
            yield (*at, "limits", place), f"{name!r} is in this list already; once is enough"
        for tier, rate in config.limits[name].rates.items():
            if route.cost > rate.amount:
                whom = f"{name!r}" if len(config.limits[name].rates) == 1 else f"{name!r}, tier {tier}"
                said = f"{route.cost} is more than limit {whom} has in all ({rate.amount}); none would pass"
                yield (*at, "cost"), said
        for part in config.limits[name].per:
            parameter = part.removeprefix("param:")
            if parameter != part and parameter not in parameters:
                has = ", ".join(parameters) or "none"
                said = f"limit {name!r} counts by parameter {parameter!r}; {route.match} has: {has}"
                yield (*at, "limits", place), said


def _shadow(config: Config, index: int) -> int | None:
    """An earlier route that takes everything, whatever its path, method and host."""
    for above, route in enumerate(config.routes[:index]):
        if route.match == "/**" and not route.methods and not route.hosts:
            return above
    return None
