"""Accept-Encoding: as many kept answers as there are forms of it, however many ways there are to ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policies.cache_coding import CODINGS, coding, with_coding

WEIGHTS = {
    "": True,
    ";q=1": True,
    "; Q=0.5": True,
    ";q=0": False,
    ";q=0.000": False,
    ";q=nonsense": False,
    ";": False,
}
NAMES = st.sampled_from(["br", "GZIP", "zstd", "x-gzip", "deflate", "identity", "*", "made-up"])
MEMBERS = st.lists(st.tuples(NAMES, st.sampled_from(sorted(WEIGHTS))), max_size=8)


def left(*lines: str) -> str | None:
    found = coding([(b"accept-encoding", line.encode()) for line in lines])
    return None if found is None else found.decode()


@pytest.mark.parametrize(
    ("said", "is_left"),
    [
        ("gzip, deflate, br, zstd", "br, gzip, zstd"),
        ("zstd,br ,\tgzip;q=0.1", "br, gzip, zstd"),
        ("gzip;q=1.0, *;q=0", "gzip"),
        ("x-gzip", "gzip"),
        ("*", "br, gzip, zstd"),
        ("*, br;q=0", "gzip, zstd"),
        ("gzip, gzip;q=0", "identity"),
        ("gzip;q=2", "identity"),
        ("deflate, compress, made-up", "identity"),
        ("identity", "identity"),
        ("", "identity"),
    ],
)
def test_what_is_left_of_it(said: str, is_left: str) -> None:
    """Three codings in one order, each when it is welcome; else none."""
    assert left(said) == is_left


def test_without_the_field_there_is_none() -> None:
    """Nothing is asked for in a client's name; several lines are one list."""
    assert left() is None
    assert with_coding([(b"accept", b"*/*")]) == [(b"accept", b"*/*")]
    assert left("gzip", "br") == "br, gzip"


@given(MEMBERS, st.sampled_from([",", ", ", " ,\t,"]))
def test_it_never_allows_what_the_client_did_not(members: list[tuple[str, str]], comma: str) -> None:
    """What is left was asked for, by its name or by `*`, and refused nowhere; said again, it is the same."""
    said = left(comma.join(name + weight for name, weight in members))
    assert said is not None
    assert left(said) == said
    for name in said.split(", "):
        if name == "identity":
            continue
        assert name.encode() in CODINGS
        told = [WEIGHTS[weight] for each, weight in members if each.lower().removeprefix("x-") == name]
        told = told or [WEIGHTS[weight] for each, weight in members if each == "*"]
        assert told
        assert all(told)


@given(st.lists(st.binary(max_size=40), max_size=4))
def test_whatever_is_sent_one_of_few_comes_out(lines: list[bytes]) -> None:
    """Nine at most, so that nobody fills the cache with variants of one page."""
    found = coding([(b"accept-encoding", line) for line in lines])
    assert found in {None, b"identity"} or set(found.split(b", ")) <= set(CODINGS)


async def test_spellings_share_an_answer(bench: Callable[..., Any]) -> None:
    """The upstream sees what is left, so that the kept answer is what it would say to each of them."""
    b = bench()
    b.answer = b.says("cache-control: max-age=10", "vary: Accept-Encoding")
    first = (await b.get(accept_encoding="gzip, deflate, br")).body
    for number in range(50):
        assert (await b.get(accept_encoding=f"br;q=0.{number}1, gzip, x-{number}")).body == first
    plain = (await b.get(accept_encoding="identity")).body
    assert (await b.get(accept_encoding="deflate")).body == plain
    none = (await b.get()).body

    assert len({first, plain, none}) == len(b.asked) == 3
    asked = [dict(headers).get(b"accept-encoding") for headers in b.asked]
    assert asked == [b"br, gzip", b"identity", None]


async def test_who_asks_alone_asks_the_same_way(bench: Callable[..., Any]) -> None:
    """A part is one of the same form as the whole."""
    b = bench()
    b.answer = b.says("cache-control: max-age=10", "vary: Accept-Encoding")
    await b.get(accept_encoding="zstd;q=0.5, deflate", range="bytes=0-1")

    assert dict(b.asked[0])[b"accept-encoding"] == b"zstd"
