"""Reads the configuration: `load` is pure, bytes in, settings or every mistake at once out."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

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
from gateway.settings.agreement import disagreements, idle, meant, strangers
from gateway.settings.examples import BLOCKS, LISTS, PATTERNS, meant_network
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
    "remarks",
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
    named = _placed(strangers(source.data), source)
    try:
        config = Config.model_validate(source.data, context={"base": Path(name).parent})
    except ValidationError as error:
        mistakes = _explain_all(error, source)
        told = {mistake.path for mistake in mistakes}
        raise ConfigError(name, mistakes + [one for one in named if one.path not in told]) from None
    mistakes = named + _placed(disagreements(config), source)
    if mistakes:
        raise ConfigError(name, mistakes)
    return config


def remarks(config: Config, raw: bytes, name: str, environment: Mapping[str, str]) -> list[str]:
    """What is good in these settings but changes nothing, a line for each; see `load` for the arguments."""
    found = _placed(idle(config), parse(raw, environment))
    return [one.render(name) for one in sorted(found, key=lambda one: (one.line, one.path))]


def _placed(found: Iterable[tuple[KeyPath, str]], source: Source) -> list[Mistake]:
    return [Mistake(source.line(path), dotted(path), said) for path, said in found]


# pydantic's words, and plainer ones
_PLAINER = {
    "Input should be": "should be",
    "greater than or equal to": "at least",
    "less than or equal to": "at most",
    "greater than": "above",
    "less than": "below",
}

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
        known, key = _keys_at(path[:-1]), str(path[-1])
        if key.partition(":")[0] in known:
            return "unknown key; a space is missing behind its colon"
        return "unknown key" + meant(key, known)
    if kind == "literal_error":
        return _none_of(given, str(context["expected"]))
    if kind in {"model_type", "model_attributes_type"}:
        return f"expected a block of keys and values{_such_as(path)}"
    if kind in {"dict_type", "mapping_type"}:
        return "expected a block of keys and values"
    if kind in {"tuple_type", "list_type", "frozen_set_type"}:
        return f"should be a list, for example {_list_of(given, path)}"
    if kind == "string_type":
        return (
            "should be text" if isinstance(given, list | dict | None) else "should be text; put it in quotes"
        )
    if kind in {"int_parsing", "int_type", "int_from_float"}:
        return f"should be a whole number, not {given!r}" if _plain(given) else "should be a whole number"
    if kind in {"float_parsing", "float_type"}:
        return f"should be a number such as 0.5, not {given!r}" if _plain(given) else "should be a number"
    if kind == "bool_parsing":
        return f"should be true or false, not {given!r}"
    if kind == "too_short":
        return f"needs at least {context['min_length']}, has {context['actual_length']}"
    if kind.startswith("ip_"):
        return f"{given!r} is no network; write {meant_network(given)}"
    if kind == "string_pattern_mismatch":
        said = PATTERNS[context["pattern"]]
        return said if "://" in str(given) else f"{given!r} {said}"  # a URL may hold a password
    if kind == "value_error":
        return str(context["error"])
    said = details["msg"]
    for word, plain in _PLAINER.items():
        said = said.replace(word, plain)
    return f"{said}, not {given!r}" if _plain(given) else said


def _list_of(given: object, path: KeyPath) -> str:
    key = [part for part in path if isinstance(part, str)][-1]
    plain = _plain(given) and given != "" and not isinstance(given, bool) and "://" not in str(given)
    return f"[{given}]" if plain and key not in BLOCKS else LISTS[key]


def _plain(given: object) -> bool:
    return isinstance(given, str | int | float)


def _none_of(given: object, expected: str) -> str:
    words = re.findall("'([^']*)'", expected)
    if len(words) == 1:
        return f"{given!r} is not {expected}, the only word that may stand here"
    close = difflib.get_close_matches(given, words, n=1, cutoff=0.75) if isinstance(given, str) else []
    return f"{given!r} is none of {expected}" + (f" (did you mean {close[0]}?)" if close else "")


def _such_as(path: KeyPath) -> str:
    known = _keys_at(path)
    return f", such as {known[0]}:" if known else ""


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
