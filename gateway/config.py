"""Reads the configuration: `load` is pure, bytes in, settings or every mistake at once out."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway import pattern
from gateway.settings import (
    AccessLog,
    Admin,
    Breaker,
    Cache,
    Concurrency,
    Config,
    Degradation,
    Fallback,
    Feature,
    Health,
    Identity,
    Jwt,
    Limit,
    Listen,
    Priority,
    Redis,
    Retries,
    Route,
    RouteCache,
    Signals,
    Timeout,
    Tls,
    Tracing,
    Upstream,
)
from gateway.yaml_source import Mistake, Source, SourceError, dotted, parse
from gateway.yaml_source import Path as KeyPath

__all__ = [
    "AccessLog",
    "Admin",
    "Breaker",
    "Cache",
    "Concurrency",
    "Config",
    "ConfigError",
    "Degradation",
    "Fallback",
    "Feature",
    "Health",
    "Identity",
    "Jwt",
    "Limit",
    "Listen",
    "Mistake",
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
    "load",
]


class ConfigError(Exception):
    """The configuration can't be used. `lines` is what to show the operator, a line for each mistake."""

    def __init__(self, name: str, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = sorted(mistakes, key=lambda mistake: (mistake.line, mistake.path))
        self.lines = [mistake.render(name) for mistake in self.mistakes]
        super().__init__("\n".join(self.lines))


def load(raw: bytes, name: str, environment: Mapping[str, str]) -> Config:
    """Settings from a YAML file's bytes.

    Args:
        raw: the file's bytes.
        name: the file's path, for messages; files it names are looked up beside it.
        environment: fills `${VAR}` and `${VAR:-default}`.

    Raises:
        ConfigError: with every mistake, each with its line.
    """
    try:
        source = parse(raw, environment)
    except SourceError as error:
        raise ConfigError(name, error.mistakes) from None
    if not isinstance(source.data, dict):
        said = "the file is empty; " if source.data is None else ""
        raise ConfigError(name, [Mistake(1, "", f"{said}expected keys such as upstreams: and routes:")])
    try:
        config = Config.model_validate(source.data, context={"base": Path(name).parent})
    except ValidationError as error:
        raise ConfigError(name, _explain_all(error, source)) from None
    mistakes = [Mistake(source.line(path), dotted(path), said) for path, said in _disagreements(config)]
    if mistakes:
        raise ConfigError(name, mistakes)
    return config


# ---- one mistake in one place ----------------------------------------------------------------


def _explain_all(error: ValidationError, source: Source) -> list[Mistake]:
    mistakes: dict[str, Mistake] = {}  # a union reports each of its members; one is enough
    for details in error.errors(include_url=False):
        path = _path_in_file(details, source)
        text = dotted(path)
        mistakes.setdefault(text, Mistake(source.line(path), text, _explain(details, path)))
    # A tuple whose only item is wrong also reports itself as too short.
    return [m for text, m in mistakes.items() if not any(other.startswith(text + "[") for other in mistakes)]


def _path_in_file(details: ErrorDetails, source: Source) -> KeyPath:
    path: KeyPath = tuple(part for part in details["loc"] if part != "[key]")
    if details["type"] == "missing":
        return path
    while path and path not in source.lines:  # pydantic names a union's members in the path
        path = path[:-1]
    return path


def _explain(details: ErrorDetails, path: KeyPath) -> str:
    kind, given, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "missing":
        return "missing, and needed"
    if kind == "extra_forbidden":
        return "unknown key" + _meant(str(path[-1]), _keys_at(path[:-1]))
    if kind == "literal_error":
        return f"{given!r} is none of {context['expected']}"
    if kind in {"model_type", "model_attributes_type", "dict_type", "mapping_type"}:
        return "expected a block of keys and values"
    if kind == "too_short":
        return f"needs at least {context['min_length']}, has {context['actual_length']}"
    if kind.startswith("ip_"):
        return f"{given!r} is no network; write for example 10.0.0.0/8 or 2001:db8::/32"
    if kind == "string_pattern_mismatch" and "methods" in path:
        return f"{given!r} is no method; write it in upper case, for example POST"
    if kind == "string_pattern_mismatch":
        if details["loc"][-1] == "[key]" or path[-1:] == ("name",) or "off" in path:
            return f"{given!r} is no name; use lower-case letters, digits, - and _, a letter first"
        return f"{given!r} does not fit the pattern {context['pattern']}"
    if kind == "value_error":
        return str(context["error"])
    said = details["msg"].replace("Input should be", "should be").replace("Field required", "missing")
    return f"{said}, not {given!r}" if isinstance(given, str | int | float) else said


def _keys_at(path: KeyPath) -> list[str]:
    """The keys that the model knows at a path."""
    annotation: Any = Config
    for part in path:
        if isinstance(part, int):  # a place in a list; _inner looks through it
            continue
        if get_origin(annotation) is dict:  # a name of the operator's choice
            annotation = get_args(annotation)[1]
            continue
        model = _inner(annotation)
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            return []
        named = {field.alias or key: field for key, field in model.model_fields.items()}
        annotation = named[part].annotation if part in named else None
    model = _inner(annotation)
    if isinstance(model, type) and issubclass(model, BaseModel):
        return [field.alias or key for key, field in model.model_fields.items()]
    return []


def _inner(annotation: Any) -> Any:  # noqa: ANN401 - annotations have no common type
    """The settings block inside `X | None`, `tuple[X, ...]` or `dict[Name, X]`; else the annotation."""
    for argument in getattr(annotation, "__args__", ()):
        found = _inner(argument)
        if isinstance(found, type) and issubclass(found, BaseModel):
            return found
    return annotation


def _meant(given: str, known: Iterable[str]) -> str:
    known = list(known)
    close = difflib.get_close_matches(given, known, n=1, cutoff=0.6)
    if close:
        return f" (did you mean {close[0]}?)"
    return f" (known: {', '.join(sorted(known)[:12])})" if known else " (none are defined)"


# ---- blocks that don't agree -----------------------------------------------------------------


def _disagreements(config: Config) -> Iterable[tuple[KeyPath, str]]:
    """Each place where one block asks for what another doesn't have."""
    if config.listen.port and config.listen.port == config.admin.port:
        yield (
            ("admin", "port"),
            f"{config.admin.port} is listen.port already; operators need one of their own",
        )
    for name, upstream in config.upstreams.items():
        if upstream.timeout.connect > upstream.timeout.total:
            yield ("upstreams", name, "timeout"), "connect is longer than total"
    yield from _ladder_disagreements(config)
    yield from _limit_disagreements(config)
    seen: dict[tuple[object, ...], int] = {}
    for index, route in enumerate(config.routes):
        yield from _route_disagreements(config, index, route)
        twin = seen.setdefault((route.match.rstrip("/"), route.methods, route.hosts), index)
        if twin != index:
            yield ("routes", index, "match"), f"never reached: routes[{twin}] takes the same requests first"
        elif (above := _shadow(config, index)) is not None:
            yield ("routes", index, "match"), f"never reached: routes[{above}] takes every request first"


def _ladder_disagreements(config: Config) -> Iterable[tuple[KeyPath, str]]:
    names: dict[str, int] = {}
    off: dict[str, str] = {}
    for index, step in enumerate(config.degradation.steps):
        at: KeyPath = ("degradation", "steps", index)
        if names.setdefault(step.name, index) != index:
            yield (*at, "name"), f"{step.name!r} is the name of steps[{names[step.name]}] already"
        for place, feature in enumerate(step.off):
            if feature not in config.features:
                yield (*at, "off", place), f"unknown feature {feature!r}" + _meant(feature, config.features)
            elif feature in off:
                yield (
                    (*at, "off", place),
                    f"{feature!r} is off since step {off[feature]!r} already; remove it",
                )
            off.setdefault(feature, step.name)


def _limit_disagreements(config: Config) -> Iterable[tuple[KeyPath, str]]:
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


def _route_disagreements(config: Config, index: int, route: Route) -> Iterable[tuple[KeyPath, str]]:
    at: KeyPath = ("routes", index)
    parameters = pattern.parse(route.match).parameters
    if route.upstream not in config.upstreams:
        said = f"unknown upstream {route.upstream!r}" + _meant(route.upstream, config.upstreams)
        yield (*at, "upstream"), said
    if route.feature is not None and route.feature not in config.features:
        yield (*at, "feature"), f"unknown feature {route.feature!r}" + _meant(route.feature, config.features)
    for name in route.shut:
        if name in parameters:
            yield (*at, "shut", name), f"{name!r} is a parameter of the path already; remove it here"
    if route.cost > 1 and not route.limits:
        yield (*at, "cost"), "the route has no limits to charge it to; add limits, or remove it"
    for place, name in enumerate(route.limits):
        if name not in config.limits:
            yield (*at, "limits", place), f"unknown limit {name!r}" + _meant(name, config.limits)
            continue
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
