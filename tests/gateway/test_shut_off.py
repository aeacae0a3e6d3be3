"""Backend-driven shut-off: said once by the upstream, answered by every worker, for a while."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.exchange import Exchange, Reply
from gateway.policies.shut_off import Shut
from gateway.policies.shut_offs import ASKING, LONGEST, MAX_BYTES, MAX_HELD, ShutOff, ShutOffs
from gateway.state.known_keys import KnownKeys
from gateway.state.known_shared import SharedKeys
from tests.clock import Clock

KNOWN = SharedKeys(KnownKeys(), None)
ROUTES = [
    {"match": "/api/products/{sku}/orders", "methods": ["POST"], "upstream": "shop"},
    {"match": "/api/orders", "methods": ["POST"], "upstream": "shop", "shut": {"sku": "body"}},
    {"match": "/**", "upstream": "shop"},
]


def sold_out(line: str, status: str = "410 Gone", body: bytes = b'{"title": "Sold out"}') -> Any:
    async def answer(_: Any, writer: asyncio.StreamWriter, __: Any) -> None:
        lines = (
            f"HTTP/1.1 {status}",
            line,
            "Set-Cookie: a=b",
            "X-Kind: sold",
            f"Content-Length: {len(body)}",
        )
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)

    return answer


# ---- over sockets ----------------------------------------------------------------------------


async def test_said_once_every_worker_answers(start_gateway: Any, shop: Any) -> None:
    """After one Tidegate-Shut at most workers × 2 buyers reach the shop, whatever worker takes them."""
    gateway = await start_gateway("--workers", "2", routes=ROUTES)
    shop.scripts["/api/products/steam-50/orders"] = sold_out("Tidegate-Shut: sku=steam-50; for=60")
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        first = await client.post("/api/products/steam-50/orders", json={})
    assert (first.status_code, first.json()) == (410, {"title": "Sold out"})
    assert "tidegate-shut" not in first.headers
    assert first.headers["set-cookie"] == "a=b"

    async def buy(count: int) -> list[httpx.Response]:
        async with httpx.AsyncClient(base_url=gateway.url) as client:
            return [await client.post("/api/products/steam-50/orders", json={}) for _ in range(count)]

    replies = [reply for some in await asyncio.gather(*(buy(50) for _ in range(20))) for reply in some]
    assert len(shop.seen) <= 4
    assert {(reply.status_code, reply.content) for reply in replies} == {(410, b'{"title": "Sold out"}')}
    held = replies[-1]
    assert held.headers["x-kind"] == "sold"
    assert "set-cookie" not in held.headers
    assert "tidegate-shut" not in held.headers
    assert await gateway.metric("tidegate_requests_total", outcome="cached") >= 996

    seen = len(shop.seen)
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        assert (await client.post("/api/products/other/orders", json={})).status_code == 200
        assert (await client.get("/api/products/steam-50")).status_code == 200
    assert len(shop.seen) == seen + 2


async def test_a_parameter_may_stand_in_the_body(start_gateway: Any, shop: Any) -> None:
    """Where the route says so; other bodies, large and malformed ones go on to the shop untouched."""
    gateway = await start_gateway("--workers", "1", routes=ROUTES)
    shop.scripts["/api/orders"] = sold_out("Tidegate-Shut: sku=steam-50; for=30")
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        await client.post("/api/orders", json={"sku": "steam-50"})
        again = await client.post("/api/orders", json={"sku": "steam-50", "quantity": 1})
        assert again.status_code == 410
        assert len(shop.seen) == 1

        del shop.scripts["/api/orders"]
        bodies = [
            b'{"sku": "other"}',
            b"not json",
            b"[1]",
            b'{"sku": 5}',
            b'{"sku": "steam-50"}' + b" " * 5000,
        ]
        for body in bodies:
            assert (await client.post("/api/orders", content=body)).status_code == 200
    assert [seen.body for seen in shop.seen[1:]] == bodies


async def test_only_the_upstream_can_say_so(start_gateway: Any, shop: Any) -> None:
    """A client's field does nothing, and nonsense of the upstream's does nothing but vanish."""
    gateway = await start_gateway("--workers", "1", routes=ROUTES)
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        for line in (
            "sku=a",
            "for=5",
            "sku=a; for=-1",
            "sku=a; for=0",
            "sku=a, sku=b; for=5",
            "sku=a; for=5; x=y",
        ):
            shop.scripts["/api/products/a/orders"] = sold_out(f"Tidegate-Shut: {line}")
            reply = await client.post(
                "/api/products/a/orders", json={}, headers={"tidegate-shut": "sku=a; for=9"}
            )
            assert "tidegate-shut" not in reply.headers
    assert len(shop.seen) == 6
    assert (await gateway.admin("GET", "/api/shut-offs")).json() == {"shut_offs": []}


async def test_operators_see_and_clear_them(start_gateway: Any, shop: Any, until: Any) -> None:
    """Listed with what is left, cleared one by one or all, in every worker; unknown ids are 404."""
    gateway = await start_gateway("--workers", "2", routes=ROUTES)
    for sku in ("a", "b"):
        shop.scripts[f"/api/products/{sku}/orders"] = sold_out(f'Tidegate-Shut: sku="{sku}"; for=500')
        async with httpx.AsyncClient(base_url=gateway.url) as client:
            await client.post(f"/api/products/{sku}/orders", json={})

    async def listed() -> list[dict[str, Any]]:
        return list((await gateway.admin("GET", "/api/shut-offs")).json()["shut_offs"])

    await until(lambda: _long(listed(), 2))
    one, two = await listed()
    assert (one["route"], one["parameter"], one["value"]) == ("/api/products/{sku}/orders", "sku", "a")
    assert one["status"] == 410
    assert 0 < one["seconds_left"] <= LONGEST
    assert await gateway.metric("tidegate_shut_offs") in {0, 1, 2}

    unknown = await gateway.admin("DELETE", "/api/shut-offs/nothing")
    assert unknown.status_code == 404
    assert unknown.json()["detail"].endswith(f"; there are: {two['id']} (sku=b), {one['id']} (sku=a)")
    assert (await gateway.admin("DELETE", "/api/shut-offs", token="wrong")).status_code == 401
    assert (await gateway.admin("DELETE", f"/api/shut-offs/{two['id']}")).json() == {"cleared": 1}
    assert [held["value"] for held in await listed()] == ["a"]
    assert (await gateway.admin("DELETE", "/api/shut-offs")).json() == {"cleared": 1}
    assert await listed() == []
    assert (await gateway.admin("DELETE", f"/api/shut-offs/{one['id']}")).json()["detail"].endswith(": none")

    shop.scripts.clear()

    async def all_pass() -> bool:
        async with httpx.AsyncClient(base_url=gateway.url) as client:
            return (await client.post("/api/products/a/orders", json={})).status_code == 200

    await until(all_pass)


async def _long(listed: Any, count: int) -> bool:
    return len(await listed) == count


async def test_a_new_worker_learns_what_is_shut(start_gateway: Any, shop: Any, until: Any) -> None:
    """A worker that died is replaced by one that answers like the others."""
    gateway = await start_gateway("--workers", "1", routes=ROUTES)
    shop.scripts["/api/products/a/orders"] = sold_out("Tidegate-Shut: sku=a; for=60")
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        await client.post("/api/products/a/orders", json={})

    async def listed() -> bool:
        return bool((await gateway.admin("GET", "/api/shut-offs")).json()["shut_offs"])

    await until(listed)
    (worker,) = gateway.workers()
    worker.kill()

    async def back() -> bool:
        ready = (await gateway.admin("GET", "/readyz", token=None)).status_code == 200
        return ready and worker.pid not in {p.pid for p in gateway.workers()}

    await until(back)
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        reply = await client.post("/api/products/a/orders", json={})
    assert reply.status_code == 410
    assert len(shop.seen) == 1


# ---- by itself -------------------------------------------------------------------------------


async def nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}


def request(sku: str = "a", method: str = "POST") -> Exchange:
    exchange = Exchange(
        method=method, target=b"/p", path="/p", headers=[], host=b"h", address="192.0.2.1",
        receive=nothing, started=0,
    )  # fmt: skip
    exchange.route, exchange.params = "/p/{sku}", {"sku": sku}
    return exchange


def shut(value: str = "a", until: float = 5.0) -> ShutOff:
    return ShutOff(("/p/{sku}", "sku", value), until, 410, [(b"x", b"y")], b"gone")


async def test_it_ends_by_itself() -> None:
    """To the moment; the next answer comes from the upstream again, and may shut anew."""
    clock = Clock(0.0)
    told: list[ShutOff] = []
    policy = Shut(ShutOffs(told.append, clock=clock), KNOWN)
    asked = 0

    async def upstream(_: Exchange) -> Reply:
        nonlocal asked
        asked += 1
        return Reply(410, [(b"tidegate-shut", b"sku=a; for=5")], b"gone")

    for moment, calls in ((0.0, 1), (4.9, 1), (5.0, 2), (9.9, 2), (10.0, 3)):
        clock.now = moment
        assert (await policy(request(), upstream)).status == 410
        assert asked == calls
    assert len(told) == 3


async def test_one_asks_anew_for_a_crowd() -> None:
    """When its time is over a hundred come at once: one asks, the others get what held a moment ago.

    So each time; once it is answered otherwise, all pass.
    """
    clock = Clock(0.0)
    policy = Shut(ShutOffs(clock=clock), KNOWN)
    asked = 0
    answer = Reply(410, [(b"tidegate-shut", b"sku=a; for=5")], b"gone")

    async def upstream(_: Exchange) -> Reply:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return Reply(answer.status, list(answer.headers), answer.body)

    await policy(request(), upstream)
    for moment in (5.0, 10.0, 15.0):
        clock.now = moment
        crowd = await asyncio.gather(*(policy(request(), upstream) for _ in range(100)))
        assert {reply.status for reply in crowd} == {410}
    assert asked == 4

    answer, clock.now = Reply(200, [], b"back"), 20.0
    first = await asyncio.gather(*(policy(request(), upstream) for _ in range(100)))
    assert [reply.status for reply in first].count(200) == 1
    assert {(await policy(request(), upstream)).status for _ in range(3)} == {200}


async def test_one_who_asks_and_gets_nothing_holds_nobody_up() -> None:
    """The client who asked for all leaves, or the upstream hangs: the next one asks."""
    clock = Clock(0.0)
    held = ShutOffs(clock=clock)
    policy = Shut(held, KNOWN)
    stuck = asyncio.Event()

    async def hanging(_: Exchange) -> Reply:
        await stuck.wait()
        return Reply(200, [])

    async def well(_: Exchange) -> Reply:
        return Reply(200, [])

    held.add(shut())
    clock.now = 5.0
    asking = asyncio.create_task(policy(request(), hanging))
    await asyncio.sleep(0)
    assert (await policy(request(), well)).status == 410
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    assert (await policy(request(), well)).status == 200

    held.add(shut(until=10.0))
    clock.now = 10.0
    asking = asyncio.create_task(policy(request(), hanging))
    await asyncio.sleep(0)
    clock.now = 10.0 + ASKING
    assert (await policy(request(), well)).status == 200
    stuck.set()
    await asking


async def test_those_under_way_tell_nobody_again() -> None:
    """A burst of the same answer is news once."""
    told: list[ShutOff] = []
    policy = Shut(ShutOffs(told.append, clock=lambda: 0.0), KNOWN)

    async def upstream(_: Exchange) -> Reply:
        await asyncio.sleep(0)
        return Reply(410, [(b"tidegate-shut", b"sku=a; for=5")], b"gone")

    await asyncio.gather(*(policy(request(), upstream) for _ in range(100)))
    assert len(told) == 1


@pytest.mark.parametrize(("method", "status"), [("HEAD", 410), ("GET", 304), ("GET", 206)])
async def test_what_is_no_whole_answer_is_not_repeated(method: str, status: int) -> None:
    """Answers to HEAD, conditions and ranges shut nothing; HEAD gets a held one without its body."""
    held = ShutOffs(clock=lambda: 0.0)
    policy = Shut(held, KNOWN)

    async def upstream(_: Exchange) -> Reply:
        return Reply(status, [(b"tidegate-shut", b"sku=a; for=5")])

    assert (await policy(request(method=method), upstream)).headers == []
    assert len(held) == 0
    held.add(shut())
    assert (await policy(request(method="HEAD"), upstream)).body == b""


async def test_a_parameter_that_the_route_lacks_shuts_nothing() -> None:
    """Neither in the path nor named under `shut:`: the field is taken off, and nothing is held or listed."""
    held = ShutOffs(clock=lambda: 0.0)

    async def upstream(_: Exchange) -> Reply:
        return Reply(410, [(b"tidegate-shut", b"colour=red; for=5")], b"gone")

    assert (await Shut(held, KNOWN)(request(), upstream)).headers == []
    assert len(held) == 0


async def test_an_answer_too_large_is_not_held() -> None:
    """It passes whole, without the field."""
    held = ShutOffs(clock=lambda: 0.0)

    async def upstream(_: Exchange) -> Reply:
        return Reply(200, [(b"tidegate-shut", b"sku=a; for=5")], b"x" * (65 << 10))

    reply = await Shut(held, KNOWN)(request(), upstream)
    assert (len(reply.body), reply.headers, len(held)) == (65 << 10, [], 0)


def test_there_are_never_too_many() -> None:
    """A backend that shuts everything off costs a bounded memory; the last ten thousand hold."""
    held = ShutOffs(clock=lambda: 0.0)
    for number in range(MAX_HELD + 10):
        held.add(shut(str(number)))

    assert len(held) == MAX_HELD
    assert held.get(shut("0").key) is None
    assert held.get(shut(str(MAX_HELD)).key) is not None
    assert held.clear() == MAX_HELD
    assert held.parameters("/p/{sku}") is None


def test_their_answers_take_bounded_memory() -> None:
    """Large answers push out others before small ones would."""
    held = ShutOffs(clock=lambda: 0.0)
    for number in range(1000):
        held.add(ShutOff(("/p/{sku}", "sku", str(number)), 5.0, 410, [], b"x" * (64 << 10)))

    assert held.bytes <= MAX_BYTES
    assert len(held) == MAX_BYTES >> 16
    held.clear()
    assert held.bytes == 0


def test_the_time_on_the_line_is_bounded() -> None:
    """What a worker hears is no longer than what it would believe the upstream."""
    said = shut(until=1e9).to_json(0.0)

    assert ShutOff.from_json(said, 7.0).until == 7.0 + LONGEST


@given(
    value=st.text(min_size=1, max_size=20),
    body=st.binary(max_size=50),
    headers=st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=5),
)
@settings(deadline=None)
def test_it_survives_the_line(value: str, body: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Whatever bytes an answer has, every worker gives the same."""
    there = ShutOff(("/p/{sku}", "sku", value), 5.0, 410, headers, body)

    assert ShutOff.from_json(there.to_json(0.0), 0.0) == there


@pytest.mark.parametrize("said", [{}, {"key": 1}, {"key": ["a", "b"]}])
def test_nonsense_on_the_line_is_refused(said: Any) -> None:
    """With the one error that callers know."""
    with pytest.raises(ValueError, match=r"no shut-off|unpack"):
        ShutOff.from_json(said, 0.0)


class HeldMachine(RuleBasedStateMachine):
    """Adds, lets time pass and clears at random; what holds is what a plain dict says."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.held = ShutOffs(clock=lambda: self.now)
        self.model: dict[str, float] = {}

    values = st.sampled_from("abcdef")

    @rule(value=values, seconds=st.integers(1, 5))
    def add(self, value: str, seconds: int) -> None:
        new = self.held.add(shut(value, self.now + seconds))
        assert new is (self.model.get(value, 0.0) <= self.now)
        if new:
            self.model[value] = self.now + seconds

    @rule(seconds=st.integers(1, 4))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @rule(value=values)
    def clear(self, value: str) -> None:
        held = self.model.pop(value, 0.0) > self.now
        assert self.held.clear({shut(value).id}) == held

    @invariant()
    def holds_what_was_said(self) -> None:
        for value in "abcdef":
            assert (self.held.get(shut(value).key) is not None) is (self.model.get(value, 0.0) > self.now)
        held = self.held.all()
        assert (self.held.parameters("/p/{sku}") is not None) is bool(held)


TestHeld = HeldMachine.TestCase
TestHeld.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
