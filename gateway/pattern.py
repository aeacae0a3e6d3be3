"""Path patterns of routes: literal segments, `{name}` for one segment, a final `/**` for any rest."""

from __future__ import annotations

import re
from dataclasses import dataclass

_LITERAL = re.compile(r"[A-Za-z0-9._~!$&'()*+,=:@-]+")
_PARAMETER = re.compile(r"\{([a-z][a-z0-9_]{0,31})\}")
_MAX_SEGMENTS = 32


@dataclass(frozen=True, slots=True)
class Pattern:
    """A pattern taken apart.

    Attributes:
        segments: a literal each, or None where a parameter stands.
        parameters: the parameters' names, in order.
        rest: whether it ends in `/**`, which also matches nothing more.
    """

    segments: tuple[str | None, ...]
    parameters: tuple[str, ...]
    rest: bool


def parse(text: str) -> Pattern:
    """Take a pattern apart.

    Raises:
        ValueError: it breaks the grammar; the message says how it is meant.
    """
    if not text.startswith("/"):
        raise ValueError("a path pattern starts with /")
    parts = text[1:].split("/")
    rest = parts[-1] == "**"
    if rest or parts[-1] == "":  # a trailing slash makes no difference
        parts.pop()
    if len(parts) > _MAX_SEGMENTS:
        raise ValueError(f"a path pattern has at most {_MAX_SEGMENTS} segments")
    segments: list[str | None] = []
    parameters: list[str] = []
    for part in parts:
        if (parameter := _PARAMETER.fullmatch(part)) is not None:
            if parameter[1] in parameters:
                raise ValueError(f"parameter {{{parameter[1]}}} is there twice")
            parameters.append(parameter[1])
            segments.append(None)
        elif part in {"*", "**"}:
            raise ValueError(f"{part!r} may only stand at the end, as /**; for one segment write {{name}}")
        elif part in {".", ".."} or not _LITERAL.fullmatch(part):
            raise ValueError(f"segment {part!r} is neither plain text, {{name}} nor a final **")
        else:
            segments.append(part)
    return Pattern(tuple(segments), tuple(parameters), rest)
