"""JSON Schema of the configuration for editors: durations with units, `${VARIABLES}`, no false alarms."""

from __future__ import annotations

from typing import Any

from gateway.settings import Config

Json = dict[str, Any]
DIALECT = "https://json-schema.org/draft/2020-12/schema"
_WRITTEN = {  # beside a bare number, these may be written with a unit
    "duration": {
        "type": "string",
        "pattern": r"^\s*\d+(\.\d+)?\s*(ms|s|m|h|d)\s*$",
        "examples": ["500ms", "5s"],
    },
    "size": {"type": "string", "pattern": r"^\s*\d+\s*(B|KiB|MiB|GiB|kB|MB|GB)?\s*$", "examples": ["1MiB"]},
}
_VARIABLE = {"type": "string", "pattern": r"\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\}"}
_BOUNDS = {"gt": "exclusiveMinimum", "ge": "minimum", "lt": "exclusiveMaximum", "le": "maximum"}
_ABOUT = ("description", "default", "examples", "title")  # stay outside of a choice


def json_schema() -> Json:
    """The schema of the whole file. `x-kind` marks durations (default in seconds) and sizes (in bytes)."""
    schema = Config.model_json_schema(by_alias=True)
    for block in (schema, *schema["$defs"].values()):
        for name, value in block.get("properties", {}).items():
            block["properties"][name] = _tidied(value)
    return {"$schema": DIALECT, "$id": "gateway.schema.json", **schema, "title": "Tidegate's gateway"}


def _tidied(value: Json) -> Json:
    """A key's schema without pydantic's titles, its scalars also as variables."""
    about = {key: value[key] for key in _ABOUT if key in value and key != "title"}
    rest = {_BOUNDS.get(key, key): each for key, each in value.items() if key not in _ABOUT}
    kind = rest.get("x-kind")
    if rest.pop("x-off", False):
        rest["anyOf"] += [{"const": "off"}, {"const": False}]
    if "anyOf" in rest:
        choices = [_tidied(each) for each in rest["anyOf"]]
        flat = [one for each in choices for one in each.get("anyOf", [each])]
        kinds = {each["x-kind"] for each in choices if "x-kind" in each}
        return about | {"anyOf": _once(flat)} | ({"x-kind": kinds.pop()} if kinds else {})
    if kind == "one-or-more":
        del rest["x-kind"]
        rest["minItems"] = rest.pop("minLength", 1)
        if "maxLength" in rest:
            rest["maxItems"] = rest.pop("maxLength")
        rest["items"] = _tidied(rest["items"])
        return about | {"anyOf": [rest["items"], rest]}
    if "items" in rest:
        rest["items"] = _tidied(rest["items"])
    if rest.get("type") in {"integer", "number", "boolean"} or "pattern" in rest or "enum" in rest:
        written = [_WRITTEN[kind]] if kind in _WRITTEN else []
        return about | {"anyOf": [rest, *written, _VARIABLE]} | ({"x-kind": kind} if kind else {})
    return about | rest


def _once(choices: list[Json]) -> list[Json]:
    return [each for place, each in enumerate(choices) if each not in choices[:place]]
