"""What a change through the admin API came to, as one sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ops.admin_client import AdminClient, Json, meant
from ops.errors import Refused

_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))  # seconds, unit


def feature(answer: Json, name: str, state: str) -> str:
    """After `tidegate switch`."""
    said = _fields(answer)
    if state != "auto":
        return f"{name} is {state}{_terms(said)}"
    return f"{name} is left to the ladder{_now(said, 'on', {True: 'on', False: 'off'})}{_terms(said)}"


def step(answer: Json, asked: int | str) -> str:
    """After `tidegate step`."""
    said = _fields(answer)
    named = f" ({said['name']})" if "name" in said else ""
    if asked != "auto":
        return f"step {asked}{named} is pinned{_terms(said)}"
    now = f" (now {said['step']} {said['name']})" if "step" in said and named else ""
    return f"the step follows the pressure{now}{_terms(said)}"


def breaker(answer: Json, upstream: str, state: str) -> str:
    """After `tidegate breaker`."""
    said = _fields(answer)
    if state != "auto":
        return f"the breaker of {upstream} is held {state}{_terms(said)}"
    return f"the breaker of {upstream} judges by itself{_terms(said)}"


def limit(answer: Json, name: str, rate: str) -> str:
    """After `tidegate limit`."""
    said = _fields(answer)
    if rate == "auto":
        return f"limit {name} is as configured{_now(said, 'configured', {})}{_terms(said)}"
    words = {"off": "off: it refuses nobody", "shadow": "in shadow: it counts and refuses nobody"}
    return f"limit {name} is {words.get(rate, said.get('rate', rate))}{_terms(said)}"


def step_number(client: AdminClient, word: str) -> int | str:
    """The step that an operator means: a number, a rung's name, or auto.

    Raises:
        Refused: no rung has that name.
        Unreachable: the admin API did not answer.
    """
    if word == "auto":
        return word
    if word.isascii() and word.isdigit():
        return int(word)
    rungs = [rung for rung in _fields(client.get("/api/step")).get("steps") or [] if isinstance(rung, dict)]
    numbers = {str(rung.get("name")): int(rung.get("step", 0)) for rung in rungs}
    if word not in numbers:
        listed = ", ".join(f"{number} {name}" for name, number in numbers.items()) or "none"
        raise Refused(f"no step of the name {word}; there are: {listed}, and auto{meant(word, numbers)}")
    return numbers[word]


def differences(answer: Json) -> str:
    """After `tidegate check --diff`: one line for each key that the file would change."""
    lines, version = _changes(answer), _fields(answer).get("version")
    if not lines:
        return f"good; it is configuration {version} as it holds"
    return "\n".join([f"good; it changes {_keys(lines)} of configuration {version}:", *lines])


def reload(answer: Json, taken: Callable[[object], str]) -> str:
    """After `tidegate reload`: one line for each key that has changed.

    Args:
        answer: of the admin API.
        taken: tells of a configuration when it came to hold. The gateway watches the file: mostly it has
            taken an edit before anybody asks, and who asks wants to know what came of it all the same.
    """
    lines, said = _changes(answer), _fields(answer)
    version = said.get("version")
    if not lines:
        text = f"the file says what holds: configuration {version}{_terms(said)}"
        return "\n".join(filter(None, [text, taken(version)]))
    head = f"configuration {said.get('version')} holds{_terms(said)}; it changed {_keys(lines)}:"
    return "\n".join([head, *lines])


def cleared(answer: Json) -> str:
    """After `tidegate shut-offs clear`."""
    count = _fields(answer).get("cleared", 0)
    return "nothing was shut off" if not count else f"{count} let through again"


def _changes(answer: Json) -> list[str]:
    return [
        f"{one.get('path')}: {value(one.get('before'))} -> {value(one.get('after'))}"
        + ("  (after a restart)" if one.get("restart") else "")
        for one in _fields(answer).get("changes") or []
        if isinstance(one, dict)
    ]


def _keys(lines: list[str]) -> str:
    return f"{len(lines)} key" if len(lines) == 1 else f"{len(lines)} keys"


def value(told: Any) -> str:  # noqa: ANN401 - JSON
    """A setting as a line has it."""
    return "(none)" if told is None else told if isinstance(told, str) else json.dumps(told)


# ---- words --------------------------------------------------------------------------------------


def _fields(answer: Json) -> Mapping[str, Any]:
    return answer if isinstance(answer, dict) else {}


def _now(said: Mapping[str, Any], key: str, words: Mapping[Any, str]) -> str:
    return f" (now {words.get(said[key], said[key])})" if key in said else ""


def _terms(said: Mapping[str, Any]) -> str:
    """How long, in how many workers after what time, and why."""
    pin = said.get("pin") or {}
    text = ""
    if pin.get("until") is not None and pin.get("since") is not None:
        text += f" for {duration(round(pin['until'] - pin['since']))}"
    if said.get("workers"):
        text += f" in {said.get('applied')} of {said['workers']} workers"
        if said.get("ms") is not None:
            text += f" after {said['ms']:.0f} ms"
    return f"{text}: {pin['reason']}" if pin.get("reason") else text


def duration(seconds: int) -> str:
    """Seconds in the largest unit that is exact."""
    exact = (unit for unit in _UNITS if seconds >= unit[0] and seconds % unit[0] == 0)
    size, unit = next(exact, _UNITS[-1])
    return f"{seconds // size} {unit}"
