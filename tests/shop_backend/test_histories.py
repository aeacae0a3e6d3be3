"""Random histories of a whole shop: whatever happens in whatever order, the books balance at the end."""

from __future__ import annotations

import random
from typing import Any

import pytest

from shop_backend.stock import keys


class History:
    """Buyers, a provider and workers that do things at random."""

    def __init__(self, shop: Any, seed: int) -> None:
        self.shop = shop
        self.random = random.Random(seed)
        self.buyers: list[dict[str, str]] = []
        self.accepted: dict[str, dict[str, Any]] = {}
        self.news: list[tuple[dict[str, Any], dict[str, Any]]] = []

    async def order(self) -> None:
        """A buyer orders something; now and then with a key used before."""
        sku, quantity = self.random.choice([("plain", 1), ("plain", 3), ("flash", 1), ("single", 1)])
        answer = await self.shop.order(
            sku, quantity, headers=self.random.choice(self.buyers), key=f"k{self.random.randrange(25)}"
        )
        assert answer.status_code in (202, 409, 410, 503), answer.text
        if answer.status_code == 202:
            self.accepted[answer.json()["order_id"]] = answer.json()

    async def pay(self) -> None:
        """A buyer pays, or is declined, late or in time; no callback yet."""
        payable = [o for o in self.accepted.values() if await self._pay_url(o)]
        if payable:
            order = self.random.choice(payable)
            url = await self._pay_url(order)
            outcome = self.random.choice(["success", "success", "fail"])
            answer = await self.shop.provider.post(f"{url}/pay", json={"outcome": outcome})
            if answer.status_code == 200:
                self.news.append((order, answer.json()))

    async def _pay_url(self, order: dict[str, Any]) -> str | None:
        rows = await self.shop.rows("SELECT pay_url FROM orders WHERE id = %s", order["order_id"])
        return rows[0]["pay_url"] if rows else None

    async def callback(self) -> None:
        """Some callback, perhaps for the third time, perhaps of a wrong amount."""
        if self.news:
            order, payment = self.random.choice(self.news)
            wrong = {"amount_cents": 1} if self.random.random() < 0.1 else {}
            assert (await self.shop.callback(order, payment, **wrong)).status_code == 200

    async def work(self) -> None:
        """One of the workers does a little."""
        shop = self.shop
        await self.random.choice(
            [
                shop.orders.once,
                shop.callbacks.once,
                shop.sweeper.sweep,
                shop.cashier.open_checkouts,
                shop.cashier.poll,
                shop.cashier.refund,
                shop.outbox.send_due,
                shop.keeper.load,
            ]
        )()

    async def expire(self) -> None:
        """Time passes for some open hold."""
        redis = self.shop.parts.redis_durable
        for order_id in (
            self.random.sample(await redis.zrange(keys.HOLDS, 0, -1), k=1)
            if (await redis.zcard(keys.HOLDS))
            else []
        ):
            await redis.zadd(keys.HOLDS, {order_id: 1}, xx=True)

    async def settle(self) -> None:
        """Everything that is due is done."""
        shop = self.shop
        for _ in range(4):
            await shop.drain()
            for due in await shop.parts.stock.due(1000, lease=0):
                await shop.parts.redis_durable.zadd(keys.HOLDS, {due.order_id: 1})
            while await shop.sweeper.sweep():
                pass
            await shop.cashier.open_checkouts()
            await shop.execute("UPDATE orders SET next_poll_at = now()")
            await shop.cashier.poll()
            await shop.execute("UPDATE refunds SET next_attempt_at = now()")
            await shop.cashier.refund()
            await shop.outbox.send_due()


@pytest.mark.parametrize("seed", [1, 2, 3])
async def test_the_books_balance_after_any_history(shop: Any, seed: int) -> None:
    """Orders, payments, duplicates, expiry, recounts at random: the invariants hold, captures are settled."""
    history = History(shop, seed)
    history.buyers = [await shop.session() for _ in range(6)]
    await shop.orders.join()
    await shop.callbacks.join()
    steps = [history.order] * 4 + [history.pay] * 3 + [history.callback] * 3
    steps += [history.work] * 8 + [history.expire] * 2
    for _ in range(300):
        await history.random.choice(steps)()
    await history.settle()
    await shop.check()
    known = {str(row["id"]) for row in await shop.rows("SELECT id FROM orders")}
    assert set(history.accepted) <= known
    ledger = (await shop.provider.get("/payments")).json()["payments"]
    captured = {p["id"]: p for p in ledger if p["outcome"] == "succeeded"}
    recorded = await shop.rows("SELECT * FROM payments WHERE outcome = 'succeeded'")
    assert {row["payment_id"] for row in recorded} == set(captured)
    for row in recorded:
        refunded = captured[row["payment_id"]]["refunded_cents"]
        assert refunded == (row["amount_cents"] if row["disposition"] == "refund" else 0)
    for stream in (keys.ORDERS, keys.CALLBACKS):
        assert await shop.parts.redis_durable.xlen(stream) == 0
