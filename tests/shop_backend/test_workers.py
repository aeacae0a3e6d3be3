"""Workers killed at the worst moments, poisoned, doubled, and left without their servers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from shop_backend.stock import keys
from shop_backend.storage.partitions import Partitions
from shop_backend.workers.callbacks import CallbackHandler
from shop_backend.workers.entries import Entry, Hopeless
from shop_backend.workers.orders import OrderHandler
from shop_backend.workers.runner import StreamRunner
from tests.waiting import until


def order_runner(shop: Any, name: str, redis: Redis | None = None) -> StreamRunner:
    """One more worker on the order stream."""
    w = shop.settings.workers
    partitions = Partitions(shop.parts.database, shop.settings.database)
    handler = OrderHandler(shop.parts.database, shop.parts.stock, partitions, w, provider="sandbox")
    return StreamRunner(redis or shop.parts.redis_streams, shop.parts.database, handler, w, consumer=name)


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it is run."""


class DiesBeforeAck(StreamRunner):
    """Its process is killed between commit and XACK."""

    async def _acknowledge(self, _: Any) -> None:
        raise Killed


async def test_killed_between_commit_and_ack_for_orders(shop: Any) -> None:
    """Another worker takes the entries over; every order is written once."""
    orders = [(await shop.order("plain")).json() for _ in range(5)]
    w = shop.settings.workers
    partitions = Partitions(shop.parts.database, shop.settings.database)
    handler = OrderHandler(shop.parts.database, shop.parts.stock, partitions, w, provider="sandbox")
    victim = DiesBeforeAck(shop.parts.redis_streams, shop.parts.database, handler, w)
    await victim.join()
    with pytest.raises(Killed):
        await victim.once()
    assert await shop.parts.redis_durable.xlen(keys.ORDERS) == 5
    await shop.drain()
    assert await shop.parts.redis_durable.xlen(keys.ORDERS) == 0
    rows = await shop.rows("SELECT id::text FROM orders")
    assert {row["id"] for row in rows} == {order["order_id"] for order in orders}
    assert len(await shop.rows("SELECT * FROM order_events")) == 5
    await shop.check()


async def test_killed_between_commit_and_ack_for_callbacks(shop: Any) -> None:
    """The delivery is not repeated, and its hold is confirmed by whoever takes over."""
    order = await shop.placed()
    await shop.callback(order, await shop.pay(order))
    w = shop.settings.workers
    handler = CallbackHandler(shop.parts.database, shop.payments, shop.parts.providers, w)
    victim = DiesBeforeAck(shop.parts.redis_streams, shop.parts.database, handler, w)
    await victim.join()
    with pytest.raises(Killed):
        await victim.once()
    await shop.drain()
    assert (await shop.see(order))["status"] == "delivered"
    assert len(await shop.rows("SELECT * FROM deliveries")) == 1
    await shop.check()


async def test_killed_before_commit(shop: Any) -> None:
    """Read but not written: the entry waits in the group and another worker writes it."""
    order = (await shop.order()).json()
    await shop.orders.join()
    await shop.parts.redis_durable.xreadgroup(keys.GROUP, "dead", {keys.ORDERS: ">"})
    await shop.drain()
    assert (await shop.see(order))["status"] == "pending"
    await shop.check()


class Late(Redis):
    """A read of `late` that was given up reaches the server when its name is about to be taken off."""

    async def execute_command(self, *words: Any, **options: Any) -> Any:
        if words[0] in {"EVAL", "XGROUP DELCONSUMER"}:
            await super().execute_command(
                *("XREADGROUP", "GROUP", keys.GROUP, "late", "STREAMS", keys.ORDERS, ">")
            )
        return await super().execute_command(*words, **options)


async def test_a_worker_that_leaves_takes_no_entry_along(shop: Any, redis_durable_url: str) -> None:
    """What Redis gave it at the last moment stays in the group, and another worker writes it."""
    order = (await shop.order()).json()
    stop = asyncio.Event()
    stop.set()
    async with Late.from_url(redis_durable_url, decode_responses=True) as redis:
        runner = order_runner(shop, "late", redis)
        await runner.join()
        await runner.run(stop)
    await shop.drain()
    assert (await shop.see(order))["status"] == "pending"
    await shop.check()


async def test_two_workers_on_one_entry_write_it_once(shop: Any) -> None:
    """Both claim everything from each other all the time; no order is lost or doubled."""
    for _ in range(30):
        await shop.order("plain")
    one, two = order_runner(shop, "one"), order_runner(shop, "two")
    await one.join()
    while await shop.parts.redis_durable.xlen(keys.ORDERS):
        await asyncio.gather(one.once(), two.once())
    assert len(await shop.rows("SELECT * FROM orders")) == 30
    assert await shop.rows("SELECT * FROM dead_letters") == []
    await shop.check()


async def test_two_who_write_the_same_orders_do_not_block_each_other(shop: Any) -> None:
    """A recovery comes upon them in an order of its own: each is written by both in the same one."""
    for _ in range(2):
        await shop.order("plain")
    entries = [Entry(*each) for each in await shop.parts.redis_durable.xrange(keys.ORDERS)]
    entries.sort(key=lambda each: each.fields["order_id"])
    w, partitions = shop.settings.workers, Partitions(shop.parts.database, shop.settings.database)
    handler = OrderHandler(shop.parts.database, shop.parts.stock, partitions, w, provider="sandbox")
    await partitions.ensure(0)
    write = (
        "INSERT INTO orders (id, user_id, sku, quantity, amount_cents, currency, email, state, round,"
        " provider, created_at, expires_at, next_poll_at) VALUES (%s, 'u', 'plain', 1, 1, 'EUR',"
        " 'a@b.example', 'pending', 1, 'sandbox', now(), now(), now())"
    )

    async def blocked() -> bool:
        return bool(await shop.rows("SELECT FROM pg_locks WHERE NOT granted"))

    async with shop.parts.database.latest() as other, other.transaction(force_rollback=True):
        await other.execute(write, (entries[0].fields["order_id"],))
        writing = asyncio.create_task(handler.handle(entries[::-1]))
        await until(blocked)
        await other.execute(write, (entries[1].fields["order_id"],))

    assert await writing == {}
    assert len(await shop.rows("SELECT FROM orders")) == 2


async def test_a_poisoned_intent_is_given_up_and_its_hold_released(shop: Any) -> None:
    """No cards in SQL for what Redis sold: tried again and again, then a dead letter; the rest goes on."""
    await shop.execute("UPDATE cards SET state = 'disabled' WHERE sku = 'single'")
    bad = (await shop.order("single")).json()
    good = (await shop.order("plain")).json()
    await shop.drain()
    assert (await shop.see(good))["status"] == "pending"
    assert (await shop.see(bad))["status"] == "expired"
    letter = await shop.row("SELECT * FROM dead_letters")
    assert str(letter["order_id"]) == bad["order_id"]
    assert (await shop.snapshot()).free["single"] == 1
    assert await shop.parts.redis_durable.hlen(keys.failures(keys.ORDERS)) == 0
    await shop.keeper.load()
    assert (await shop.snapshot()).free["single"] == 0
    await shop.check()


async def test_malformed_entries_go_to_the_dead_letters(shop: Any) -> None:
    """Whatever is in the streams, the workers go on."""
    redis = shop.parts.redis_durable
    await redis.xadd(keys.ORDERS, {"nonsense": "1"})
    await redis.xadd(keys.ORDERS, {"order_id": "x", "quantity": "y"})
    await redis.xadd(keys.CALLBACKS, {"body": "{"})
    order = await shop.placed()
    assert (await shop.see(order))["status"] == "pending"
    assert len(await shop.rows("SELECT * FROM dead_letters")) == 3
    assert await redis.xlen(keys.ORDERS) == await redis.xlen(keys.CALLBACKS) == 0


async def test_an_outage_is_not_the_entrys_fault(shop: Any) -> None:
    """However long a server is away, nothing is given up."""

    class Away:
        stream = keys.ORDERS
        tries = 0

        async def handle(self, entries: list[Entry]) -> dict[str, Exception]:
            self.tries += 1
            if self.tries < 3:
                raise RedisConnectionError("away")
            return {entry.id: RuntimeError("once") for entry in entries}

    await shop.order()
    away: Any = Away()
    runner = StreamRunner(shop.parts.redis_streams, shop.parts.database, away, shop.settings.workers)
    await runner.join()
    await runner.once()
    assert away.tries == 3
    failures = await shop.parts.redis_durable.hvals(keys.failures(keys.ORDERS))
    assert failures == ["1"]


async def test_a_hold_is_not_swept_before_its_order_is_written(shop: Any) -> None:
    """A worker far behind: the hold is due, its intent still queued, so its card must not be sold again."""
    order = (await shop.order("single")).json()
    await shop.parts.redis_durable.zadd(keys.HOLDS, {order["order_id"]: 1})
    assert await shop.sweeper.sweep() == 0
    assert (await shop.order("single")).status_code == 410
    await shop.drain()
    await shop.expire(order)
    assert (await shop.order("single")).status_code == 202
    await shop.drain()
    await shop.check()


async def test_sweeping_and_paying_at_once(shop: Any) -> None:
    """Expiry raced with payment, many times: each order ends delivered, nothing is counted twice."""
    for _ in range(6):
        order = await shop.placed("plain")
        payment = await shop.pay(order)
        await shop.callback(order, payment)
        await shop.parts.redis_durable.zadd(keys.HOLDS, {order["order_id"]: 1})
        await asyncio.gather(shop.callbacks.once(), shop.sweeper.sweep(), shop.sweeper.sweep())
        await shop.drain()
        assert (await shop.see(order))["status"] == "delivered"
    for due in await shop.parts.stock.due(100, lease=0):
        await shop.parts.redis_durable.zadd(keys.HOLDS, {due.order_id: 1})
    await shop.sweeper.sweep()
    await shop.check()


async def test_a_release_of_an_older_round_is_void(shop: Any) -> None:
    """The sweeper committed and stalled, a late payment took the hold: the old release frees nothing."""
    order = await shop.placed("plain")
    await shop.parts.redis_durable.zadd(keys.HOLDS, {order["order_id"]: 1})
    due = await shop.parts.stock.due(10, lease=10)
    await shop.sweeper._expire(due)
    row = await shop.row("SELECT user_id FROM orders")
    stock = shop.parts.stock
    assert isinstance(
        await stock.retake(order["order_id"], sku="plain", user=row["user_id"], quantity=1), int
    )
    assert not await stock.release(due[0].order_id, due[0].sku, due[0].round, state="expired")
    await shop.check()
    await shop.callback(order, await shop.pay(order))
    await shop.drain()
    assert (await shop.see(order))["status"] == "delivered"
    await shop.check()


async def test_the_loss_of_the_durable_redis(shop: Any) -> None:
    """Everything in Redis gone: closed, counted anew from SQL; what was open can still be paid."""
    paid, open_order = await shop.placed("plain", 2), await shop.placed("flash")
    await shop.callback(paid, await shop.pay(paid))
    await shop.drain()
    before = await shop.snapshot()
    await shop.parts.redis_durable.flushall()
    assert (await shop.order("plain")).status_code == 503
    assert await shop.keeper.check() == 1
    after = await shop.snapshot()
    assert after.free == before.free
    assert sorted(after.holds) == sorted(before.holds)
    assert after.epoch == before.epoch + 1
    await shop.check()
    await shop.callback(open_order, await shop.pay(open_order))
    await shop.drain()
    assert (await shop.see(open_order))["status"] == "delivered"
    await shop.check()


async def test_intents_of_an_older_epoch_are_given_up(shop: Any) -> None:
    """An intent that outlived its epoch may have lost its card to someone else: dead letter, no oversale."""
    order = (await shop.order("single")).json()
    await shop.parts.redis_durable.delete(keys.EPOCH)
    await shop.keeper.load()  # without waiting for the stream to drain
    await shop.drain()
    assert str((await shop.row("SELECT * FROM dead_letters"))["order_id"]) == order["order_id"]
    while (again := await shop.order("single")).status_code == 503:
        pass
    assert again.status_code == 202
    await shop.drain()
    await shop.check()


async def test_counting_while_selling(shop: Any) -> None:
    """Loading the stock again and again while orders come, are written and expire changes no count."""

    async def sell() -> None:
        for _ in range(6):
            answer = await shop.order("plain")
            await shop.orders.once()
            if answer.status_code == 202:
                await shop.parts.redis_durable.zadd(keys.HOLDS, {answer.json()["order_id"]: 1})
            await shop.sweeper.sweep()

    async def count() -> None:
        for _ in range(20):
            await shop.keeper.load()

    await shop.orders.join()
    await asyncio.gather(sell(), sell(), count())
    await shop.drain()
    await shop.check()


class _Curse(CallbackHandler):
    """Can't do some entries, in words that SQL does not take."""

    def order_of(self, entry: Entry) -> str | None:
        if entry.fields.get("provider") == "cursed":
            raise ValueError("no\x00order")
        return super().order_of(entry)

    async def handle(self, entries: Any) -> Any:
        cursed = {
            e.id: Hopeless(f"{e.id} \x00\ud800") for e in entries if e.fields.get("provider") != "sandbox"
        }
        return cursed | dict(await super().handle([e for e in entries if e.id not in cursed]))


async def test_a_poisonous_entry_stops_no_other(shop: Any) -> None:
    """NUL in what is written down, or an entry that can't even be given up: the others are handled."""
    order = await shop.placed()
    redis = shop.parts.redis_durable
    await redis.xadd(keys.CALLBACKS, {"provider": "bad\x00", "body": "\x00\x01", "received_ms": "\x00"})
    await redis.xadd(keys.CALLBACKS, {"provider": "cursed", "body": "{}", "received_ms": 1})
    await shop.callback(order, await shop.pay(order))
    w = shop.settings.workers
    handler = _Curse(shop.parts.database, shop.payments, shop.parts.providers, w)
    runner = StreamRunner(shop.parts.redis_streams, shop.parts.database, handler, w)
    await runner.join()
    for _ in range(3):
        await runner.once()
    assert (await shop.see(order))["status"] == "delivered"
    (letter,) = await shop.rows("SELECT fields, error FROM dead_letters")
    assert letter["fields"] == {"provider": "bad\ufffd", "body": "\ufffd\ufffd", "received_ms": "\ufffd"}
    assert "Hopeless" in letter["error"]
    # A worker that knows better finds the other one where it was.
    assert await redis.xlen(keys.CALLBACKS) == 1
    await shop.drain()
    assert await redis.xlen(keys.CALLBACKS) == 0
    assert len(await shop.rows("SELECT 1 AS one FROM dead_letters")) == 2
