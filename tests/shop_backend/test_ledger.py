"""The stock scripts, on a real Redis, against a model a child could check."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from shop_backend.errors import (
    CapReached,
    KeyReused,
    NotFound,
    OutsideWindow,
    ShopError,
    SoldOut,
    TooManyOpen,
)
from shop_backend.parts import redis_client
from shop_backend.sections import StockSettings
from shop_backend.stock import keys
from shop_backend.stock.ledger import StockLedger
from shop_backend.stock.records import Intent, StockClosed

CAP, OPEN, STOCK = 3, 2, 5


def seed(name: str) -> str:
    """A seed of the right length that shows its name."""
    return f"{name:_>21}"


def intent(name: str = "o1", user: str = "u1", quantity: int = 1, sku: str = "a", **more: Any) -> Intent:
    """A request; its body is what it asks for."""
    return Intent(seed(name), sku, user, quantity, "a@b.example", 100, "EUR", f"{sku}:{quantity}", **more)


def never(name: str) -> str:
    """The id of an order that was never taken."""
    return f"00000000-0000-8{seed(name)}"


async def load(redis: Redis, sku: str = "a", *, free: int = STOCK, **rules: int) -> None:
    """Stock under epoch 1."""
    fields: dict[Any, Any] = {"free": free, "starts_ms": 0, "ends_ms": 0, "cap": CAP} | rules
    await redis.hset(keys.SKU + sku, mapping=fields)
    await redis.sadd(keys.SKUS, sku)
    await redis.set(keys.EPOCH, "1/1")


@pytest.fixture
async def redis(redis_durable_url: str) -> AsyncIterator[Redis]:
    client = redis_client(redis_durable_url, timeout=5)
    yield client
    await client.aclose()


@pytest.fixture
async def stock(redis: Redis) -> StockLedger:
    """A ledger with STOCK of `a`."""
    await load(redis)
    return StockLedger(redis, StockSettings(open_holds_per_user=OPEN), epoch=1)


async def test_stock_is_taken_under_the_epoch_of_the_moment_of_asking(redis: Redis) -> None:
    """Another is learnt while a key is looked up: who asked writes its second copy under the one it knew."""
    ledger = StockLedger(redis, StockSettings(shards=2), epoch=1)
    shard = keys.shard_of("a", 2)
    await redis.hset(
        keys.on(shard, keys.SKU) + "a", mapping={"free": 1, "starts_ms": 0, "ends_ms": 0, "cap": 1}
    )
    await redis.set(keys.on(shard, keys.EPOCH), "2/2")
    asking = asyncio.create_task(ledger.reserve(intent()))
    await asyncio.sleep(0)
    ledger.epoch = 2

    with pytest.raises(StockClosed):
        await asking
    assert (await ledger.reserve(intent())).new


# ---- against a model -------------------------------------------------------------------------


@dataclass
class Model:
    """What the ledger should know."""

    free: int = STOCK
    holds: dict[str, dict[str, Any]] = field(default_factory=dict)

    def _of(self, user: str, *states: str) -> list[dict[str, Any]]:
        return [h for h in self.holds.values() if h["user"] == user and h["state"] in states]

    def bought(self, user: str) -> int:
        return sum(h["quantity"] for h in self._of(user, "held", "confirmed"))

    def reserve(self, order: str, user: str, quantity: int) -> type[ShopError] | None:
        if order in self.holds:
            return None if self.holds[order]["body"] == quantity else KeyReused
        if self.bought(user) + quantity > CAP:
            return CapReached
        if len(self._of(user, "held")) >= OPEN:
            return TooManyOpen
        if self.free < quantity:
            return SoldOut
        self.free -= quantity
        self.holds[order] = {"user": user, "quantity": quantity, "state": "held", "body": quantity}
        return None

    def end(self, order: str, state: str) -> None:
        hold = self.holds.get(order)
        if hold and hold["state"] == "held":
            hold["state"] = state
            if state != "confirmed":
                self.free += hold["quantity"]

    def retake(self, order: str) -> str:
        hold = self.holds[order]
        if hold["state"] in ("held", "confirmed"):
            return "ok"
        if self.bought(hold["user"]) + hold["quantity"] > CAP:
            return "cap"
        if self.free < hold["quantity"]:
            return "sold"
        self.free -= hold["quantity"]
        hold["state"] = "held"
        return "ok"


_orders = st.sampled_from(["o1", "o2", "o3", "o4", "o5"])
_steps = st.one_of(
    st.tuples(st.just("reserve"), _orders, st.sampled_from(["u1", "u2"]), st.integers(1, 4)),
    st.tuples(st.sampled_from(["confirm", "release", "expire", "retake", "stale"]), _orders),
)


@settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(steps=st.lists(_steps, max_size=30))
def test_every_history_agrees_with_the_model(redis_durable_url: str, steps: list[Any]) -> None:
    """After any sequence of calls, answers, free stock, holds, caps and intents are the model's."""
    asyncio.run(_play(redis_durable_url, steps))


async def _play(url: str, steps: list[Any]) -> None:
    client = redis_client(url, timeout=5)
    await client.flushall()
    await load(client)
    stock = StockLedger(client, StockSettings(open_holds_per_user=OPEN), epoch=1)
    model = Model()
    rounds: dict[str, int] = {}
    ids: dict[str, str] = {}
    for name, order, *rest in steps:
        order_id = ids.get(order, never(order))
        if name == "reserve":
            expected = model.reserve(order, *rest)
            if expected is None:
                hold = await stock.reserve(intent(order, *rest))
                assert ids.setdefault(order, hold.order_id) == hold.order_id
                rounds[order] = hold.round
            else:
                with pytest.raises(expected):
                    await stock.reserve(intent(order, *rest))
        elif name == "retake" and order in model.holds:
            wish = model.holds[order]
            got = await stock.retake(order_id, sku="a", user=wish["user"], quantity=wish["quantity"])
            assert (got if isinstance(got, str) else "ok") == model.retake(order)
            if isinstance(got, int) and got:
                rounds[order] = got
        elif name == "confirm":
            model.end(order, "confirmed")
            await stock.confirm([(order_id, "a")])
        elif name == "stale":
            assert not await stock.release(order_id, "a", rounds.get(order, 1) - 1, state="expired")
        elif name in ("release", "expire"):
            state: Any = {"release": "released", "expire": "expired"}[name]
            model.end(order, state)
            await stock.release(order_id, "a", rounds.get(order, 1), state=state)
        await _compare(client, stock, model, ids)
    await client.aclose()


async def _compare(client: Redis, stock: StockLedger, model: Model, ids: dict[str, str]) -> None:
    snapshot = await stock.snapshot()
    assert snapshot.free == {"a": model.free}
    assert model.free >= 0
    held = {ids[order] for order, hold in model.holds.items() if hold["state"] == "held"}
    assert {order for order, _, _ in snapshot.holds} == held
    assert await client.xlen(keys.ORDERS) == len(model.holds)
    bought = {u: str(model.bought(u)) for u in ("u1", "u2") if model.bought(u)}
    assert await client.hgetall(keys.BOUGHT + "a") == bought
    opened = {}
    for user in ("u1", "u2"):
        count = sum(h["user"] == user and h["state"] == "held" for h in model.holds.values())
        if count:
            opened[user] = str(count)
    assert await client.hgetall(keys.OPEN) == opened
    for order, hold in model.holds.items():
        # An ended hold answers its key for a while only: no record is immortal.
        assert (await client.pttl(keys.HOLD + seed(order)) > 0) == (hold["state"] != "held")


# ---- races -----------------------------------------------------------------------------------


async def test_one_of_confirm_release_and_expire_wins(stock: StockLedger, redis: Redis) -> None:
    """Confirm, release and expire of one hold, raced 10,000 times: exactly one takes effect."""
    total = 10_000
    await load(redis, free=total, cap=total)
    kept = 0

    async def race(order: str) -> None:
        nonlocal kept
        hold = await stock.reserve(intent(order, order))
        calls = [
            stock.confirm([(hold.order_id, "a")]),
            stock.release(hold.order_id, "a", hold.round, state="released"),
            stock.release(hold.order_id, "a", hold.round, state="expired"),
        ]
        order_of_calls = random.Random(order).sample(range(3), 3)
        answers: dict[int, Any] = dict(
            zip(order_of_calls, await asyncio.gather(*(calls[n] for n in order_of_calls)), strict=True)
        )
        confirmed = answers[0] == {hold.order_id: "confirmed"}
        assert answers[1] + answers[2] == (0 if confirmed else 1)
        kept += confirmed

    for begin in range(0, total, 200):
        await asyncio.gather(*(race(f"race-{begin + n}") for n in range(200)))
    assert await stock.free(["a"]) == {"a": total - kept}
    assert 0 < kept < total
    assert await redis.zcard(keys.HOLDS) == 0
    assert not await redis.exists(keys.OPEN)


async def test_many_buyers_never_take_more_than_there_is(stock: StockLedger) -> None:
    """Three hundred buyers at once for five cards: five get one."""
    answers = await asyncio.gather(
        *(stock.reserve(intent(f"o{n}", f"u{n}")) for n in range(300)), return_exceptions=True
    )
    assert sum(not isinstance(a, BaseException) for a in answers) == STOCK
    assert sum(isinstance(a, SoldOut) for a in answers) == 300 - STOCK
    assert await stock.free(["a"]) == {"a": 0}


async def test_asking_again_makes_one_hold(stock: StockLedger, redis: Redis) -> None:
    """The same order id, fifty times at once, is one hold with one answer and one intent."""
    answers = await asyncio.gather(*(stock.reserve(intent()) for _ in range(50)))
    assert len(set(answers)) == 1
    assert await redis.xlen(keys.ORDERS) == 1
    assert await stock.free(["a"]) == {"a": STOCK - 1}


async def test_callers_that_vanish_leave_no_wrong_answers(stock: StockLedger, redis: Redis) -> None:
    """Cancelled in mid-call at random, nobody reads another's reply, and the count stays right."""
    await load(redis, free=10_000, cap=10_000)

    async def ask(number: int) -> None:
        task = asyncio.ensure_future(stock.reserve(intent(f"o{number}", f"u{number}")))
        for _ in range(number % 7):
            await asyncio.sleep(0)
        if number % 2:
            task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            assert (await task).order_id.endswith(seed(f"o{number}"))

    await asyncio.gather(*(ask(number) for number in range(600)))
    snapshot = await stock.snapshot()
    assert snapshot.free["a"] + len(snapshot.holds) == 10_000
    assert len(snapshot.holds) == await redis.xlen(keys.ORDERS) >= 300


# ---- rules -----------------------------------------------------------------------------------


async def test_a_refusal_changes_nothing(stock: StockLedger, redis: Redis) -> None:
    """Outside the window, over the cap, sold out, unknown, closed: no key is touched."""
    await load(redis, "early", starts_ms=4 * 10**12)
    await load(redis, "over", ends_ms=1000)
    await load(redis, "none", free=0)
    before = {key: await redis.dump(key) for key in sorted(await redis.keys("*"))}
    for error, wish in (
        (OutsideWindow, intent(sku="early")),
        (OutsideWindow, intent(sku="over")),
        (SoldOut, intent(sku="none")),
        (CapReached, intent(quantity=CAP + 1)),
        (NotFound, intent(sku="missing")),
        (SoldOut, intent(quantity=0)),
    ):
        with pytest.raises(error):
            await stock.reserve(wish)
    stock.epoch = 2
    with pytest.raises(StockClosed):
        await stock.reserve(intent())
    assert {key: await redis.dump(key) for key in sorted(await redis.keys("*"))} == before


async def test_another_body_under_the_same_order_is_refused(stock: StockLedger) -> None:
    """An order id stands for one request."""
    await stock.reserve(intent())
    with pytest.raises(KeyReused):
        await stock.reserve(replace(intent(), body="other"))


async def test_scripts_survive_a_redis_that_forgot_them(stock: StockLedger, redis: Redis) -> None:
    """After SCRIPT FLUSH (a restart does the same) the next call loads its script again."""
    await stock.reserve(intent("o1"))
    await redis.script_flush()
    order_id = (await stock.reserve(intent("o2", "u2"))).order_id
    await redis.script_flush()
    assert await stock.confirm([(order_id, "a")]) == {order_id: "confirmed"}


async def test_without_the_epoch_nothing_moves(stock: StockLedger, redis: Redis) -> None:
    """A Redis that lost its epoch, or has an old one, refuses every script."""
    hold = await stock.reserve(intent())
    for epoch in (None, "7/1", "1/2"):
        await (redis.delete(keys.EPOCH) if epoch is None else redis.set(keys.EPOCH, epoch))
        with pytest.raises(StockClosed):
            await stock.reserve(intent("o2"))
        with pytest.raises(StockClosed):
            await stock.retake(hold.order_id, sku="a", user="u1", quantity=1)
        assert not await stock.release(hold.order_id, "a", hold.round, state="expired")
        assert await stock.confirm([(hold.order_id, "a")]) == {hold.order_id: "closed"}
        assert await stock.due(10, lease=1) == []


async def test_due_holds_are_leased_to_one_sweeper(stock: StockLedger, redis: Redis) -> None:
    """Two sweepers at once share the due holds; nobody gets one twice."""
    await load(redis, free=100)
    for number in range(20):
        hold = await stock.reserve(intent(f"o{number}", f"u{number}"))
        await redis.zadd(keys.HOLDS, {hold.order_id: 1})
    batches = await asyncio.gather(*(stock.due(7, lease=30) for _ in range(4)))
    seen = [due.order_id for batch in batches for due in batch]
    assert len(seen) == len(set(seen)) == 20
    assert await stock.due(7, lease=30) == []


async def test_one_address_keeps_few_orders_open(redis: Redis) -> None:
    """Open holds count for the address they came from, over all its users; each end gives the place back."""
    await load(redis, free=100)
    stock = StockLedger(redis, StockSettings(open_holds_per_address=3), epoch=1)
    held = [await stock.reserve(intent(f"o{n}", f"u{n}", origin="home")) for n in range(3)]
    with pytest.raises(TooManyOpen):
        await stock.reserve(intent("o3", "u3", origin="home"))
    await stock.reserve(intent("o4", "u4", origin="elsewhere"))
    await stock.reserve(intent("o5", "u5"))  # of an address that says nothing

    assert (await stock.confirm([(held[0].order_id, "a")])).popitem()[1] == "confirmed"
    assert await stock.release(held[1].order_id, "a", held[1].round, state="released")
    assert await redis.hgetall(keys.ORIGINS) == {"home": "1", "elsewhere": "1"}
    assert await stock.retake(held[1].order_id, sku="a", user="u1", quantity=1)  # it came by no request
    await stock.reserve(intent("o6", "u6", origin="home"))
    await stock.reserve(intent("o7", "u7", origin="home"))
    with pytest.raises(TooManyOpen):
        await stock.reserve(intent("o8", "u8", origin="home"))
