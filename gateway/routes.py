"""The compiled route table: which route has a host, a method and a path; the first in the file wins."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway import pattern
from gateway.errors import MethodNotAllowed, NotFound
from gateway.settings import Route

_KNOWN: Final = 1024  # paths whose route is remembered; beyond it all are forgotten
_MAX_KNOWN_PATH: Final = 256  # characters


@dataclass(slots=True)
class _Node:
    """A place in the tree of segments; routes are told by their place in the file."""

    literal: dict[str, _Node] = field(default_factory=dict)
    parameter: _Node | None = None
    ends: list[int] = field(default_factory=list)  # routes whose pattern ends here
    rests: list[int] = field(default_factory=list)  # routes whose `/**` begins here


class RouteTable:
    """Finds a request's route in time that depends on the path's depth, not on the number of routes."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._patterns = [pattern.parse(route.match) for route in routes]
        self._methods = [frozenset(route.methods) for route in routes]
        self._hosts = [route.hosts for route in routes]
        self._any_host = not any(self._hosts)
        self._known: dict[tuple[str, str], tuple[int, dict[str, str]]] = {}  # while hosts don't matter
        self._root = _Node()
        for index, parsed in enumerate(self._patterns):
            node = self._root
            for segment in parsed.segments:
                if segment is None:
                    node.parameter = node.parameter or _Node()
                    node = node.parameter
                else:
                    node = node.literal.setdefault(segment, _Node())
            (node.rests if parsed.rest else node.ends).append(index)

    def match(self, host: str, method: str, path: str) -> tuple[int, dict[str, str]]:
        """The route's place in the file, and its path parameters.

        Args:
            host: the Host field's value; its port is ignored.
            method: upper case. A route that takes GET takes HEAD.
            path: normalised; a trailing slash makes no difference.

        Raises:
            NotFound: no route has this path on this host.
            MethodNotAllowed: one has, for other methods.
        """
        known = self._known.get((method, path))
        if known is not None:
            return known
        found_route = self._find(host, method, path)
        if self._any_host and len(path) <= _MAX_KNOWN_PATH:
            if len(self._known) >= _KNOWN:
                self._known.clear()
            self._known[method, path] = found_route
        return found_route

    def _find(self, host: str, method: str, path: str) -> tuple[int, dict[str, str]]:
        found: list[tuple[int, tuple[str, ...]]] = []
        segments = path.strip("/").split("/") if len(path) > 1 else []
        _collect(self._root, segments, 0, (), found)
        if len(found) > 1:
            found.sort(key=_by_place)
        allowed: set[str] = set()
        for index, captured in found:
            if not self._any_host and not _host_matches(host, self._hosts[index]):
                continue
            methods = self._methods[index]
            if not methods or method in methods or (method == "HEAD" and "GET" in methods):
                names = self._patterns[index].parameters
                return index, dict(zip(names, captured, strict=False)) if names else {}
            allowed |= methods
        if allowed:
            listed = ", ".join(sorted(allowed))
            raise MethodNotAllowed(f"this path takes {listed}", fields=[(b"allow", listed.encode())])
        raise NotFound("no route has this path")


def _by_place(candidate: tuple[int, tuple[str, ...]]) -> int:
    return candidate[0]


def _collect(
    node: _Node,
    segments: list[str],
    at: int,
    captured: tuple[str, ...],
    found: list[tuple[int, tuple[str, ...]]],
) -> None:
    for index in node.rests:
        found.append((index, captured))  # noqa: PERF401 - an extend would build a generator per node
    if at == len(segments):
        for index in node.ends:
            found.append((index, captured))  # noqa: PERF401 - the same
        return
    segment = segments[at]
    following = node.literal.get(segment)
    if following is not None:
        _collect(following, segments, at + 1, captured, found)
    if node.parameter is not None and segment:
        _collect(node.parameter, segments, at + 1, (*captured, segment), found)


def _host_matches(host: str, wanted: tuple[str, ...]) -> bool:
    if not wanted:
        return True
    name = host.rsplit(":", 1)[0] if not host.endswith("]") else host
    name = name.lower().rstrip(".")
    return any(name == one or (one.startswith("*.") and name.endswith(one[1:])) for one in wanted)
