"""Random histories of a whole shop: whatever happens in whatever order, the books balance at the end."""

from __future__ import annotations

import random
from typing import Any

import pytest

from shop_backend.config import Settings
from shop_backend.providers import ProviderError
from shop_backend.stock import keys


@pytest.fixture
def shop_settings(shop_settings: Settings) -> Settings:
    """Polls come due when the history says so, not by the clock."""
    workers = shop_settings.workers.model_copy(update={"poll_after": 3600.0})
    return shop_settings.model_copy(update={"workers": workers})


class History:
    """Buyers, a provider and workers that do things at random.

    Its choices depend on the seed and on what was answered: never on ids, which are new in every run, nor
    on how fast the machine is.
    """

    def __init__(self, shop: Any, seed: int) -> None:
        self.shop = shop
        self.random = random.Random(seed)
        self.buyers: list[dict[str, str]] = []
        self.accepted: dict[str, dict[str, Any]] = {}
        self.news: list[tuple[dict[str, Any], dict[str, Any]]] = []
        self.over: set[str] = set()  # orders whose hold's time is over

    async def run(self, steps: int) -> None:
        """Do so much."""
        self.buyers = [await self.shop.session() for _ in range(6)]
        await self.shop.orders.join()
        await self.shop.callbacks.join()
        choices = [self.order] * 4 + [self.pay] * 3 + [self.callback] * 3 + [self.work] * 8
        choices += [self.expire] * 2 + [self.wait, self.grow_old]
        for _ in range(steps):
            await self.random.choice(choices)()

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
        """A buyer pays, or is declined, late or in time; no callback yet, unless the shop asks no more."""
        payable = [o for o in self.accepted.values() if (await self._row(o))["pay_url"]]
        if payable:
            order = self.random.choice(payable)
            row = await self._row(order)
            outcome = self.random.choice(["success", "success", "fail"])
            answer = await self.shop.provider.post(f"{row['pay_url']}/pay", json={"outcome": outcome})
            if answer.status_code == 200:
                self.news.append((order, answer.json()))
                if not row["asked_for"]:
                    assert (await self.shop.callback(order, answer.json())).status_code == 200

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
                self.sweep,
                shop.cashier.open_checkouts,
                self.poll,
                shop.cashier.refund,
                shop.outbox.send_due,
                shop.keeper.load,
            ]
        )()

    async def poll(self) -> None:
        """Lost callbacks are looked for; now and then the provider gives no answer."""
        away = self.random.random() < 0.3
        if away:
            await self.shop.execute("UPDATE orders SET provider = 'away'")
        try:
            await self.shop.cashier.poll()
        except ProviderError:
            assert away
        await self.shop.execute("UPDATE orders SET provider = 'sandbox'")

    async def sweep(self) -> None:
        """Holds whose time is over end, also those that another sweeper had in hand."""
        redis = self.shop.parts.redis_durable
        for order_id in self.over:
            await redis.zadd(keys.HOLDS, {order_id: 1}, xx=True)
        await self.shop.sweeper.sweep()
        await self.shop.execute("UPDATE orders SET next_poll_at = 'tomorrow' WHERE next_poll_at > now()")

    async def expire(self) -> None:
        """Time passes for some open hold."""
        redis = self.shop.parts.redis_durable
        held = [each for each in self.accepted if await redis.zscore(keys.HOLDS, each) is not None]
        if held:
            self.over.add(self.random.choice(held))

    async def wait(self) -> None:
        """It is time to ask about some orders."""
        for order_id in list(self.accepted):
            if self.random.random() < 0.3:
                await self.shop.execute(
                    "UPDATE orders SET next_poll_at = now() WHERE id = %s AND next_poll_at < '9000-01-01'",
                    order_id,
                )

    async def grow_old(self) -> None:
        """It is time to ask about some expired orders for the last time."""
        for order_id in list(self.accepted):
            if self.random.random() < 0.3:
                await self.shop.execute(
                    "UPDATE orders SET closed_at = now() - interval '2 hours', next_poll_at = now()"
                    " WHERE id = %s AND state = 'expired' AND next_poll_at < '9000-01-01'",
                    order_id,
                )

    async def settle(self) -> None:
        """Everything that is due is done."""
        shop = self.shop
        for _ in range(4):
            await shop.drain()
            await self.sweep()
            await shop.cashier.open_checkouts()
            await shop.execute("UPDATE orders SET next_poll_at = now() WHERE next_poll_at < '9000-01-01'")
            while await shop.cashier.poll():
                pass
            await shop.execute("UPDATE refunds SET next_attempt_at = now()")
            while await shop.cashier.refund():
                pass
            while await shop.outbox.send_due():
                pass

    async def _row(self, order: dict[str, Any]) -> dict[str, Any]:
        rows = await self.shop.rows(
            "SELECT pay_url, state = 'pending' OR next_poll_at < '9000-01-01' AS asked_for"
            " FROM orders WHERE id = %s",
            order["order_id"],
        )
        return dict(rows[0]) if rows else {"pay_url": None}


async def _forgotten(shop: Any, captured: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    """Captures that were not recorded, each with all that the shop knows of its order."""
    recorded = {row["payment_id"] for row in await shop.rows("SELECT payment_id FROM payments")}
    lost = []
    for payment_id in captured.keys() - recorded:
        of = captured[payment_id]["order_id"]
        lost.append(
            {
                "payment": captured[payment_id],
                "order": await shop.rows("SELECT * FROM orders WHERE id = %s", of),
                "events": await shop.rows("SELECT * FROM order_events WHERE order_id = %s ORDER BY id", of),
                "dead letters": await shop.rows("SELECT * FROM dead_letters WHERE order_id = %s", of),
                "payments": await shop.rows("SELECT * FROM payments WHERE order_id = %s", of),
            }
        )
    return lost


@pytest.mark.parametrize("seed", range(1, 9))
async def test_the_books_balance_after_any_history(shop: Any, seed: int) -> None:
    """Orders, payments, duplicates, expiry, recounts at random: the invariants hold, captures are settled."""
    history = History(shop, seed)
    await history.run(300)
    await history.settle()
    await shop.check()
    known = {str(row["id"]) for row in await shop.rows("SELECT id FROM orders")}
    assert set(history.accepted) <= known
    ledger = (await shop.provider.get("/payments")).json()["payments"]
    captured = {p["id"]: p for p in ledger if p["outcome"] == "succeeded"}
    assert await _forgotten(shop, captured) == []
    for row in await shop.rows("SELECT * FROM payments WHERE outcome = 'succeeded'"):
        refunded = captured[row["payment_id"]]["refunded_cents"]
        assert refunded == (row["amount_cents"] if row["disposition"] == "refund" else 0)
    for stream in (keys.ORDERS, keys.CALLBACKS):
        assert await shop.parts.redis_durable.xlen(stream) == 0
