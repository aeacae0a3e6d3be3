"""What PyYAML says of a file that it can't read, in words that say what to look for, and on which line."""

from __future__ import annotations

import contextlib
import re

import yaml

_INDENTED = tuple(
    f"expected <block end>, but found '{found}'"
    for found in ("<block mapping start>", "<block sequence start>", "-")
)
_OPENED = {"']'": "[", "'}'": "{"}
_VARIABLE = re.compile(r"\$\{(\w+)(\}?)")
_UNQUOTED = "the quote that is opened on this line is not closed"


def explain(error: yaml.MarkedYAMLError, text: str) -> tuple[int, str]:
    """The line of the text, from 1, and what is wrong there."""
    problem, context = error.problem or "", error.context or ""
    here, there = error.problem_mark or error.context_mark, error.context_mark or error.problem_mark
    line = here.line + 1 if here else 1
    begun = there.line + 1 if there else line
    if "'\\t'" in problem:
        return line, "a tab; indent with spaces"
    if problem == "could not find expected ':'":
        return begun, "neither a key with its colon and a space (`key: value`) nor an item (`- value`)"
    if problem.startswith("mapping values are not allowed"):
        said = "quote a value that has one, or put a space behind the one above"
        return line, f"a colon is out of place; {said}"
    if problem.startswith("expected") and here and (opening := _swallowed(text, here)) is not None:
        return opening, _UNQUOTED
    if problem.startswith("expected ',' or") and "flow" in context:
        if here and (variable := _VARIABLE.match(text, max(0, here.index - 1))):
            rest = variable[2] or "...}"  # the default may be a secret
            word = f"${{{variable[1]}{rest}"
            return line, f'{word} takes quotes inside {{ }} or [ ]; write "{word}"'
        opened = next((bracket for closing, bracket in _OPENED.items() if closing in problem), "[")
        return begun, f"the {opened} on this line is not closed, or a comma is missing behind it"
    if context == "while scanning a quoted scalar":
        return begun, _UNQUOTED
    if "escape" in problem:
        return line, "a \\ in double quotes begins an escape; take single quotes"
    if problem == "but found another document":
        return line, "a second document begins here; remove the --- and keep one"
    if problem.startswith("expected '<document start>'"):
        return line, "out of place; is a quote or a colon missing further up?"
    if problem in _INDENTED:
        return line, "indented otherwise than the lines that it belongs to"
    if problem.startswith("expected <block end>"):
        found = problem.rpartition("found ")[2]
        return line, f"{found} is out of place; is a space missing after a - or a colon, or a quote?"
    return line, f"not valid YAML: {problem or context or 'unreadable'}"


def _swallowed(text: str, here: yaml.Mark) -> int | None:
    """The line of a quote that was closed only by one meant to open another, just before a place."""
    opening = None
    with contextlib.suppress(yaml.YAMLError):
        for token in yaml.scan(text, Loader=yaml.SafeLoader):
            start, end = token.start_mark, token.end_mark
            if start.index >= here.index:
                break
            quoted = isinstance(token, yaml.ScalarToken) and token.style in ("'", '"')
            opening = start.line + 1 if quoted and start.line < end.line == here.line else None
    return opening
