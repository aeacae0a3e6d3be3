"""A request that repeats another is told from a new one, in every worker and on every host."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from gateway.errors import Overloaded, UpstreamTimeout
from gateway.exchange import Exchange, Reply
from gateway.policies.shut_off import Shut
from gateway.policies.shut_offs import ShutOff, ShutOffs
from gateway.state.known_keys import KEEP, PART, SETS, WAYS, KnownKeys, open_table
from gateway.state.known_shared import SharedKeys
from tests.gateway.two_hosts import store_is

if TYPE_CHECKING:
    from tests.gateway.own_redis import OwnRedis

Start = Callable[..., SharedKeys]


# ---- the table that workers share ------------------------------------------------------------


class Table(RuleBasedStateMachine):
    """Two workers note, accept and refuse a few keys while time passes; a dict says what is known."""

    keys = st.sampled_from([1, 2, SETS + 1, 2 * SETS + 1, 5])  # three of them share a set
    workers = st.integers(0, 1)

    def __init__(self) -> None:
        super().__init__()
        self.now = 1e9
        number = open_table(None, 2)
        self.tables = [KnownKeys(number, part, lambda: self.now) for part in (0, 1)]
        os.close(number)
        self.first: dict[int, int] = {}  # who has noted it first, and not heard of it since
        self.made: dict[int, float] = {}

    def known(self, key: int) -> bool:
        return key in self.made and self.made[key] > self.now - KEEP

    @rule(key=keys, worker=workers)
    def begin(self, key: int, worker: int) -> None:
        new = self.tables[worker].begin(key)
        assert new is not self.known(key)
        if new:
            self.first[key], self.made[key] = worker, self.now

    @rule(key=keys, worker=workers)
    def accepted(self, key: int, worker: int) -> None:
        if self.known(key):
            self.tables[worker].accepted(key)
            self.first.pop(key, None)
            self.made[key] = self.now

    @rule(key=keys)
    def refused(self, key: int) -> None:
        if self.known(key) and key in self.first:
            self.tables[self.first.pop(key)].refused(key)
            del self.made[key]

    @rule(key=keys, worker=workers)
    def refused_after_another_was_accepted(self, key: int, worker: int) -> None:
        if self.known(key) and key not in self.first:
            self.tables[worker].refused(key)

    @rule(seconds=st.sampled_from([1, 600, 3600]))
    def wait(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def both_know_the_same(self) -> None:
        for table in self.tables:
            for key in (1, 2, SETS + 1, 2 * SETS + 1, 5):
                assert table.knows(key) is self.known(key)

    def teardown(self) -> None:
        for table in self.tables:
            table.close()


TestTable = Table.TestCase
TestTable.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def test_a_full_set_forgets_its_oldest() -> None:
    """The memory is bounded: of more keys in one place than fit, those asked last are known."""
    now = 1e9
    table = KnownKeys(clock=lambda: now)
    keys = [1 + number * SETS for number in range(WAYS + 3)]
    for key in keys:
        now += 1
        table.begin(key)
    assert [table.knows(key) for key in keys] == [False] * 3 + [True] * WAYS


def test_it_outlives_the_gateway(tmp_path: Path) -> None:
    """In its file; a gateway with more workers, or with fewer, knows all that was known."""
    file = tmp_path / "deep" / "switches.keys"
    number = open_table(file, 2)
    KnownKeys(number, 1).begin(7)
    os.close(number)
    for workers, parts in ((4, 4), (1, 4)):
        number = open_table(file, workers)
        assert os.fstat(number).st_size == parts * PART
        assert KnownKeys(number, 0).knows(7)
        os.close(number)
    assert file.stat().st_mode & 0o077 == 0


# ---- over all hosts --------------------------------------------------------------------------


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """A worker of a host of its own for each call."""
    running: list[SharedKeys] = []

    def one(url: str, timeout: float = 5.0) -> SharedKeys:
        keys = SharedKeys(KnownKeys(), url, timeout=timeout, prefix="test")
        keys.start()
        running.append(keys)
        return keys

    yield one
    for keys in running:
        await keys.aclose()


async def test_hosts_know_each_others_keys(start: Start, redis_volatile_url: str, until: Any) -> None:
    """Before the request is passed on; refused by who asked first it is forgotten, accepted it stays."""
    one, other = start(redis_volatile_url), start(redis_volatile_url)
    await until(lambda: one.up and other.up)
    assert await one.begin(1)
    assert await other.knows(1)
    assert not await other.begin(1)
    one.refused(1)
    await until(lambda: _not(one.knows(1)))
    assert await other.knows(1)  # that host has passed one on itself, and nobody has refused it

    assert await one.begin(2)
    assert not await other.begin(2)
    other.accepted(2, first=False)
    await until(lambda: _stands(one, b"accepted"))
    one.refused(2)
    assert await one.knows(2)


async def _not(found: Awaitable[bool]) -> bool:
    return not await found


async def _stands(keys: SharedKeys, value: bytes) -> bool:
    return bool(await keys._ask("GET", keys._name(2)) == value)


async def test_keys_in_redis_end(start: Start, redis_volatile_url: str, until: Any) -> None:
    """Each has a time to live."""
    keys = start(redis_volatile_url)
    await until(lambda: keys.up)
    await keys.begin(1)
    keys.accepted(1, first=False)
    assert 0 < await keys._ask("TTL", keys._name(1)) <= KEEP


async def test_without_redis_each_host_knows_its_own(start: Start, own_redis: OwnRedis, until: Any) -> None:
    """Frozen, gone and back again: nobody waits longer than the time limit, nothing is lost here."""
    keys = start(own_redis.url, timeout=0.05)
    await until(lambda: keys.up)
    own_redis.freeze()
    assert await keys.begin(1)
    assert not keys.up
    assert await keys.knows(1)
    assert not await keys.knows(2)
    own_redis.thaw()
    await until(lambda: keys.up)
    own_redis.stop()
    await until(lambda: _down(keys))
    assert await keys.begin(3)
    own_redis.start()
    await until(lambda: keys.up)
    assert await keys.knows(3)


async def test_nonsense_from_redis_leaves_no_host_alone(start: Start, until: Any) -> None:
    """A first server says what no Redis does; the host asks again, and is not alone for good."""
    served: list[int] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.append(len(served))
        said = b"+OK\r\n" if served[-1] else b"-MOVED nowhere\r\n"
        while data := await reader.read(1 << 16):
            writer.write(said * len(re.findall(rb"^\*\d+\r$", data, re.MULTILINE)))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        keys = start(f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await until(lambda: keys.up)
        await keys.aclose()
    assert len(served) > 1


async def _down(keys: SharedKeys) -> bool:
    await keys.knows(9)
    return not keys.up


async def test_callers_that_leave_mix_nobody_up(start: Start, redis_volatile_url: str, until: Any) -> None:
    """A thousand questions, half of them cancelled in the middle: each answer is that to its question."""
    keys = start(redis_volatile_url)
    other = start(redis_volatile_url)
    await until(lambda: keys.up and other.up)
    for key in range(0, 1000, 2):
        await other.begin(key + 1)
    asking = [asyncio.create_task(keys.knows(key + 1)) for key in range(1000)]
    await asyncio.sleep(0)
    for task in asking[::3]:
        task.cancel()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    for key, answer in enumerate(answers):
        assert answer is (key % 2 == 0) or (key % 3 == 0 and isinstance(answer, asyncio.CancelledError))


# ---- as the policy uses it -------------------------------------------------------------------


async def _nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}


def order(key: bytes | None = b"mine", user: str | None = "u1") -> Exchange:
    headers = [(b"idempotency-key", key)] if key is not None else []
    exchange = Exchange(
        method="POST", target=b"/p", path="/p", headers=headers, host=b"h", address="192.0.2.1",
        receive=_nothing, started=0,
    )  # fmt: skip
    exchange.route, exchange.params, exchange.user = "/p/{sku}", {"sku": "a"}, user
    return exchange


GONE = ShutOff(("/p/{sku}", "sku", "a"), 5.0, 410, [], b"gone")


def shop(answer: int | BaseException) -> Any:
    async def upstream(_: Exchange) -> Reply:
        if isinstance(answer, BaseException):
            raise answer
        return Reply(answer, [])

    return upstream


@pytest.mark.parametrize(
    ("answer", "passes"),
    [
        (202, True),
        (500, True),  # it may have been accepted all the same
        (UpstreamTimeout("too slow"), True),
        (asyncio.CancelledError(), True),
        (410, False),
        (422, False),
        (429, False),  # over a limit of ours, or the upstream's
        (Overloaded("no slot"), False),  # the upstream has not seen it
    ],
)
async def test_what_may_have_been_accepted_may_be_repeated(answer: Any, passes: bool) -> None:
    """And nothing else: another key, another user or no key at all is answered at the gate."""
    held = ShutOffs(clock=lambda: 0.0)
    policy = Shut(held, SharedKeys(KnownKeys(), None))
    outcome = await asyncio.gather(policy(order(), shop(answer)), return_exceptions=True)
    assert len(outcome) == 1
    held.add(GONE)

    assert ((await policy(order(), shop(202))).status == 202) is passes
    for other in (order(b"other"), order(user="u2"), order(user=None), order(None)):
        assert (await policy(other, shop(202))).status == 410


async def test_a_repeat_that_is_refused_is_still_one() -> None:
    """The shop says that the key was used with another body: the order that was accepted stays known."""
    held = ShutOffs(clock=lambda: 0.0)
    policy = Shut(held, SharedKeys(KnownKeys(), None))
    await policy(order(), shop(202))
    await policy(order(), shop(409))
    held.add(GONE)
    assert (await policy(order(), shop(202))).status == 202


async def test_a_repeat_ends_nobody_elses_asking() -> None:
    """While one asks anew for a crowd, a repeat passes and is answered first; that opens nothing."""
    now = 0.0
    held = ShutOffs(clock=lambda: now)
    policy = Shut(held, SharedKeys(KnownKeys(), None))
    await policy(order(), shop(202))
    held.add(GONE)
    now = GONE.until
    asked = asyncio.Event()

    async def slow(_: Exchange) -> Reply:
        await asked.wait()
        return Reply(410, [])

    asking = asyncio.create_task(policy(order(b"asks"), slow))
    await asyncio.sleep(0)
    assert (await policy(order(), shop(202))).status == 202
    assert (await policy(order(b"late"), shop(202))).status == 410
    asked.set()
    await asking


# ---- over sockets ----------------------------------------------------------------------------

ROUTES = [{"match": "/api/orders", "methods": ["POST"], "upstream": "shop", "shut": {"sku": "body"}}]


class Stock:
    """A shop's upstream with a few cards: first come first served, the same key gets the same answer."""

    def __init__(self, cards: int) -> None:
        self.left = cards
        self.orders: set[str] = set()

    async def answer(self, _: Any, writer: asyncio.StreamWriter, seen: Any) -> None:
        (key,) = seen.values("idempotency-key")
        if key not in self.orders and self.left:
            self.left -= 1
            self.orders.add(key)
        if key in self.orders:
            writer.write(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.write(b"HTTP/1.1 410 Gone\r\nTidegate-Shut: sku=card; for=60\r\nContent-Length: 0\r\n\r\n")


async def _buy(gateway: Any, key: str) -> int:
    answer = await gateway.raw(
        b"POST /api/orders HTTP/1.1\r\nHost: shop.test\r\nConnection: close\r\nContent-Length: 15\r\n"
        b"Idempotency-Key: %b\r\n\r\n"
        b'{"sku": "card"}' % key.encode()
    )
    return int(answer[9:12])


async def test_nobody_with_an_accepted_order_loses_it(
    start_gateway: Any, shop: Any, redis_volatile_url: str, until: Any
) -> None:
    """300 buyers of 20 cards on two hosts: few reach the shop once it is sold out.

    Every repeat is answered as before, in every worker and on every host.
    """
    stock = Stock(20)
    shop.scripts["/api/orders"] = stock.answer
    shared = {"url": redis_volatile_url, "timeout": "5s"}
    hosts = [await start_gateway(redis=shared, routes=ROUTES) for _ in range(2)]

    await store_is(until, 1, *hosts)
    won = [str(n) for n in range(30) if await _buy(hosts[n % 2], str(n)) == 202]
    assert len(won) == 20
    reached = len(shop.seen)
    assert reached <= 20 + 2 * 4  # each worker of each host may ask once more, before it is told

    crowd = await asyncio.gather(*(_buy(hosts[n % 2], f"late-{n}") for n in range(270)))
    assert set(crowd) == {410}
    assert len(shop.seen) <= 20 + 2 * 4

    for host in hosts:
        assert {await _buy(host, key) for key in won} == {202}
    assert {await _buy(host, "never") for host in hosts for _ in range(4)} == {410}


async def test_a_killed_gateway_remembers(start_gateway: Any, shop: Any, tmp_path: Path) -> None:
    """Kill -9 of all its processes, and no Redis: what was accepted before can be repeated after."""
    stock = Stock(3)
    shop.scripts["/api/orders"] = stock.answer
    keys = {"routes": ROUTES, "admin": {"port": 0, "state_file": str(tmp_path / "switches.json")}}
    gateway = await start_gateway(**keys)
    for number in range(3):
        assert await _buy(gateway, str(number)) == 202
    await gateway.stop(signal.SIGKILL)

    again = await start_gateway(**keys)
    assert await _buy(again, "new") == 410
    assert [await _buy(again, str(number)) for number in range(3)] == [202] * 3
    assert {await _buy(again, f"new-{number}") for number in range(8)} == {410}
