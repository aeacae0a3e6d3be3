"""YAML that remembers where each value stands, so that a mistake can be shown to a tired operator."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import yaml

from gateway.yaml_words import explain

Path = tuple[str | int, ...]
_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)(?::-([^}]*))?\}")
_UNCLOSED = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*(?::-[^}]*)?$")  # a variable that lacks its end
_MAX_DEPTH = 40  # deeper is no config but an attack on the stack
MAX_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing wrong in a file: where it stands and what to do about it."""

    line: int  # from 1; 0: the file as a whole
    path: str  # dotted, e.g. routes[2].limits; empty: no key's
    message: str

    def render(self, file: str) -> str:
        """`FILE:LINE: path.to.key: what is wrong`, as the contract has it, as far as line and key exist."""
        place = f"{file}:{self.line}" if self.line else file
        text = ": ".join(filter(None, (place, self.path, self.message)))
        if text.isprintable():
            return text
        # A key may hold a newline or a terminal's escape codes; one mistake stays one harmless line.
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


class SourceError(Exception):
    """The file could not be read as configuration at all."""

    def __init__(self, mistakes: list[Mistake]) -> None:
        super().__init__("; ".join(f"line {m.line}: {m.message}" for m in mistakes))
        self.mistakes = mistakes


@dataclass(slots=True)
class Source:
    """Plain values, and the line on which each path stands."""

    data: Any
    lines: dict[Path, int] = field(default_factory=dict)

    def line(self, path: Path) -> int:
        """The line of the path, or of its nearest known ancestor."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)


def dotted(path: Path) -> str:
    """("routes", 0, "match") as routes[0].match."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def variables(text: str) -> frozenset[str]:
    """Names of the environment's variables that a file asks for."""
    return frozenset(match[1] for match in _VARIABLE.finditer(text))


def parse(raw: bytes, environment: Mapping[str, str]) -> Source:
    """Read YAML; `${VAR}` and `${VAR:-default}` in scalars are filled from the environment.

    Raises:
        SourceError: not UTF-8, not YAML, an alias, a repeated key, an unset variable.
    """
    if len(raw) > MAX_BYTES:
        raise SourceError([Mistake(0, "", f"larger than {MAX_BYTES >> 20} MiB; this is no config file")])
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise SourceError([Mistake(line, "", "not UTF-8 text; save the file as UTF-8")]) from None
    try:
        # Aliases are refused before composing: a nest of them costs exponential memory. So is what is nested
        # far too deeply: PyYAML takes minutes to find out that 100 KB of brackets exhaust its stack.
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if depth > 2 * _MAX_DEPTH:
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise SourceError([Mistake(line, "", "nested too deeply")])
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise SourceError(
                    [Mistake(line, "", f"alias *{event.anchor} is not supported; repeat the value")]
                )
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        line, said = explain(error, text)
        raise SourceError([Mistake(line, "", said)]) from None
    except yaml.reader.ReaderError as error:
        line = text[: error.position].count("\n") + 1
        said = f"the character U+{error.character:04X} can't stand in a config; remove it"
        raise SourceError([Mistake(line, "", said)]) from None
    except yaml.YAMLError as error:
        raise SourceError([Mistake(1, "", f"not valid YAML: {' '.join(str(error).split())}")]) from None
    except RecursionError:
        raise SourceError([Mistake(1, "", "nested too deeply")]) from None
    source = Source(None)
    mistakes: list[Mistake] = []
    if node is not None:
        source.data = _build(node, (), source.lines, mistakes, environment)
    if mistakes:
        raise SourceError(mistakes)
    return source


def _build(
    node: yaml.Node, path: Path, lines: dict[Path, int], mistakes: list[Mistake], env: Mapping[str, str]
) -> Any:  # noqa: ANN401 - YAML holds anything
    lines.setdefault(path, node.start_mark.line + 1)
    line = node.start_mark.line + 1
    if not node.tag.startswith("tag:yaml.org,2002:") or node.tag.count("/") > 0:
        mistakes.append(Mistake(line, dotted(path), "tags (!) are not supported; remove it"))
        return None
    if len(path) > _MAX_DEPTH:
        mistakes.append(Mistake(line, dotted(path[:3]) + "...", "nested too deeply"))
        return None
    if isinstance(node, yaml.SequenceNode):
        return [_build(item, (*path, i), lines, mistakes, env) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.MappingNode):
        built: dict[str, Any] = {}
        for key_node, value_node in node.value:
            at = key_node.start_mark.line + 1
            if not isinstance(key_node, yaml.ScalarNode):
                mistakes.append(Mistake(at, dotted(path), "a key must be a plain word"))
                continue
            key = key_node.value
            if key_node.tag == "tag:yaml.org,2002:merge":
                mistakes.append(Mistake(at, dotted(path), "<< is not supported; repeat the keys"))
                continue
            if key in built:
                first = lines[(*path, key)]
                mistakes.append(
                    Mistake(at, dotted((*path, key)), f"given twice (first on line {first}); keep one")
                )
                continue
            lines[(*path, key)] = at
            built[key] = _build(value_node, (*path, key), lines, mistakes, env)
        return built
    return _scalar(cast("yaml.ScalarNode", node), path, line, mistakes, env)


def _scalar(
    node: yaml.ScalarNode, path: Path, line: int, mistakes: list[Mistake], env: Mapping[str, str]
) -> Any:  # noqa: ANN401 - YAML holds anything
    text: str = node.value
    tag = node.tag

    def fill(match: re.Match[str]) -> str:
        name, default = match[1], match[2]
        value = env.get(name) or default
        if value is None:
            mistakes.append(
                Mistake(
                    line,
                    dotted(path),
                    f"environment variable {name} is not set; set it or write ${{{name}:-default}}",
                )
            )
            return ""
        return value

    if _UNCLOSED.search(text):
        mistakes.append(Mistake(line, dotted(path), "a ${ lacks its }"))
    filled = _VARIABLE.sub(fill, text)
    if filled != text:
        text = filled
        if node.style is None:  # an unquoted ${PORT} may well be a number
            tag = yaml.SafeLoader("").resolve(yaml.ScalarNode, text, (True, False))  # type: ignore[no-untyped-call]  # PyYAML's stubs lack it
    try:
        loader = yaml.SafeLoader("")
        return loader.construct_object(yaml.ScalarNode(tag, text, node.start_mark))
    except (yaml.YAMLError, ValueError):
        mistakes.append(Mistake(line, dotted(path), f"cannot be read as {tag.rsplit(':', 1)[-1]}"))
        return None
