"""Rates by tier, costs by route, and lists of those who are not counted or not let in."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Limit
from gateway.errors import Forbidden
from gateway.exchange import Exchange, Reply
from gateway.metrics import WorkerMetrics
from gateway.policies import rate_limit
from gateway.policies.limit_access import Access
from gateway.policies.rate_limit import RateLimit
from gateway.state.limits import LocalLimits

RATES = {"default": "2/minute", "vip": "4/minute"}


def limit(rate: Any, **more: Any) -> Limit:
    return Limit.model_validate({"rate": rate, "per": "user"} | more)


def request(user: str | None = "42", tier: str | None = None, address: str = "192.0.2.1") -> Exchange:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    exchange = Exchange(
        method="GET",
        target=b"/",
        path="/",
        headers=[],
        host=b"a",
        address=address,
        receive=receive,
        started=0.0,
    )
    exchange.user, exchange.tier = user, tier
    return exchange


async def upstream(_: Exchange) -> Reply:
    return Reply(200, [])


def policy(metrics: WorkerMetrics | None = None, cost: int = 1, **limits: Limit) -> RateLimit:
    store = LocalLimits(clock=lambda: 1000.25)
    tally = (metrics or WorkerMetrics()).limit_tally
    built = rate_limit.build(limits, limits, store, tally, cost, lambda: 0.0)
    assert built is not None
    return built


async def admitted(limiter: RateLimit, tries: int = 10, **who: Any) -> int:
    """How many of so many requests pass."""
    passed = 0
    for _ in range(tries):
        passed += (await limiter(request(**who), upstream)).status == 200
    return passed


# ---- tiers -----------------------------------------------------------------------------------


async def test_each_tier_has_its_rate() -> None:
    """A tier that the limit names has its own rate; the others, and the anonymous, the default."""
    limiter = policy(user=limit(RATES))
    assert await admitted(limiter, user="a", tier="vip") == 4
    assert await admitted(limiter, user="b", tier="gold") == 2
    assert await admitted(limiter, user="c") == 2
    assert await admitted(limiter, user=None) == 2


async def test_the_client_is_told_its_own_rate() -> None:
    """The fields and the refusal speak of the tier's rate."""
    limiter = policy(user=limit(RATES), other=limit("9/minute"))
    exchange = request(tier="vip")
    await limiter(exchange, upstream)
    assert exchange.reply_headers == [
        (b"ratelimit-policy", b'"user";q=4;w=60, "other";q=9;w=60'),
        (b"ratelimit", b'"user";r=3;t=60, "other";r=8;t=60'),
    ]
    await admitted(limiter, tier="vip")
    refused = await limiter(request(tier="vip"), upstream)
    assert refused.status == 429
    assert b"4/minute" in refused.body


async def test_a_change_of_tier_keeps_the_count() -> None:
    """Who was promoted has used what was used; who was demoted has too."""
    limiter = policy(user=limit(RATES))
    assert await admitted(limiter) == 2
    assert await admitted(limiter, tier="vip") == 2
    assert await admitted(limiter) == 0


# ---- cost ------------------------------------------------------------------------------------


async def test_a_dear_route_takes_more_of_the_same_limit() -> None:
    """A request that costs three leaves seven of ten; when fewer are left, a cheap one still passes."""
    store = LocalLimits(clock=lambda: 1000.25)
    limits = {"user": limit("10/minute")}
    cheap, dear = (
        rate_limit.build(limits, limits, store, WorkerMetrics().limit_tally, cost, lambda: 0.0)
        for cost in (1, 3)
    )
    assert cheap is not None
    assert dear is not None
    exchange = request()
    await dear(exchange, upstream)
    assert exchange.reply_headers[1] == (b"ratelimit", b'"user";r=7;t=60')
    assert await admitted(dear) == 2
    assert await admitted(cheap) == 1


async def test_a_rate_below_the_cost_admits_one_at_a_time() -> None:
    """An operator who lowers a rate below a route's cost does not close the route for good."""
    assert await admitted(policy(cost=5, user=limit("2/minute"))) == 1


# ---- lists -----------------------------------------------------------------------------------


async def test_who_is_allowed_is_not_counted() -> None:
    """No limit and no fields for them; other limits of the route go on counting them."""
    limiter = policy(user=limit("1/minute", allow=["user:7", "10.0.0.0/8"]), other=limit("3/minute"))
    exchange = request(user="7")
    await limiter(exchange, upstream)
    assert exchange.reply_headers == [
        (b"ratelimit-policy", b'"other";q=3;w=60'),
        (b"ratelimit", b'"other";r=2;t=60'),
    ]
    assert await admitted(limiter, user="7") == 2
    assert await admitted(limiter, user=None, address="10.1.2.3") == 3
    assert await admitted(limiter, user=None, address="11.1.2.3") == 1


async def test_who_is_allowed_by_every_limit_just_passes() -> None:
    """With nothing to check there is nobody to ask and nothing to tell."""
    limits = {"user": limit("1/minute", allow=["user:7"])}
    nobody: Any = None  # a store that can't be asked
    limiter = rate_limit.build(limits, limits, nobody, WorkerMetrics().limit_tally)
    assert limiter is not None
    exchange = request(user="7")
    assert (await limiter(exchange, upstream)).status == 200
    assert exchange.reply_headers == []


async def test_who_is_denied_gets_403_and_charges_nothing() -> None:
    """By user and by address, also when the other is allowed; counted as denied."""
    metrics = WorkerMetrics()
    limiter = policy(
        metrics,
        other=limit("1/minute", per="global"),
        user=limit("9/minute", deny=["user:7", "2001:db8::/32"], allow=["192.0.2.1", "user:8"]),
    )
    for who in ({"user": "7"}, {"user": "8", "address": "2001:db8::5"}):
        exchange = request(**who)
        with pytest.raises(Forbidden) as refused:
            await limiter(exchange, upstream)
        assert refused.value.status == 403
    assert metrics.limit_tally("user").denied == 2
    assert await admitted(limiter, user="8") == 1  # the one of `other` is still there


async def test_a_shadow_limit_only_reports_whom_it_would_deny() -> None:
    """A deny list can be tried out too."""
    metrics = WorkerMetrics()
    limiter = policy(metrics, new=limit("9/minute", deny=["user:7"], mode="shadow"), user=limit("3/minute"))
    assert await admitted(limiter, user="7") == 3
    assert metrics.limit_tally("new").shadow == 10


def test_a_peer_without_address_is_on_no_list() -> None:
    """A unix socket's peers, and whatever else is no address, stand like everybody."""
    everywhere = Access(["0.0.0.0/0", "::/0"], [])
    assert everywhere.standing(request(address="unix")) is None
    assert everywhere.standing(request(address="192.0.2.1")) == "allow"
    assert everywhere.standing(request(address="fe80::1%eth0")) == "allow"


@given(st.lists(st.ip_addresses().map(str), max_size=5), st.lists(st.ip_addresses().map(str), max_size=5))
def test_lists_hold_exactly_whom_they_name(allow: list[str], deny: list[str]) -> None:
    """Each address of a list, and none beside; also when asked again."""
    access = Access(allow, deny)
    for address in [*allow, *deny, "192.0.2.99"] * 2:
        expected = "deny" if address in deny else "allow" if address in allow else None
        assert access.standing(request(address=address)) == expected


def test_many_addresses_are_not_all_remembered() -> None:
    """What was looked up is kept in bounded memory."""
    access = Access(["10.0.0.0/8"], [])
    for n in range(20_000):
        access.standing(request(address=f"10.0.{n >> 8}.{n & 255}"))
    assert len(access._addresses) <= 4096
