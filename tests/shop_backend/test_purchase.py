"""From a session to a card key, and what a buyer may and may not see on the way."""

from __future__ import annotations

from typing import Any

from shop_backend.stock import keys


async def test_the_walk_of_an_order(shop: Any) -> None:
    """Reserve, write, pay, deliver: each step shows in the order, the last shows the key."""
    buyer = await shop.session()
    answer = await shop.order("plain", 2, headers=buyer)
    assert answer.status_code == 202, answer.text
    order = answer.json()
    assert order["status"] == "reserved"
    assert (await shop.see(order))["status"] == "reserved"
    await shop.drain()
    seen = await shop.see(order)
    assert seen["status"] == "pending"
    assert "pay_url" not in seen
    await shop.cashier.open_checkouts()
    assert (await shop.see(order))["pay_url"].startswith("http://sandbox.test/checkouts/")
    payment = await shop.pay(order)
    assert (await shop.callback(order, payment)).status_code == 200
    await shop.drain()
    seen = await shop.see(order)
    assert seen["status"] == "delivered"
    assert [card.startswith("CANARY-plain-") for card in seen["cards"]] == [True, True]
    await shop.outbox.send_due()
    assert len(shop.mailbox.sent) == 1
    await shop.check()
    hold = await shop.parts.stock.hold(order["order_id"])
    assert hold["state"] == "confirmed"
    assert await shop.parts.redis_durable.zcard(keys.HOLDS) == 0
