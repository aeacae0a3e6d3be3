"""Old answers: renewed in the background, standing in for failures, asked about with validators."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import UpstreamError, UpstreamTimeout, UpstreamUnavailable
from gateway.exchange import Exchange, Reply
from tests.gateway.cache.bench import settle


def headers(reply: Reply) -> dict[bytes, bytes]:
    return dict(reply.headers)


async def fail(_: Exchange) -> Reply:
    """An upstream that refuses."""
    raise UpstreamError("refused")


# ---- stale-while-revalidate ------------------------------------------------------------------


async def test_a_stale_answer_is_served_while_it_is_renewed_once(bench: Callable[..., Any]) -> None:
    """stale-while-revalidate: nobody waits, one asks, and the next gets the new answer."""
    b = bench()
    b.answer = b.says("cache-control: max-age=10, stale-while-revalidate=5")
    await b.get()
    b.clock.advance(12)
    replies = [await b.get() for _ in range(20)]
    await settle()

    assert {reply.body for reply in replies} == {b"1"}
    assert {headers(reply)[b"cache-status"] for reply in replies} == {b"tidegate; hit; ttl=-2"}
    assert len(b.asked) == 2
    assert (await b.get()).body == b"2"
    assert b.counted == ["miss", *["stale"] * 20, "hit"]


async def test_after_its_window_a_stale_answer_is_not_served(bench: Callable[..., Any]) -> None:
    """stale-while-revalidate-window: then whoever comes waits for a new one."""
    b = bench()
    b.answer = b.says("cache-control: max-age=10, stale-while-revalidate=5")
    await b.get()
    b.clock.advance(15.5)

    assert (await b.get()).body == b"2"


async def test_renewals_are_bounded(bench: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """When too many are on their way, one who comes asks for itself."""
    monkeypatch.setattr("gateway.policies.cache_store.MAX_BACKGROUND", 1)
    b = bench()
    b.answer = b.says("cache-control: max-age=10, stale-while-revalidate=5")
    await b.get("/a")
    await b.get("/b")
    b.clock.advance(12)

    assert (await b.get("/a")).body == b"1"
    assert (await b.get("/b")).body != b"2"
    await b.store.aclose()
    assert not b.store.flights


async def test_a_renewal_that_fails_rests(bench: Callable[..., Any]) -> None:
    """A sick upstream is not asked by every visitor of a stale page."""
    b = bench(stale_if_error=60)
    b.answer = b.says("cache-control: max-age=10, stale-while-revalidate=30")
    await b.get()
    b.clock.advance(12)
    b.answer = fail
    for _ in range(10):
        assert (await b.get()).body == b"1"
        await settle()
    assert len(b.asked) == 2

    b.clock.advance(1.5)
    await b.get()
    await settle()
    assert len(b.asked) == 3


async def test_a_renewal_outlives_its_client(bench: Callable[..., Any]) -> None:
    """It is an exchange of its own, with neither the client's conditions nor its end."""
    b = bench()
    b.answer = b.says("cache-control: max-age=10, stale-while-revalidate=5", 'etag: "1"')
    await b.get()
    b.clock.advance(12)
    task = asyncio.create_task(b.get(if_none_match='"mine"', accept="a"))
    await asyncio.sleep(0)
    task.cancel()
    await settle()

    assert b.asked[1] == [(b"accept", b"a"), (b"if-none-match", b'"1"')]
    assert not b.store.flights


# ---- stale-if-error --------------------------------------------------------------------------


@pytest.mark.parametrize("error", [UpstreamError("x"), UpstreamTimeout("x"), UpstreamUnavailable("open")])
async def test_a_stale_answer_stands_in_for_a_failure(error: Exception, bench: Callable[..., Any]) -> None:
    """stale-sie-close: also while the breaker refuses; after the window the failure is told."""
    b = bench(stale_if_error=20)
    await b.get()
    b.clock.advance(12)

    async def broken(_: Exchange) -> Reply:
        raise error

    b.answer = broken
    reply = await b.get()
    assert (reply.status, reply.body) == (200, b"1")
    assert headers(reply)[b"age"] == b"12"
    b.clock.advance(20)
    with pytest.raises(type(error)):
        await b.get()


@pytest.mark.parametrize("status", [500, 502, 503, 504])
async def test_a_stale_answer_stands_in_for_a_server_error(status: int, bench: Callable[..., Any]) -> None:
    """stale-sie-503: the error stays inside; other statuses come through."""
    b = bench(stale_if_error=20)
    await b.get()
    b.clock.advance(12)
    b.answer = b.says(status=status)
    assert (await b.get()).status == 200

    b.answer = b.says(status=403)
    b.clock.advance(2)
    assert (await b.get()).status == 403


async def test_a_stale_answer_goes_before_a_fallback(
    bench: Callable[..., Any], request_for: Callable[..., Exchange]
) -> None:
    """What the breaker says of its fallback is not told when the fallback is not sent."""
    b = bench(stale_if_error=20)
    await b.get()
    b.clock.advance(12)

    async def fallback(exchange: Exchange) -> Reply:
        exchange.outcome = "broken"
        exchange.reply_headers.append((b"tidegate-degraded", b"x"))
        return Reply(200, [], b"fallback")

    b.answer = fallback
    exchange = request_for()
    exchange.reply_headers.append((b"ratelimit", b"1"))
    reply = await b(exchange)

    assert reply.body == b"1"
    assert exchange.outcome == "cached"
    assert exchange.reply_headers == [(b"ratelimit", b"1")]


async def test_all_who_wait_get_the_stale_answer(bench: Callable[..., Any]) -> None:
    """One call fails; everybody is served."""
    b = bench(stale_if_error=20)
    await b.get()
    b.clock.advance(12)
    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def late(exchange: Exchange) -> Reply:
        await gate
        return await fail(exchange)

    b.answer = late
    tasks = [asyncio.create_task(b.get()) for _ in range(50)]
    await settle()
    gate.set_result(None)

    assert {reply.body for reply in await asyncio.gather(*tasks)} == {b"1"}
    assert len(b.asked) == 2


async def test_must_revalidate_fails_rather_than_lies(bench: Callable[..., Any]) -> None:
    """stale-close-must-revalidate: no stand-in where the answer forbids it."""
    b = bench(stale_if_error=20)
    b.answer = b.says("cache-control: max-age=10, must-revalidate")
    await b.get()
    b.clock.advance(12)
    b.answer = fail

    with pytest.raises(UpstreamError):
        await b.get()


# ---- validators ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ('"a"', 304),
        ('W/"a"', 304),
        ('"b", "a"', 304),
        ('"b,", W/"a"', 304),
        ("*", 304),
        ('"b"', 200),
        ("a", 200),
    ],
)
async def test_a_client_that_has_it_is_told_so(given: str, status: int, bench: Callable[..., Any]) -> None:
    """304 from the cache, compared weakly, also to the one whose miss filled it."""
    b = bench()
    b.answer = b.says("cache-control: max-age=10", 'etag: "a"', "content-type: text/plain", "x-other: 1")
    first = await b.get(if_none_match=given)
    second = await b.get(if_none_match=given)

    assert (first.status, second.status) == (status, status)
    assert len(b.asked) == 1
    assert all(name != b"if-none-match" for name, _ in b.asked[0])  # the whole is asked for, for all
    if status == 304:
        assert second.body == b""
        names = [name for name, _ in second.headers]
        assert sorted(names) == [b"age", b"cache-control", b"cache-status", b"date", b"etag"]


async def test_a_date_is_a_weaker_condition(bench: Callable[..., Any]) -> None:
    """If-Modified-Since counts, unless If-None-Match is there too."""
    b, date = bench(), "Fri, 01 Jan 2021 00:00:00 GMT"
    b.answer = b.says("cache-control: max-age=10", f"last-modified: {date}", 'etag: "a"')

    assert (await b.get(if_modified_since=date)).status == 304
    assert (await b.get(if_modified_since="Thu, 31 Dec 2020 00:00:00 GMT")).status == 200
    assert (await b.get(if_modified_since="rubbish")).status == 200
    assert (await b.get(if_modified_since=date, if_none_match='"b"')).status == 200


async def test_a_stale_answer_is_asked_about(bench: Callable[..., Any]) -> None:
    """cc-resp-must-revalidate-stale: validators go up, a 304 makes it fresh again and renews its fields."""
    b = bench()
    date = "Fri, 01 Jan 2021 00:00:00 GMT"
    b.answer = b.says(
        "cache-control: max-age=10, must-revalidate", 'etag: "a"', f"last-modified: {date}", "x: 1"
    )
    await b.get()
    b.clock.advance(12)
    b.answer = b.says("cache-control: max-age=20", 'etag: "a"', "x: 2", "content-length: 99", status=304)
    reply = await b.get()
    assert b.asked[1] == [(b"if-none-match", b'"a"'), (b"if-modified-since", date.encode())]
    assert (reply.status, reply.body) == (200, b"1")

    b.clock.advance(19)
    again = await b.get()
    assert len(b.asked) == 2
    assert headers(again)[b"x"] == b"2"
    assert headers(again)[b"content-length"] == b"1"
    assert headers(again)[b"age"] == b"19"
    assert b.counted == ["miss", "revalidated", "hit"]


async def test_a_304_without_a_date_is_new(bench: Callable[..., Any]) -> None:
    """It does not inherit the age of what it renews."""
    b = bench()
    b.answer = b.says("cache-control: max-age=10", 'etag: "a"')
    await b.get()
    b.clock.advance(12)

    async def undated(_: Exchange) -> Reply:
        return Reply(304, [])

    b.answer = undated
    await b.get()
    b.clock.advance(9)
    await b.get()

    assert len(b.asked) == 2


async def test_a_304_about_something_else_is_not_believed(bench: Callable[..., Any]) -> None:
    """Another entity tag: the whole is asked for."""
    b = bench()
    b.answer = b.says("cache-control: max-age=10", 'etag: "a"')
    await b.get()
    b.clock.advance(12)
    whole = b.says("cache-control: max-age=10", 'etag: "b"', body=b"new")

    async def confused(exchange: Exchange) -> Reply:
        asks = any(name == b"if-none-match" for name, _ in exchange.headers)
        reply: Reply = await (b.says('etag: "b"', status=304) if asks else whole)(exchange)
        return reply

    b.answer = confused
    assert (await b.get()).body == b"new"
    assert (await b.get()).body == b"new"
    assert len(b.asked) == 3


@pytest.mark.parametrize("line", ["set-cookie: a=b", "cache-control: private"])
async def test_a_304_for_one_client_ends_the_sharing(line: str, bench: Callable[..., Any]) -> None:
    """Its client gets the answer, the cookie with it; the next one asks anew."""
    b = bench()
    b.answer = b.says("cache-control: max-age=10", 'etag: "a"')
    await b.get()
    b.clock.advance(12)
    b.answer = b.says(line, status=304)
    reply = await b.get()
    assert (reply.status, reply.body) == (200, b"1")
    assert (b"set-cookie" in headers(reply)) is line.startswith("set-cookie")

    b.answer = b.says("cache-control: no-store")
    reply = await b.get()
    assert reply.body == b"3"
    assert b"set-cookie" not in headers(reply)


async def test_a_newer_answer_not_to_be_kept_ends_the_older(bench: Callable[..., Any]) -> None:
    """cc-resp-no-store-old-new: the old one does not come back when the upstream then fails."""
    b = bench(stale_if_error=60)
    await b.get()
    b.clock.advance(12)
    b.answer = b.says("cache-control: no-store")
    await b.get()
    b.answer = fail

    with pytest.raises(UpstreamError):
        await b.get()


async def test_head_is_answered_from_get(
    bench: Callable[..., Any], request_for: Callable[..., Exchange]
) -> None:
    """The header as for GET, length included, and no body; a HEAD alone fills nothing."""
    b = bench()
    await b(request_for("HEAD"))
    await b.get()
    reply = await b(request_for("HEAD"))

    assert len(b.asked) == 2
    assert reply.body == b""
    assert headers(reply)[b"content-length"] == b"1"
