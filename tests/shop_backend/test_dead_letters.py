"""Dead letters: what is given up gives its stock back, is listed with its reason, and can be queued again."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from shop_backend.dead_letters import DeadLetters, NotReplayed
from shop_backend.errors import Unavailable
from shop_backend.stock import keys


@pytest.fixture
def letters(shop: Any) -> DeadLetters:
    return DeadLetters(shop.parts.database, shop.parts.redis_durable, shop.parts.stock)


async def given_up(shop: Any, **more: Any) -> dict[str, Any]:
    """An order whose cards SQL can't find until they are back: a poison message, tried to its end."""
    order = (await shop.order(**more)).json()
    await shop.execute("UPDATE cards SET state = 'disabled' WHERE state = 'available'")
    for _ in range(shop.settings.workers.attempts):
        await shop.drain()
    await shop.execute("UPDATE cards SET state = 'available' WHERE state = 'disabled'")
    return dict(order)


async def test_a_replayed_order_is_sold_after_all(shop: Any, letters: DeadLetters) -> None:
    """Given up, its hold is released; replayed, it takes stock anew, is written, paid and delivered."""
    order = await given_up(shop)
    (letter,) = await letters.listed()
    assert letter.order_id == order["order_id"]
    assert "cards of plain needed" in letter.error
    assert (await shop.see(order))["status"] == "expired"
    await shop.keeper.load()
    await shop.check()

    await letters.replay(letter.id)
    assert (await shop.see(order))["status"] == "reserved"
    await shop.drain()
    await shop.cashier.open_checkouts()
    await shop.callback(order, await shop.pay(order))
    await shop.drain()
    assert (await shop.see(order))["status"] == "delivered"
    assert await letters.listed() == []
    assert [each.id for each in await letters.listed(replayed=True)] == [letter.id]
    await shop.check()


async def test_a_letter_is_replayed_once(shop: Any, letters: DeadLetters) -> None:
    """Two operators at the same moment: one entry, one hold."""
    await given_up(shop)
    (letter,) = await letters.listed()
    results = await asyncio.gather(*(letters.replay(letter.id) for _ in range(4)), return_exceptions=True)
    assert [type(result) for result in results if result is not None] == [NotReplayed] * 3
    assert await shop.parts.redis_durable.xlen(keys.ORDERS) == 1
    await shop.drain()
    await shop.keeper.load()
    await shop.check()


async def test_nothing_left_to_replay_it_with(shop: Any, letters: DeadLetters) -> None:
    """Sold out meanwhile: the letter stays, and so does the stock."""
    await given_up(shop, sku="single")
    await shop.keeper.load()
    (letter,) = await letters.listed()
    assert (await shop.order("single")).status_code == 202
    with pytest.raises(NotReplayed, match="no stock of single"):
        await letters.replay(letter.id)
    assert [each.id for each in await letters.listed()] == [letter.id]
    await shop.drain()
    await shop.check()


async def test_an_intent_that_is_not_whole_is_not_replayed(shop: Any, letters: DeadLetters) -> None:
    """Nonsense in the stream stays a letter: there is no order in it."""
    await shop.parts.redis_durable.xadd(keys.ORDERS, {"nonsense": "1"})
    await shop.drain()
    (letter,) = await letters.listed()
    with pytest.raises(NotReplayed, match="not whole"):
        await letters.replay(letter.id)
    with pytest.raises(NotReplayed, match="no such letter"):
        await letters.replay(letter.id + 1)
    assert len(await letters.listed()) == 1


async def test_a_replayed_callback_is_as_if_just_received(shop: Any, letters: DeadLetters) -> None:
    """A capture whose order came too late to be waited for is settled once it is replayed.

    The callback's letter names the order, whose own intent is still to be written: it must not count as dead.
    """
    order = (await shop.order()).json()
    unborn = {"id": "pay_1", "amount_cents": 1000, "currency": "EUR", "outcome": "succeeded"}
    await shop.callback(order, unborn)
    entry = (await shop.parts.redis_durable.xrange(keys.CALLBACKS))[0]
    await shop.parts.redis_durable.xdel(keys.CALLBACKS, entry[0])
    await shop.parts.redis_durable.xadd(keys.CALLBACKS, entry[1] | {"received_ms": 1})
    await shop.callbacks.join()
    while await shop.callbacks.once():
        pass
    (letter,) = await letters.listed()
    await shop.drain()
    await letters.replay(letter.id)
    await shop.drain()
    assert (await shop.see(order))["status"] == "delivered"
    assert await letters.listed() == []


async def test_without_redis_the_letter_stays(shop: Any, letters: DeadLetters) -> None:
    """When the entry can't be queued, it is not marked either."""
    await given_up(shop)
    (letter,) = await letters.listed()
    await shop.parts.redis_durable.delete(keys.EPOCH)  # admission is closed
    with pytest.raises(Unavailable):
        await letters.replay(letter.id)
    assert len(await letters.listed()) == 1


async def test_the_command_lists_and_replays(shop: Any, tmp_path: Path) -> None:
    """`dead-letters` shows each with its reason; `--replay all` queues them; nonsense is bad usage."""
    order = await given_up(shop)
    await shop.keeper.load()
    settings = shop.settings
    environment = {
        "PATH": os.environ["PATH"],
        "TIDEGATE_DATABASE_URL": settings.require("database_url"),
        "TIDEGATE_STOCK_REDIS_URL": settings.require("stock_redis_url"),
        "TIDEGATE_REDIS_URL": settings.require("redis_url"),
        "TIDEGATE_SESSION_KEY_FILE": str(settings.session_key_file),
        "TIDEGATE_DATA_DIR": str(tmp_path),
    }

    async def run(*words: str) -> tuple[int | None, str]:
        argv = (sys.executable, "-m", "shop_backend", "dead-letters", *words)
        process = await asyncio.create_subprocess_exec(
            *argv, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        said, _ = await process.communicate()
        return process.returncode, said.decode()

    code, said = await run()
    assert code == 0
    assert f"orders  order {order['order_id']}  given up: RuntimeError" in said
    code, said = await run("--replay", "all")
    assert (code, "1: queued again" in said, "0 dead letters" in said) == (0, True, True)
    assert (await run("--replay", "1"))[0] == 1
    assert (await run("--replay", "x"))[0] == 2
    await shop.drain()
    assert (await shop.see(order))["status"] == "pending"
