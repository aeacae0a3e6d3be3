"""The policy: whom it counts, what it tells the client, when it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Limit
from gateway.errors import Overloaded
from gateway.exchange import Exchange, Reply
from gateway.metrics import WorkerMetrics
from gateway.policies import rate_limit
from gateway.policies.limit_rule import Rule
from gateway.policies.rate_limit import RateLimit
from gateway.state.limits import LocalLimits, SharedLimits
from gateway.tally import LimitTally


def limit(rate: str, per: Any = "user", **more: Any) -> Limit:
    return Limit.model_validate({"rate": rate, "per": per} | more)


def request(user: str | None = "42", address: str = "192.0.2.1", **more: Any) -> Exchange:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    exchange = Exchange(
        method="GET",
        target=b"/",
        path="/",
        headers=more.get("headers", []),
        host=b"a",
        address=address,
        receive=receive,
        started=0.0,
    )
    exchange.user = user
    exchange.route = more.get("route", "/**")
    exchange.params = more.get("params", {})
    return exchange


async def upstream(_: Exchange) -> Reply:
    return Reply(200, [])


def policy(
    limits: dict[str, Limit],
    metrics: WorkerMetrics | None = None,
    store: Any = None,
    cost: int = 1,
    jitter: float = 0.0,
) -> RateLimit:
    built = rate_limit.build(
        limits,
        limits,
        store or LocalLimits(clock=lambda: 1000.25),
        (metrics or WorkerMetrics()).limit_tally,
        cost,
        lambda: jitter,
    )
    assert built is not None
    return built


def waits(refused: Reply) -> int:
    """Seconds that a refusal tells its client to wait."""
    assert refused.status == 429
    return int(dict(refused.headers)[b"retry-after"])


def checks(metrics: WorkerMetrics) -> dict[tuple[str, ...], int]:
    """Limit checks by limit and decision."""
    rows = metrics.snapshot()["counters"]
    return {tuple(labels): number for name, labels, number in rows if name == "tidegate_limit_checks_total"}


def rule_of(per: Any) -> Rule:
    made = limit("1/minute", per)
    return Rule("x", made, made.rate, 1, LimitTally())


# ---- what the client is told -----------------------------------------------------------------


async def test_the_fields_of_an_admission() -> None:
    """Every answer says what is left, one member for each limit."""
    exchange = request()
    await policy({"global": limit("100/second", "global"), "user": limit("20/second")})(exchange, upstream)
    assert exchange.reply_headers == [
        (b"ratelimit-policy", b'"global";q=100;w=1, "user";q=20;w=1'),
        (b"ratelimit", b'"global";r=99;t=1, "user";r=19;t=1'),
    ]


async def test_a_refusal() -> None:
    """429 names the limits that were violated, and when to come back; the fields stand there too."""
    limiter = policy({"user": limit("1/minute"), "checkout": limit("5/minute")})
    await limiter(request(), upstream)
    exchange = request()
    refused = await limiter(exchange, upstream)
    assert refused.status == 429
    assert exchange.outcome == "limited"
    assert exchange.reply_headers[1] == (b"ratelimit", b'"user";r=0;t=60, "checkout";r=4;t=60')
    assert (b"retry-after", b"60") in refused.headers
    assert json.loads(refused.body) == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Too many requests",
        "status": 429,
        "detail": "over the limit user (1/minute); try again in 60 s",
        "violated-policies": ["user"],
    }
    assert (await limiter(request(user="43"), upstream)).status == 200


async def test_a_refusal_over_several_limits() -> None:
    """It names all of them, and the longest wait is the one that counts."""
    limiter = policy({"user": limit("1/minute"), "hourly": limit("1/hour")})
    await limiter(request(), upstream)
    refused = await limiter(request(), upstream)
    assert refused.status == 429
    problem = json.loads(refused.body)
    assert problem["violated-policies"] == ["user", "hourly"]
    assert problem["detail"] == "over the limits user (1/minute), hourly (1/hour); try again in 3600 s"
    assert (b"retry-after", b"3600") in refused.headers


async def test_retry_after_is_never_zero() -> None:
    """Even if a token is due in a moment."""
    limiter = policy({"user": limit("100/second", algorithm="token-bucket")})
    for _ in range(100):
        await limiter(request(), upstream)
    assert waits(await limiter(request(), upstream)) == 1


async def test_only_what_is_known_is_told() -> None:
    """When a full limit was known, the others were not asked: their fields would be guesses."""

    class Known:
        def try_take(self, _: Any) -> Any:
            return [None, (False, 0, 20, 3_000_000, 2_500_000, False)]

    metrics, exchange = WorkerMetrics(), request()
    limits = {"global": limit("100/second", "global"), "user": limit("20/second")}
    assert waits(await policy(limits, metrics, Known())(exchange, upstream)) == 3
    assert exchange.reply_headers == [
        (b"ratelimit-policy", b'"global";q=100;w=1, "user";q=20;w=1'),
        (b"ratelimit", b'"user";r=0;t=3'),
    ]
    assert checks(metrics) == {("user", "denied"): 1}


@given(st.integers(1, 2 * 10**12), st.floats(0, 1, exclude_max=True))
async def test_retry_after_is_spread_and_never_too_early(wait: int, drawn: float) -> None:
    """A crowd that is refused at once does not come back at once, and nobody before there is room."""

    class Full:
        def try_take(self, _: Any) -> Any:
            return [(False, 0, 20, wait, wait, False)]

    limiter = policy({"user": limit("20/second")}, None, Full(), jitter=drawn)
    refused = await limiter(request(), upstream)
    seconds_left = wait / 1e6
    assert seconds_left <= waits(refused) <= seconds_left + min(60, max(1, seconds_left / 10)) + 1
    assert json.loads(refused.body)["detail"].endswith(f"try again in {waits(refused)} s")


# ---- modes and counts ------------------------------------------------------------------------


async def test_shadow_counts_and_never_refuses() -> None:
    """What a shadow limit would refuse is counted; the client sees nothing of it."""
    metrics = WorkerMetrics()
    limiter = policy({"new": limit("1/minute", mode="shadow"), "user": limit("3/minute")}, metrics)
    for _ in range(3):
        exchange = request()
        await limiter(exchange, upstream)
        assert b"new" not in exchange.reply_headers[0][1]
    assert (await limiter(request(), upstream)).status == 429
    assert checks(metrics) == {
        ("new", "allowed"): 1,
        ("new", "shadow"): 3,
        ("user", "allowed"): 3,
        ("user", "denied"): 1,
    }


async def test_near_a_limit() -> None:
    """Admissions that leave a fifth of the quota or less are counted, refusals are not."""
    metrics = WorkerMetrics()
    limiter = policy({"user": limit("10/minute")}, metrics)
    for _ in range(12):
        await limiter(request(), upstream)
    assert metrics.limit_tally("user").near == 3  # with 2, 1 and 0 left
    assert ["tidegate_limit_near_total", ["user"], 3] in metrics.snapshot()["counters"]


def test_what_is_off_is_not_there() -> None:
    """A route whose limits are all off has no such policy, and a limit named twice is one."""
    limits = {"a": limit("1/minute", mode="off"), "b": limit("1/minute")}
    store = LocalLimits()
    assert rate_limit.build(["a"], limits, store, WorkerMetrics().limit_tally) is None
    built = rate_limit.build(["b", "a", "b"], limits, store, WorkerMetrics().limit_tally)
    assert built is not None
    assert [limit.default.name for limit in built.limits] == ["b"]


async def test_without_the_store(short_tmp: Path) -> None:
    """`refuse` is a 503, since the client did nothing wrong; `local` goes on limiting."""
    store = SharedLimits(f"unix://{short_tmp}/nobody.sock", timeout=0.02, prefix="test", workers=1)
    metrics = WorkerMetrics()
    with pytest.raises(Overloaded) as refused:
        await policy({"a": limit("9/minute", on_store_failure="refuse")}, metrics, store)(request(), upstream)
    assert refused.value.retry_after == 1
    local = policy({"b": limit("1/minute")}, metrics, store)
    assert [(await local(request(), upstream)).status for _ in range(2)] == [200, 429]
    assert checks(metrics) == {("a", "fallback"): 1, ("b", "fallback"): 2}


# ---- whom a limit counts ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("per", "exchange", "key"),
    [
        ("global", request(), ""),
        ("user", request(), "u:42"),
        ("user", request(user=None), "a:192.0.2.1"),
        ("user", request(user=None, address="2001:db8:1:2:3::4"), "a:2001:db8:1:2::/64"),
        ("address", request(), "a:192.0.2.1"),
        ("address", request(address="2001:db8:1:2:3::4"), "a:2001:db8:1:2::/64"),
        ("address", request(address="::ffff:192.0.2.1"), "a:192.0.2.1"),
        ("address", request(address="unix"), "a:unix"),
        ("route", request(route="api"), "r:api"),
        ("header:X-Key", request(headers=[(b"x-key", b"abc")]), "h:abc"),
        ("header:X-Key", request(), "h"),
        ("param:sku", request(params={"sku": "steam-50"}), "p:steam-50"),
        ("param:sku", request(), "p"),
        (("param:sku", "user"), request(params={"sku": "steam-50"}), "p:steam-50|u:42"),
        (("global", "user"), request(), "u:42"),
    ],
    ids=lambda value: None if isinstance(value, Exchange) else str(value),
)
def test_keys(per: Any, exchange: Exchange, key: str) -> None:
    """One key for each of those who are counted apart."""
    assert rule_of(per).key(exchange) == key


values = st.text(max_size=300)


@given(values, values, values, values)
def test_keys_are_bounded_and_unambiguous(a: str, b: str, c: str, d: str) -> None:
    """Whatever stands in a parameter, keys are short ASCII, and differ when the values do."""
    rule = rule_of(("param:a", "param:b"))
    one = rule.key(request(params={"a": a, "b": b}))
    other = rule.key(request(params={"a": c, "b": d}))
    assert one.isascii()
    assert len(one) < 160
    assert (one == other) == ((a, b) == (c, d))


def test_a_users_name_is_no_address() -> None:
    """A user who is called like an address is not counted with it."""
    rule = rule_of("user")
    assert rule.key(request(user="192.0.2.1")) != rule.key(request(user=None))
