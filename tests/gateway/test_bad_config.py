"""Each mistake an operator can make is told in one line: where it stands, and what was meant.

`tests/bad_config/` has one small file per mistake. Its first lines, `# expect: LINE: path: text`, are
what `load` must say about it, and all that it must say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Config, ConfigError, load, remarks
from gateway.settings.examples import LISTS, PATTERNS

FILES = sorted((Path(__file__).resolve().parent.parent / "bad_config").glob("*.yaml"))
EXPECT = b"# expect: "
GOOD = b"""
listen: {port: 8000, trusted_proxies: [10.0.0.0/8], max_body: 1MiB}
redis: {url: "redis://127.0.0.1:6379", timeout: 20ms}
identity: {cookie: session}
upstreams:
  shop:
    servers: ["http://127.0.0.1:8100"]
    timeout: {connect: 1s, total: 5s}
    breaker: {window: 10s, failure_ratio: 0.5}
    concurrency: {min: 4, max: 400}
limits:
  user: {rate: 20/second, per: user}
features:
  recommendations: {fallback: {json: {items: []}}}
degradation:
  steps: [{name: elevated, off: [recommendations]}]
  climb: {pressure: 0.8, after: 3s}
routes:
  - {match: "/api/{sku}", methods: [GET], upstream: shop, feature: recommendations, limits: [user]}
  - {match: "/**", upstream: shop}
"""


def mistakes(raw: bytes, name: str = "gateway.yaml") -> list[str]:
    with pytest.raises(ConfigError) as refused:
        load(raw, name, {})
    return refused.value.lines


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_mistake_is_told_in_one_line(file: Path) -> None:
    """Exactly the lines that the file expects, each under the file's name."""
    raw = file.read_bytes()
    expected = [
        f"{file}:{line.removeprefix(EXPECT).decode()}" for line in raw.splitlines() if line.startswith(EXPECT)
    ]
    assert expected, "the first line says what is expected"
    assert mistakes(raw, str(file)) == expected


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_no_mistake_shows_a_secret(file: Path) -> None:
    """A password in a URL that is wrong is not repeated."""
    assert "hunter2" not in "\n".join(mistakes(file.read_bytes()))


def test_the_folder_is_there() -> None:
    """An empty folder would pass everything."""
    assert len(FILES) >= 35


def test_the_good_file_is_good() -> None:
    """What the properties below spoil is accepted as it is, with or without a byte order mark."""
    assert load(GOOD, "gateway.yaml", {}) == load(b"\xef\xbb\xbf" + GOOD, "gateway.yaml", {})


def test_a_short_total_alone_is_no_disagreement() -> None:
    """What was not written can't contradict what was: `total` bounds the connect time anyway."""
    settings = load(GOOD.replace(b"connect: 1s, total: 5s", b"total: 100ms"), "gateway.yaml", {})
    assert settings.upstreams["shop"].timeout.total == 0.1


def _paths(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [path] * bool(path) + [p for key, value in items for p in _paths(value, (*path, key))]


PATHS = _paths(yaml.safe_load(GOOD))
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        ["", "0s", "-1", "${X:-}", "1e999", "/", "*", "{", "${", "redis://", "http://[", "0/second"]
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def accepts_or_explains(raw: bytes) -> None:
    """`load` gives settings, or lines with a place each; it never fails in another way."""
    try:
        load(raw, "gateway.yaml", {})
    except ConfigError as error:
        refused = error
    else:
        return
    assert refused.lines
    last = len(raw.decode("utf-8", "replace").splitlines()) + 1  # YAML knows more line ends than \n
    for mistake, line in zip(refused.mistakes, refused.lines, strict=True):
        assert 1 <= mistake.line <= last
        assert line.startswith(f"gateway.yaml:{mistake.line}: ")
        assert line.isprintable()


@given(st.sampled_from(PATHS), VALUES)
def test_any_value_anywhere_is_accepted_or_explained(path: tuple[Any, ...], value: Any) -> None:
    """One value of a good file replaced by anything that YAML can hold."""
    data = yaml.safe_load(GOOD)
    node = data
    for part in path[:-1]:
        node = node[part]
    node[path[-1]] = value
    accepts_or_explains(yaml.safe_dump(data, allow_unicode=True).encode("utf-8", "surrogatepass"))


@given(st.data())
def test_any_damage_is_accepted_or_explained(data: st.DataObject) -> None:
    """Bytes of a good file cut out and replaced by any others."""
    start = data.draw(st.integers(0, len(GOOD)))
    end = data.draw(st.integers(start, min(start + 20, len(GOOD))))
    junk = data.draw(
        st.binary(max_size=10) | st.sampled_from([b"\t", b"&a ", b"*a", b"!!x ", b"- ", b"? ", b"{"])
    )
    accepts_or_explains(GOOD[:start] + junk + GOOD[end:])


@given(st.binary(max_size=60))
def test_any_bytes_are_accepted_or_explained(raw: bytes) -> None:
    """A photograph in place of a config."""
    accepts_or_explains(raw)


def test_a_file_of_brackets_is_refused_at_its_first() -> None:
    """PyYAML would look at them for minutes, and the process that throws the switches with it."""
    assert mistakes(b"routes:\n  " + b"[" * 500_000) == ["gateway.yaml:2: nested too deeply"]


def _keys(schema: Any, key: str = "") -> list[tuple[str, dict[str, Any]]]:
    """Every part of a JSON schema, and the key that it is the value of."""
    parts = [(key, schema)] if isinstance(schema, dict) else []
    items = schema.items() if isinstance(schema, dict) else enumerate(schema)
    for name, inner in items:
        if isinstance(inner, dict | list):
            parts += _keys(inner, key if isinstance(name, int) or name in WORDS else name)
    return parts


WORDS = {"anyOf", "items", "properties", "additionalProperties", "allOf", "oneOf", "propertyNames"}


def test_each_list_and_each_pattern_has_an_example() -> None:
    """Whatever is wrong is told in words, with what may stand there."""
    parts = _keys(Config.model_json_schema())
    lists = {key for key, schema in parts if schema.get("type") == "array"}
    patterns = {schema["pattern"] for _, schema in parts if isinstance(schema.get("pattern"), str)}
    assert lists >= {"routes", "servers", "failures", "per"}
    assert lists <= LISTS.keys()
    assert patterns - PATTERNS.keys() == {"^[0-9a-f]{64}$"}  # a token's hash has words of its own


def test_what_changes_nothing_is_remarked() -> None:
    """A limit that no route charges, a feature of none: good, for a file may come before its routes."""
    idle = GOOD.replace(b"limits: [user]}", b"cost: 1}").replace(b"feature: recommendations, ", b"")
    off = "that it is off is only told to the upstreams"
    assert remarks(load(GOOD, "gateway.yaml", {}), GOOD, "gateway.yaml", {}) == []
    found = remarks(load(idle, "", {}), idle, "gateway.yaml", {})
    told = [line.removeprefix("gateway.yaml:") for line in found]
    assert told == [
        "12: limits.user: no route charges this limit; name it in the limits of one",
        "14: features.recommendations.fallback: never answered: no route belongs to this feature",
        f"16: degradation.steps[0].off[0]: no route belongs to 'recommendations'; {off}",
    ]
