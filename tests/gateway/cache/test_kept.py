"""What is kept, for when the upstream is not to be asked; and which parts of a query tell answers apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.policies.cache_key import primary_key
from tests.gateway.cache.bench import request

PUBLIC = "cache-control: public, max-age=10"


# ---- without asking --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "after", "stale_for", "given"),
    [
        (PUBLIC, 5, 0.0, True),
        (PUBLIC, 11, 0.0, False),
        (PUBLIC, 600, 600.0, True),
        (PUBLIC, 610, 600.0, False),
        (PUBLIC, 69, None, True),  # stale_if_error, as the route has it
        (PUBLIC, 70, None, False),
        ("cache-control: max-age=10, stale-if-error=5", 14, None, True),
        ("cache-control: max-age=10, stale-if-error=5", 15, None, False),
        ("cache-control: max-age=10, must-revalidate", 5, 600.0, True),
        ("cache-control: max-age=10, must-revalidate", 11, 600.0, False),
        ("cache-control: s-maxage=10", 11, 600.0, False),
    ],
)
async def test_an_answer_is_given_without_asking_as_long_as_it_may(
    bench: Callable[..., Any], line: str, after: float, stale_for: float | None, given: bool
) -> None:
    """Fresh always; old within the bound given, never where it forbids that itself."""
    cache = bench(stale_if_error="60s")
    cache.answer = cache.says(line)
    await cache.get()
    cache.clock.advance(after)
    exchange = request()
    reply = cache.cache.last(exchange, stale_for)

    assert (reply is not None) is given
    assert len(cache.asked) == 1
    if reply is not None:
        assert (reply.status, reply.body, exchange.outcome) == (200, b"1", "cached")
        assert (b"age", b"%d" % after) in reply.headers


@pytest.mark.parametrize(
    ("line", "fields", "given"),
    [
        (PUBLIC, {"cookie": "a=b"}, True),
        ("cache-control: max-age=10", {"cookie": "a=b"}, False),
        ("cache-control: max-age=10", {"authorization": "x"}, False),
        (PUBLIC, {"if_match": '"x"'}, False),
    ],
)
async def test_nobody_gets_what_is_not_theirs(
    bench: Callable[..., Any], line: str, fields: dict[str, str], given: bool
) -> None:
    """Whoever says who they are gets only public answers, as ever."""
    cache = bench()
    cache.answer = cache.says(line)
    await cache.get()
    assert (cache.cache.last(request(**fields), 600.0) is not None) is given


@pytest.mark.parametrize(("method", "body"), [("GET", b"1"), ("HEAD", b""), ("POST", None)])
async def test_only_reading_is_answered_from_memory(
    bench: Callable[..., Any], method: str, body: bytes | None
) -> None:
    """HEAD without the body; a POST never."""
    cache = bench()
    cache.answer = cache.says(PUBLIC)
    await cache.get()
    reply = cache.cache.last(request(method))
    assert (None if reply is None else reply.body) == body


async def test_a_feature_that_is_off_says_what_it_last_said(
    start_gateway: Any, shop: Any, until: Any
) -> None:
    """Over sockets: its last answer stands in for ten minutes, named as degraded; nobody asks the shop."""

    async def recommends(_: Any, writer: Any, __: Any) -> None:
        writer.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nCache-Control: public, max-age=0\r\n"
            b'ETag: "1"\r\nContent-Length: 5\r\n\r\n["a"]'
        )

    shop.scripts["/recommendations"] = recommends
    gateway = await start_gateway(
        "--workers",
        "1",
        features={"recommendations": {"fallback": {"stale": "10m", "json": []}}},
        routes=[
            {"match": "/recommendations", "upstream": "shop", "feature": "recommendations", "cache": {}},
            {"match": "/**", "upstream": "shop"},
        ],
    )
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        assert (await client.get("/recommendations")).json() == ["a"]
        await gateway.admin("PUT", "/api/features/recommendations", {"state": "off"})
        asked = len(shop.seen)
        kept, other = await client.get("/recommendations"), await client.get("/recommendations?sku=b")

    assert (kept.json(), other.json()) == (["a"], [])  # of the second nothing was kept
    assert {answer.headers["tidegate-degraded"] for answer in (kept, other)} == {"recommendations"}
    assert len(shop.seen) == asked

    async def counted() -> bool:
        return await gateway.metric("tidegate_requests_total", outcome="degraded") == 2

    await until(counted)


# ---- keys ------------------------------------------------------------------------------------


async def test_only_the_named_parameters_tell_answers_apart(bench: Callable[..., Any]) -> None:
    """Others are passed on and cost no second call; those that count do, however they are spelt."""
    cache = bench(query=["page", "sort"])
    cache.answer = cache.says(PUBLIC)
    for target, calls in (
        ("/x?page=1&utm_source=a", 1),
        ("/x?utm_source=b&page=1", 1),
        ("/x?page=1", 1),
        ("/x?page=2", 2),
        ("/x?%70age=2", 3),
        ("/x?page=1&page=2", 4),
        ("/x", 5),
        ("/x?", 5),
        ("/x?utm_source=c", 5),
    ):
        await cache.get(target)
        assert len(cache.asked) == calls, target


async def test_without_names_the_query_counts_as_it_stands(bench: Callable[..., Any]) -> None:
    """Byte by byte: what it means is the upstream's to say."""
    cache = bench()
    cache.answer = cache.says(PUBLIC)
    for calls, target in enumerate(("/x?a=1&b=2", "/x?b=2&a=1", "/x", "/x?"), 1):
        await cache.get(target)
        assert len(cache.asked) == calls


PARTS = st.lists(st.tuples(st.sampled_from(["page", "p", "q", "ä", "page "]), st.text("ab%&=+", max_size=3)))


@given(PARTS, PARTS)
def test_keys_are_the_same_when_what_counts_is(
    one: list[tuple[str, str]], other: list[tuple[str, str]]
) -> None:
    """Two queries share a key if and only if their named parameters are the same, in the same order."""

    def key(parts: list[tuple[str, str]]) -> Any:
        words = [f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in parts]
        return primary_key(request(target="/x?" + "&".join(words)), frozenset({b"page", "ä".encode()}))

    def counted(parts: list[tuple[str, str]]) -> list[tuple[str, str]]:
        return [part for part in parts if part[0] not in {"p", "q"}]  # "page " is "page" to some

    assert (key(one) == key(other)) is (counted(one) == counted(other))


@pytest.mark.parametrize(
    "cloaked",
    [
        *(
            "q=1;my_page=2",
            "q;my_page=2",
            "MY_PAGE=2",
            "my.page=2",
            "my%2Epage=2",
            "%20my_page=2",
            "+my_page=2",
        ),
        *("my_page[]=2", "my_page%5B%5D=2", "my[page=2", "my%20page=2", "my_page%00=2", "my_page%09=2"),
    ],
)
def test_what_some_upstream_reads_is_not_hidden_from_the_key(cloaked: str) -> None:
    """Else one could have all others served the answer to a parameter that only the upstream sees."""

    def key(query: str) -> Any:
        return primary_key(request(target=f"/x?my_page=1&{query}"), frozenset({b"my_page"}))

    assert key("q=1") == key("") == key("wt.mc_id=2&_ga=3&fb-id=4")
    assert key(cloaked) != key("")
