"""The durable Redis loses its disk: what was answered 202 comes back from its second copy."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.asyncio import Redis

from shop_backend.restock import fingerprint
from shop_backend.stock import keys
from shop_backend.stock.records import Hold, Intent
from shop_backend.stock.second_copy import NAME, SecondCopy
from shop_backend.storage.database import Database
from shop_backend.workers.mender import Mender
from tests.waiting import PATIENCE


async def _copies(shop: Any) -> list[dict[str, str]]:
    copies = SecondCopy(shop.parts.redis_volatile, shop.parts.database)
    return [each async for chunk in copies.chunks() for each in chunk]


async def test_the_copy_says_what_the_stream_says(shop: Any) -> None:
    """Two places write an intent, in Lua and in Python; both must say the same."""
    await shop.order("plain", 2)
    ((_, entry),) = await shop.parts.redis_durable.xrange(keys.ORDERS)

    assert await _copies(shop) == [entry]
    assert await shop.parts.redis_volatile.ttl(NAME) > 0


async def test_orders_nobody_had_read_survive_the_loss_of_the_disk(shop: Any) -> None:
    """They get their rows and cards before anybody else can buy; a repeat finds its order; each once."""
    headers = await shop.session()
    orders = [(await shop.order("single", headers=headers, key="the-key-of-one")).json()]
    orders += [(await shop.order("plain", 2)).json() for _ in range(3)]
    written = await shop.placed("flash")
    unread = (await shop.order("flash")).json()
    await shop.parts.redis_durable.flushall()

    assert await shop.keeper.check() == 1

    for order in [*orders, written, unread]:
        assert (await shop.see(order))["status"] == "pending"
    assert (await shop.order("single")).status_code == 410
    again = await shop.order("single", headers=headers, key="the-key-of-one")
    assert again.json()["order_id"] == orders[0]["order_id"]
    await shop.drain()
    assert len(await shop.rows("SELECT * FROM orders")) == 6
    assert await shop.rows("SELECT * FROM dead_letters") == []
    await shop.check()


async def test_a_volatile_redis_that_forgets_is_told_again(shop: Any) -> None:
    """Workers can't write, the second copies are lost, later the first: still every order is there."""
    durable, volatile = shop.parts.redis_durable, shop.parts.redis_volatile
    mender = Mender(volatile, durable, [keys.ORDERS])
    orders = [(await shop.order("plain")).json() for _ in range(3)]
    assert await mender.mend() == 3  # nobody has said yet that nothing was lost
    assert await mender.mend() == 0
    await volatile.flushall()
    orders.append((await shop.order("single")).json())

    assert await mender.mend() == 4
    assert await mender.mend() == 0
    assert {each["order_id"] for each in await _copies(shop)} == {order["order_id"] for order in orders}
    for name in await volatile.keys("orders:second-copy*"):
        assert await volatile.ttl(name) > 0

    await durable.flushall()
    await shop.keeper.check()
    for order in orders:
        assert (await shop.see(order))["status"] == "pending"
    await shop.check()


async def test_copies_that_alone_are_lost_are_made_again(shop: Any) -> None:
    """Redis short of memory throws the copies away and keeps the mark: seen by the streams that wait."""
    await shop.order("plain")
    mender = Mender(shop.parts.redis_volatile, shop.parts.redis_durable, [keys.ORDERS])
    await mender.mend()
    await shop.parts.redis_volatile.delete(NAME)

    assert await mender.mend() == 1


async def test_an_order_whose_cards_are_gone_is_accounted_for(shop: Any) -> None:
    """Among the dead letters, and its buyer is told, though Redis remembers nothing of it."""
    order = (await shop.order("single")).json()
    await shop.parts.redis_durable.flushall()
    await shop.execute("UPDATE cards SET state = 'disabled' WHERE sku = 'single'")

    await shop.keeper.check()

    letter = await shop.row("SELECT * FROM dead_letters")
    assert str(letter["order_id"]) == order["order_id"]
    assert "0 cards available" in letter["error"]
    assert (await shop.see(order))["status"] == "expired"
    stranger = await shop.client.get(order["status_url"], headers=await shop.session())
    assert stranger.status_code == 404


async def test_what_can_not_be_recovered_names_no_buyer(shop: Any, caplog: pytest.LogCaptureFixture) -> None:
    """SQL quotes the row that it refuses; log and letter have its first line only."""
    order = (await shop.order("plain")).json()
    redis = shop.parts.redis_volatile
    ((entry, fields),) = await redis.xrange(NAME)
    await redis.xdel(NAME, entry)
    await redis.xadd(NAME, {**fields, "unit_cents": "-1"})
    await shop.parts.redis_durable.flushall()

    await shop.keeper.check()

    letter = await shop.row("SELECT * FROM dead_letters")
    assert str(letter["order_id"]) == order["order_id"]
    assert "violates check constraint" in letter["error"]
    assert f"order {order['order_id']} can't be recovered" in caplog.text
    assert fields["email"] not in letter["error"] + caplog.text


@pytest.mark.parametrize(
    ("stream", "replayed"), [(keys.CALLBACKS, False), (keys.ORDERS, True)], ids=["callback", "replayed order"]
)
async def test_a_letter_that_is_not_the_order_s_end_hides_no_order(
    shop: Any, stream: str, replayed: bool
) -> None:
    """A callback that was given up, or a letter queued again just before the loss: the order is written."""
    order = (await shop.order("plain")).json()
    await shop.execute(
        "INSERT INTO dead_letters (stream, entry_id, order_id, fields, error, replayed_at)"
        " VALUES (%s, '1-1', %s, '{}', 'no', CASE WHEN %s THEN now() END)",
        stream,
        order["order_id"],
        replayed,
    )
    await shop.parts.redis_durable.flushall()

    await shop.keeper.check()

    assert (await shop.see(order))["status"] == "pending"
    await shop.check()


async def test_a_copy_that_comes_late_is_accounted_for(shop: Any) -> None:
    """Of a process that was stopped between reserving and copying: its stock has been counted as free."""
    taken = (await shop.order("single")).json()
    ((_, fields),) = await shop.parts.redis_durable.xrange(keys.ORDERS)
    await shop.parts.redis_durable.flushall()
    await shop.parts.redis_volatile.delete(NAME)
    await shop.keeper.check()
    await shop.parts.redis_volatile.xadd(NAME, fields)

    assert await shop.recovery.recover(before_epoch=shop.parts.stock.epoch) == 0

    letter = await shop.row("SELECT * FROM dead_letters")
    assert str(letter["order_id"]) == taken["order_id"]
    assert "epoch" in letter["error"]
    assert await shop.recovery.recover(before_epoch=shop.parts.stock.epoch) == 0
    assert len(await shop.rows("SELECT * FROM dead_letters")) == 1


async def test_two_recoveries_and_a_worker_at_once(shop: Any) -> None:
    """Whoever comes first writes an order; the others find it."""
    for _ in range(20):
        await shop.order("plain")
    epoch = shop.parts.stock.epoch + 1
    await shop.orders.join()

    await asyncio.gather(
        shop.recovery.recover(before_epoch=epoch),
        shop.recovery.recover(before_epoch=epoch),
        shop.orders.once(),
    )
    await shop.drain()

    assert len(await shop.rows("SELECT * FROM orders")) == 20
    assert await shop.rows("SELECT * FROM dead_letters") == []
    await shop.check()


async def test_what_the_volatile_redis_can_not_take_goes_to_sql(shop: Any) -> None:
    """It does not answer, and in that moment the durable one is lost: the order is there all the same."""
    order = (await shop.order("plain")).json()
    ((_, fields),) = await shop.parts.redis_durable.xrange(keys.ORDERS)
    await shop.parts.redis_volatile.delete(NAME)
    async with Redis(port=1) as nowhere:
        copies = SecondCopy(nowhere, shop.parts.database, patience=PATIENCE)
        intent, hold, mark = _as_taken(fields)
        for _ in range(2):  # the buyer asks twice
            assert await copies.keep(intent, hold, mark) == "sql"
    await shop.parts.redis_durable.flushall()

    await shop.keeper.check()

    assert (await shop.see(order))["status"] == "pending"
    assert await shop.rows("SELECT * FROM dead_letters") == []
    await shop.check()
    await copies.forget()
    assert len(await shop.rows("SELECT * FROM order_copies")) == 1
    await shop.execute("UPDATE order_copies SET at = now() - interval '2 hours'")
    await copies.forget()
    assert await shop.rows("SELECT * FROM order_copies") == []


def _as_taken(fields: dict[str, str]) -> tuple[Intent, Hold, str]:
    """What the shop had in hand when it answered 202."""
    intent = Intent(
        fields["order_id"][15:],
        fields["sku"],
        fields["user"],
        int(fields["quantity"]),
        fields["email"],
        int(fields["unit_cents"]),
        fields["currency"],
        fields["body"],
    )
    hold = Hold(fields["order_id"], int(fields["expires_ms"]), int(fields["round"]))
    return intent, hold, fields["epoch"]


async def test_an_order_needs_no_second_copy(shop: Any, shop_settings: Any) -> None:
    """While the volatile Redis and SQL are away orders are taken all the same; the loss is said."""
    async with Redis(port=1) as nowhere:
        intent = Intent("id", "plain", "ann", 1, "a@example.com", 500, "EUR", fingerprint("plain", 1, "a"))
        closed = Database(shop_settings.require("database_url"), shop_settings.database)  # never opened
        assert await SecondCopy(nowhere, closed).keep(intent, Hold("id", 1, 1), "1/1") == "failed"
    await shop.order("plain")
    await shop.parts.redis_volatile.flushall()
    await shop.parts.redis_durable.flushall()

    assert await shop.keeper.check() == 1
    assert (await shop.order("plain")).status_code == 202
    await shop.drain()
    await shop.check()
