"""No spelling of a limited path escapes its limit."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gateway import guard
from gateway.config import Listen
from gateway.errors import BadRequest, GatewayError, NotImplementedHere
from gateway.exchange import Exchange
from gateway.guard import normalise

SLASHES = ["/", "/", "//", "%2f", "%2F", "\\", "%5c", "/./", "/%2e/", "/.;a/", "///"]
PARENTS = ["..", "%2e%2e", ".%2E", "..;x"]
UNRESERVED = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_~"
words = st.text(st.sampled_from(UNRESERVED + "."), min_size=1, max_size=8).filter(
    lambda word: word.strip(".")
)
paths = st.lists(words, max_size=5)


@st.composite
def spellings(draw: st.DrawFn) -> tuple[str, bytes]:
    """A path, and one of the ways to hide it."""
    segments = draw(paths)

    def escaped(text: str) -> str:
        form = draw(st.sampled_from(["%%%02x", "%%%02X"]))
        return "".join(form % ord(c) if draw(st.integers(0, 3)) == 0 else c for c in text)

    def slash() -> str:
        return draw(
            st.sampled_from(["/", "/", "//", "%2f", "%2F", "\\", "%5c", "/./", "/%2e/", "/.;a/", "///"])
        )

    def detour() -> str:
        if draw(st.integers(0, 3)):
            return ""
        return slash() + escaped(draw(words)) + slash() + draw(st.sampled_from(PARENTS))

    text = "".join(
        detour() + slash() + escaped(segment) + draw(st.sampled_from(["", "", ";x", ";a=b", "%3bx"]))
        for segment in segments
    )
    tail = draw(st.sampled_from(["", "/", "//", "/.", "%2f", "/%2e", "/x/.."]))
    spelled = text + tail
    if not spelled.startswith("/"):
        spelled = "/" + spelled
    return "/" + "/".join(segments), spelled.encode()


@given(spellings())
def test_every_spelling_comes_to_the_same_path(case: tuple[str, bytes]) -> None:
    """Escapes, slashes, back-slashes, dots, detours and parameters hide nothing."""
    plain, spelled = case
    assert normalise(spelled) == plain


@given(st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), max_size=60))
def test_normalising_is_stable_or_refuses(raw: str) -> None:
    """Whatever comes is refused, or has a form that stays as it is when quoted and normalised again."""
    try:
        path = normalise(b"/" + raw.encode())
    except BadRequest:
        return
    assert path.startswith("/")
    assert "//" not in path
    assert ".." not in path.split("/")
    assert normalise(quote(path).encode()) == path


@given(st.text(st.sampled_from("/%25efc.\\;a"), max_size=12))
@example("%2522")
def test_no_second_decoding_finds_another_path(raw: str) -> None:
    """A server that decodes twice sees the same path as one that decodes once."""
    try:
        path = normalise(b"/" + raw.encode())
        twice = normalise(path.encode())
    except BadRequest:
        return
    assert twice == path


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/", "/"),
        (b"/api/orders", "/api/orders"),
        (b"/api/orders/", "/api/orders"),
        (b"/api/products/steam-50.v1", "/api/products/steam-50.v1"),
        (b"/a/b/../c", "/a/c"),
        (b"/a/b/..", "/a"),
        (b"/.well-known/x", "/.well-known/x"),
        (b"/a.../b", "/a.../b"),
        (b"/a%20b", "/a b"),
        (b"/100%25", "/100%"),
        (b"/a%3fb", "/a?b"),
        (b"/%e2%82%ac", "/€"),
    ],
)
def test_examples(raw: bytes, path: str) -> None:
    """The plain cases, by hand."""
    assert normalise(raw) == path


def test_long_odd_paths_take_linear_time() -> None:
    """The pattern of clean paths has no catastrophic input; a quadratic one would run into the time-out."""
    for piece in (b"/a.", b"/a", b"a.", b"..a", b"/.", b"a%2e"):
        raw = b"/a" + piece * 300_000 + b"."
        assert normalise(raw).startswith("/")


scopes = st.fixed_dictionaries(
    {
        "http_version": st.sampled_from(["1.0", "1.1", "2"]),
        "method": st.sampled_from(["GET", "POST", "OPTIONS", "TRACE"]) | st.text(max_size=5),
        "headers": st.lists(
            st.tuples(
                st.sampled_from([b"host", b"content-length", b"transfer-encoding", b"upgrade", b"x"])
                | st.binary(max_size=8),
                st.sampled_from([b"a", b"chunked", b"5", b"a, b"]) | st.binary(max_size=12),
            ),
            max_size=8,
        ),
        guard.TARGET: st.sampled_from([b"/", b"*", b"http://a/b", b"/a%2fb"]) | st.binary(max_size=20),
    }
)


async def receive() -> dict[str, Any]:
    return {"type": "http.disconnect"}


def vetted(scope: dict[str, Any]) -> Exchange:
    exchange = Exchange(
        method="", target=b"", path="", headers=[], host=b"", address="", receive=receive, started=0.0
    )
    guard.inspect(scope, Listen(), exchange)
    return exchange


@given(scopes)
def test_whatever_comes_is_vetted_or_refused(scope: dict[str, Any]) -> None:
    """No scope makes the guard fail; what it lets through has one host, one end and a path."""
    try:
        exchange = vetted(scope)
    except GatewayError:
        return
    names = [name for name, _ in scope["headers"]]
    assert names.count(b"host") == 1
    assert names.count(b"content-length") + names.count(b"transfer-encoding") <= 1
    assert exchange.path.startswith("/")
    assert exchange.path.isprintable() or not exchange.path.isascii()
    assert exchange.target.startswith(b"/")


@pytest.mark.parametrize(
    ("target", "understood"),
    [(b"http://a?b", b"/?b"), (b"HTTP://A:80/c", b"/c"), (b"https://a:443", b"/")],
)
def test_absolute_form(target: bytes, understood: bytes) -> None:
    """Forms that today's server doesn't hand on are understood all the same."""
    assert (
        vetted(
            {"http_version": "1.1", "method": "GET", "headers": [(b"host", b"a")], guard.TARGET: target}
        ).target
        == understood
    )


def test_connect_is_not_implemented() -> None:
    """Also where a server hands it on (RFC 9110, 9.3.6)."""
    with pytest.raises(NotImplementedHere):
        vetted({"http_version": "1.1", "method": "CONNECT", "headers": [], guard.TARGET: b"a:443"})


def test_a_scope_without_the_raw_target() -> None:
    """Behind another ASGI server the target is put together again."""
    scope = {"http_version": "1.1", "method": "GET", "headers": [(b"host", b"a")]}
    assert vetted(scope | {"raw_path": b"/a%2fb", "query_string": b"c=d"}).target == b"/a%2fb?c=d"
