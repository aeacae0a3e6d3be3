"""Path patterns and the route table, against a plain reading of the rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import pattern
from gateway.errors import MethodNotAllowed, NotFound
from gateway.routes import RouteTable
from gateway.settings import Route


def _table(*routes: dict[str, object]) -> RouteTable:
    return RouteTable([Route.model_validate({"upstream": "shop", **route}) for route in routes])


def test_the_first_in_the_file_wins() -> None:
    """Order decides, not how specific a pattern is."""
    table = _table({"match": "/a/{x}"}, {"match": "/a/b"}, {"match": "/**"})

    assert table.match("h", "GET", "/a/b") == (0, {"x": "b"})
    assert table.match("h", "GET", "/a/b/c") == (2, {})
    assert table.match("h", "GET", "/") == (2, {})


def test_parameters_carry_each_route_s_own_names() -> None:
    """Two patterns of one shape keep their names apart."""
    table = _table({"match": "/{a}/x"}, {"match": "/{b}/y/**"})

    assert table.match("h", "GET", "/1/x") == (0, {"a": "1"})
    assert table.match("h", "GET", "/2/y/z") == (1, {"b": "2"})
    assert table.match("h", "GET", "/2/y") == (1, {"b": "2"})


def test_a_trailing_slash_escapes_no_limit() -> None:
    """/api/orders/ is /api/orders."""
    table = _table({"match": "/api/orders", "methods": ["POST"]}, {"match": "/**"})

    assert table.match("h", "POST", "/api/orders/")[0] == 0


def test_methods_and_hosts() -> None:
    """HEAD goes where GET goes; a host may be a wildcard; ports and case don't count."""
    table = _table(
        {"match": "/x", "methods": ["GET"], "hosts": ["*.shop.example", "shop.example"]},
        {"match": "/x", "methods": ["POST"]},
    )

    assert table.match("WWW.shop.example:8000", "HEAD", "/x")[0] == 0
    assert table.match("shop.example", "GET", "/x")[0] == 0
    assert table.match("other.example", "POST", "/x")[0] == 1
    with pytest.raises(MethodNotAllowed) as refused:
        table.match("evilshop.example", "GET", "/x")
    assert list(refused.value.fields) == [(b"allow", b"POST")]
    with pytest.raises(NotFound):
        table.match("shop.example", "GET", "/y")


@pytest.mark.parametrize(
    "text", ["", "a", "/a/**/b", "/*", "/{", "/{A}", "/{a}/{a}", "/a b", "/..", "/a//b", "/ä"]
)
def test_bad_patterns(text: str) -> None:
    """Each is refused with a reason."""
    with pytest.raises(ValueError, match=r"\w"):
        pattern.parse(text)


segments = st.lists(st.sampled_from(["a", "b", "{x}", "{y}"]), max_size=4, unique=True)
patterns = st.tuples(segments, st.booleans()).map(
    lambda p: "/" + "/".join([*p[0], *(["**"] if p[1] else [])])
)
paths = st.lists(st.sampled_from(["a", "b", "c"]), max_size=5).map(lambda p: "/" + "/".join(p))


def _takes(text: str, path: str) -> bool:
    """The rules, read plainly."""
    wanted = [part for part in text.split("/") if part]
    got = [part for part in path.split("/") if part]
    rest = bool(wanted) and wanted[-1] == "**"
    if rest:
        wanted.pop()
    if len(got) < len(wanted) or (len(got) > len(wanted) and not rest):
        return False
    return all(w.startswith("{") or w == g for w, g in zip(wanted, got, strict=False))


@given(st.lists(patterns, min_size=1, max_size=8), paths)
def test_the_tree_agrees_with_a_plain_scan(texts: list[str], path: str) -> None:
    """Whatever the table, the tree finds what a scan from the top finds."""
    table = _table(*({"match": text} for text in texts))
    expected = next((index for index, text in enumerate(texts) if _takes(text, path)), None)

    if expected is None:
        with pytest.raises(NotFound):
            table.match("h", "GET", path)
    else:
        assert table.match("h", "GET", path)[0] == expected
