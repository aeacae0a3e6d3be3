"""Pages that leave out what is off (`Vary: Tidegate-Degraded`): told apart while the upstream answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from gateway.errors import GatewayError, Overloaded, UpstreamError, UpstreamTimeout, UpstreamUnavailable
from gateway.exchange import Exchange, Reply
from tests.gateway.cache.bench import Bench, request, settle

PAGE = ("cache-control: public, max-age=10", "vary: tidegate-degraded")
OFF = "profile, recommendations"


def asking(off: str = "", **fields: str) -> Exchange:
    """A request that comes while these features are off."""
    exchange = request(**fields)
    exchange.degraded = off
    return exchange


def failing(error: GatewayError) -> Callable[[Exchange], Any]:
    """An upstream that can't answer."""

    async def fail(_: Exchange) -> Reply:
        raise error

    return fail


def keeping(*lines: str) -> Bench:
    """A cache before an upstream that makes such pages."""
    bench = Bench(stale_if_error=60)
    bench.answer = bench.says(*(lines or PAGE), body=b"kept")
    return bench


@pytest.mark.parametrize(("before", "now"), [("", OFF), (OFF, ""), ("profile", "recommendations")])
@pytest.mark.parametrize("after", [2, 12], ids=["fresh", "old"])
@pytest.mark.parametrize(
    "error", [UpstreamError("x"), UpstreamTimeout("x"), UpstreamUnavailable("open"), Overloaded("full")]
)
async def test_it_stands_in_whatever_is_off(error: GatewayError, after: int, before: str, now: str) -> None:
    """A ladder that climbs in an outage doesn't throw away what is kept for it."""
    b = keeping()
    await b(asking(before))
    b.clock.advance(after)
    b.answer = failing(error)
    exchange = asking(now)
    reply = await b(exchange)

    assert (reply.status, reply.body, exchange.outcome) == (200, b"kept", "cached")
    assert (b"age", b"%d" % after) in reply.headers


async def test_it_stands_in_for_a_server_error() -> None:
    """A 503 of the upstream's own stays inside, too."""
    b = keeping()
    await b(asking())
    b.answer = b.says(status=503)

    assert (await b(asking(OFF))).body == b"kept"


@pytest.mark.parametrize(("after", "given"), [(2, True), (69, True), (71, False)])
async def test_it_is_given_where_nobody_asks(after: int, given: bool) -> None:
    """As in an emergency, in which all features are off: as long as it may be old, and no longer."""
    b = keeping()
    await b(asking())
    b.clock.advance(after)

    assert (b.cache.last(asking(OFF)) is not None) is given


async def test_all_who_wait_get_it() -> None:
    """One asks and fails for all of them."""
    b = keeping()
    await b(asking())
    gate = asyncio.Event()

    async def late(_: Exchange) -> Reply:
        await gate.wait()
        raise UpstreamError("refused")

    b.answer = late
    tasks = [asyncio.create_task(b(asking(OFF))) for _ in range(20)]
    await settle()
    gate.set()

    assert {reply.body for reply in await asyncio.gather(*tasks)} == {b"kept"}
    assert len(b.asked) == 2


async def test_a_failed_upstream_rests() -> None:
    """It is not asked by each visitor whom the page of another time serves."""
    b = keeping()
    await b(asking())
    b.answer = failing(UpstreamTimeout("hangs"))
    for _ in range(10):
        assert (await b(asking(OFF))).body == b"kept"
    assert len(b.asked) == 2

    b.clock.advance(1.5)
    await b(asking(OFF))
    assert len(b.asked) == 3


async def test_a_switch_holds_while_the_upstream_answers() -> None:
    """Neither a fresh page nor one that is renewed in the background is another's."""
    b = keeping("cache-control: public, max-age=10, stale-while-revalidate=30", PAGE[1])
    await b(asking())
    b.answer = b.says(*PAGE, body=b"without")
    for after in (0, 12):
        b.clock.advance(after)
        assert (await b(asking(OFF))).body == b"without"


async def test_the_present_one_goes_before_a_newer_one() -> None:
    """What was made for what is off now is right; what wasn't is better than none."""
    b = keeping()
    b.answer = b.says(*PAGE, body=b"with")
    await b(asking())
    b.clock.advance(5)
    b.answer = b.says(*PAGE, body=b"without")
    await b(asking(OFF))
    b.clock.advance(30)
    b.answer = failing(UpstreamError("x"))

    assert (await b(asking())).body == b"with"
    assert (await b(asking(OFF))).body == b"without"
    assert (await b(asking("profile"))).body == b"without"  # the newest of the others
    b.clock.advance(37)  # the first may not be used any longer
    assert (await b(asking())).body == b"without"


async def test_what_was_said_since_is_not_contradicted() -> None:
    """A page that was taken down after a feature went off does not come back as it was before."""
    b = keeping()
    await b(asking())
    b.answer = b.says("cache-control: public, max-age=2, stale-if-error=0", PAGE[1], status=404, body=b"gone")
    await b(asking(OFF))
    b.clock.advance(5)
    b.answer = failing(UpstreamError("x"))

    for off in (OFF, "profile"):
        with pytest.raises(UpstreamError):
            await b(asking(off))


@pytest.mark.parametrize("lines", [["cache-control: no-store"], ["set-cookie: a=b", *PAGE]])
async def test_what_is_for_one_client_now_stands_in_for_nobody(lines: list[str]) -> None:
    """An answer that is not to be kept takes with it what it contradicts, whatever was off then."""
    b = keeping()
    for off in ("", "profile", OFF):
        await b(asking(off))
    b.clock.advance(12)
    b.answer = b.says(*lines)
    await b(asking(OFF))

    assert len(b.store) == 0
    assert b.cache.last(asking()) is None


async def test_what_is_said_to_one_who_is_known_takes_nothing_from_others() -> None:
    """Not to be kept because of their cookie only: what the anonymous were told still stands in for them."""
    b = keeping("cache-control: max-age=10", PAGE[1])
    await b(asking())
    await b(asking(OFF, cookie="session=1"))

    assert b.cache.last(asking(OFF)) is not None


async def test_what_is_forgotten_stands_in_for_nobody() -> None:
    """A POST to the target ends all of it."""
    b = keeping()
    await b(asking())
    await b(asking(OFF))
    post = asking(method="POST")
    post.outcome = "proxied"
    await b(post)

    assert b.cache.last(asking("profile")) is None
    assert len(b.store) == 0


async def test_another_field_never_makes_way() -> None:
    """Only this one is the gateway's own: a page in another language is none."""
    b = keeping(PAGE[0], "vary: accept-language, tidegate-degraded")
    await b(asking(accept_language="de"))

    assert b.cache.last(asking(OFF, accept_language="fr")) is None
    assert b.cache.last(asking(OFF)) is None
    assert b.cache.last(asking(OFF, accept_language="de")) is not None


async def test_what_is_not_public_stays_with_the_anonymous() -> None:
    """Whoever says who they are gets only what is public, as ever."""
    b = keeping("cache-control: max-age=10", PAGE[1])
    await b(asking())

    assert b.cache.last(asking(OFF)) is not None
    assert b.cache.last(asking(OFF, cookie="session=1")) is None


@pytest.mark.parametrize("said", ["must-revalidate", "proxy-revalidate", "s-maxage=10"])
async def test_an_upstream_can_forbid_it(said: str) -> None:
    """For a switch that must hold also while it can't answer. Fresh, it is given where it was made for."""
    b = keeping(f"cache-control: public, max-age=10, {said}", PAGE[1])
    await b(asking())

    assert b.cache.last(asking()) is not None
    assert b.cache.last(asking(OFF)) is None
