"""Callbacks forged, doubled, permuted, early, late, lost: each capture delivers once or goes back once."""

from __future__ import annotations

import contextlib
import itertools
import json
import sqlite3
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from shop_backend.config import Settings
from shop_backend.providers import Forged, ProviderError
from shop_backend.providers.sandbox import SandboxProvider
from shop_backend.stock import keys


async def states(shop: Any, order: Any) -> list[str]:
    """The order's history."""
    rows = await shop.rows(
        "SELECT to_state FROM order_events WHERE order_id = %s ORDER BY id", order["order_id"]
    )
    return [row["to_state"] for row in rows]


# ---- at the door -----------------------------------------------------------------------------


async def test_forged_and_stale_callbacks_store_nothing(shop: Any) -> None:
    """Wrong key, altered body, garbage signatures, old and future timestamps: 401, the stream stays empty."""
    order = await shop.placed()
    payment = await shop.pay(order)
    body = json.dumps({"type": "payment.succeeded", "data": {"payment_id": payment["id"]}})
    other = "whsec_" + "b3RoZXJvdGhlcm90aGVyb3RoZXI="
    now = datetime.now(UTC)
    refused = [
        await shop.send(body, secret=other),
        await shop.send(body, sign=""),
        await shop.send(body, sign="v1"),
        await shop.send(body, sign="v1,!!!"),
        await shop.send(body, sign="v1,AAAA v2,BBBB"),
        await shop.send(body, at=now - timedelta(minutes=6)),
        await shop.send(body, at=now + timedelta(minutes=6)),
        await shop.client.post("/callbacks/sandbox", content=body),
        await shop.client.post(
            "/callbacks/sandbox",
            content=b"\xff",
            headers={"webhook-id": "1", "webhook-timestamp": "nan", "webhook-signature": "v1,AAAA"},
        ),
    ]
    assert [answer.status_code for answer in refused] == [401] * len(refused)
    assert await shop.parts.redis_durable.xlen(keys.CALLBACKS) == 0
    assert (await shop.see(order))["status"] == "pending"


async def test_an_empty_secret_refuses_everything(shop_settings: Settings) -> None:
    """Without a secret nobody can be told from the provider, so nobody is."""
    unset = shop_settings.model_copy(update={"sandbox_secret": None})
    provider = SandboxProvider(unset)
    with pytest.raises(Forged, match="SECRET is empty"):
        provider.verify({"webhook-timestamp": "1"}, b"{}")
    await provider.close()


TEXTS = ("currency", "channel", "payment_id", "order_id")
BAD = ["a\x00b", "E\x00R", "", "x" * 101, "a b", "\u2028", "\ud800"]


def _event(**changes: Any) -> str:
    data = {"payment_id": "p", "order_id": "o", "amount_cents": 1, "currency": "EUR", "channel": "sandbox"}
    return json.dumps({"type": "payment.succeeded", "data": data | changes})


async def test_signed_nonsense_is_refused(shop: Any) -> None:
    """Signed but unreadable: 400, so that the provider notices; nothing is queued."""
    for body in (
        "{}",
        "[]",
        "no",
        '{"type": "other", "data": {}}',
        '{"type": "payment.succeeded", "data": 1}',
        *(
            _event(**{name: value})
            for name in ("currency", "channel", "payment_id", "order_id")
            for value in BAD
        ),
        _event(currency="eur"),
        _event(amount_cents=2**53),
    ):
        assert (await shop.send(body)).status_code == 400, body
    assert await shop.parts.redis_durable.xlen(keys.CALLBACKS) == 0


# ---- doubled and permuted --------------------------------------------------------------------


async def test_duplicates_deliver_once(shop: Any) -> None:
    """The same success ten times, before and after handling: 200 each time, one delivery, one mail."""
    order = await shop.placed("plain", 2)
    payment = await shop.pay(order)
    for _ in range(2):
        for _ in range(5):
            assert (await shop.callback(order, payment)).status_code == 200
        await shop.drain()
    assert await states(shop, order) == ["pending", "paid", "delivered"]
    assert len(await shop.rows("SELECT 1 AS one FROM outbox")) == 2
    await shop.check()


async def test_any_order_of_news_ends_in_delivery(shop: Any) -> None:
    """Failed, failed again and success, in each of their orders and twice each: delivered."""
    for order_of_news in itertools.permutations(range(3)):
        order = await shop.placed()
        news = [await shop.pay(order, outcome) for outcome in ("fail", "fail", "success")]
        for position in (*order_of_news, *order_of_news):
            await shop.callback(order, news[position])
            await shop.drain()
        assert (await shop.see(order))["status"] == "delivered"
        assert len(await shop.rows("SELECT * FROM payments WHERE order_id = %s", order["order_id"])) == 3
    await shop.check()


async def test_an_early_failure_does_not_hide_the_success_of_the_same_payment(shop: Any) -> None:
    """The dedupe key has the outcome in it."""
    order = await shop.placed()
    payment = await shop.pay(order)
    await shop.callback(order, payment | {"outcome": "failed"})
    await shop.drain()
    assert (await shop.see(order))["status"] == "pending"
    await shop.callback(order, payment)
    await shop.drain()
    assert (await shop.see(order))["status"] == "delivered"


async def test_a_second_capture_is_refunded_once(shop: Any) -> None:
    """Another payment for an order that is paid: the order stays delivered, the money goes back."""
    order = await shop.placed()
    payment = await shop.pay(order)
    await shop.callback(order, payment)
    for _ in range(3):
        await shop.callback(order, payment, payment_id="pay_second")
        await shop.drain()
    assert (await shop.see(order))["status"] == "delivered"
    refund = await shop.row("SELECT * FROM refunds")
    assert (refund["payment_id"], refund["amount_cents"], refund["state"]) == ("pay_second", 1000, "pending")
    await shop.check()


@pytest.mark.parametrize(
    "change",
    [
        {"amount_cents": 999},
        {"amount_cents": 1001},
        {"amount_cents": 0},
        {"currency": "USD"},
        {"channel": "x"},
    ],
)
async def test_another_amount_currency_or_channel_delivers_nothing(shop: Any, change: dict[str, Any]) -> None:
    """A signed success that is not what was ordered goes to the dead letters; the real one still counts."""
    order = await shop.placed()
    payment = await shop.pay(order)
    await shop.callback(order, payment, **change)
    await shop.drain()
    assert (await shop.see(order))["status"] == "pending"
    letter = await shop.row("SELECT * FROM dead_letters")
    assert str(letter["order_id"]) == order["order_id"]
    # The provider is asked at once what really happened.
    await shop.cashier.poll()
    assert (await shop.see(order))["status"] == "delivered"
    await shop.check()


# ---- early, late, lost -----------------------------------------------------------------------


async def test_a_callback_before_its_order_waits_for_it(shop: Any) -> None:
    """Handled before the order's row is there, it is parked, and delivers once the row is."""
    order = (await shop.order()).json()
    payment = {"id": "pay_1", "amount_cents": 1000, "currency": "EUR", "outcome": "succeeded"}
    await shop.callback(order, payment)
    await shop.callbacks.join()
    for _ in range(8):  # more often than an entry may fail
        await shop.callbacks.once()
    assert await shop.rows("SELECT 1 AS one FROM dead_letters") == []
    await shop.drain()
    assert (await shop.see(order))["status"] == "delivered"
    await shop.check()


async def test_paid_late_is_delivered_from_other_stock(shop: Any) -> None:
    """Expired, then paid: cards of the free stock, and Redis counts them."""
    order = await shop.placed("plain", 2)
    await shop.expire(order)
    assert (await shop.see(order))["status"] == "expired"
    await shop.check()
    await shop.callback(order, await shop.pay(order))
    await shop.drain()
    assert await states(shop, order) == ["pending", "expired", "paid", "delivered"]
    assert (await shop.snapshot()).free["plain"] == 48
    await shop.check()


async def test_paid_late_without_stock_is_refunded_once(shop: Any) -> None:
    """Expired, sold to another, then paid: the money goes back, however often we hear and try."""
    order = await shop.placed("single")
    await shop.expire(order)
    other = await shop.placed("single")
    payment = await shop.pay(order)
    for _ in range(3):
        await shop.callback(order, payment)
        await shop.drain()
    assert (await shop.see(order))["status"] == "refunding"
    await shop.check()
    for _ in range(3):
        await shop.execute("UPDATE refunds SET next_attempt_at = now()")
        await shop.cashier.refund()
    assert (await shop.see(order))["status"] == "refunded"
    ledger = (await shop.provider.get("/payments")).json()["payments"]
    assert [p["refunded_cents"] for p in ledger] == [1000]
    await shop.callback(other, await shop.pay(other))
    await shop.drain()
    assert (await shop.see(other))["status"] == "delivered"
    assert await states(shop, order) == ["pending", "expired", "paid", "refunding", "refunded"]
    await shop.check()


async def test_paid_late_over_the_cap_is_refunded(shop: Any) -> None:
    """Who bought again after expiry gets no second card of a product with cap 1."""
    buyer = await shop.session()
    first = await shop.placed("flash", headers=buyer)
    await shop.expire(first)
    second = await shop.placed("flash", headers=buyer)
    await shop.callback(first, await shop.pay(first))
    await shop.callback(second, await shop.pay(second))
    await shop.drain()
    assert (await shop.see(first))["status"] == "refunding"
    assert (await shop.see(second))["status"] == "delivered"
    await shop.check()


async def test_locked_cards_are_waited_for_not_refunded(shop: Any) -> None:
    """Finding none while the last card is locked by a transaction that then rolls back: no refund."""
    order = await shop.placed("single")
    await shop.expire(order)
    payment = await shop.pay(order)
    url = shop.settings.require("database_url")
    async with await psycopg.AsyncConnection.connect(url) as other:
        await other.execute("SELECT id FROM cards WHERE sku = 'single' FOR UPDATE")
        await shop.callback(order, payment)
        await shop.callbacks.join()
        for _ in range(8):
            await shop.callbacks.once()
        assert (await shop.see(order))["status"] == "expired"
        assert await shop.rows("SELECT 1 AS one FROM refunds") == []
        await other.rollback()
    await shop.drain()
    assert (await shop.see(order))["status"] == "delivered"
    await shop.check()


@pytest.mark.parametrize("expired", [False, True])
async def test_a_lost_callback_is_found_by_asking(shop: Any, expired: bool) -> None:
    """Unpaid and just-expired orders are polled at the provider."""
    order = await shop.placed()
    await shop.pay(order)
    if expired:
        await shop.expire(order)
    await shop.execute("UPDATE orders SET next_poll_at = now()")
    assert await shop.cashier.poll() == 1
    assert (await shop.see(order))["status"] == "delivered"
    assert await shop.cashier.poll() == 0
    await shop.check()


async def test_every_unpaid_order_is_asked_about_though_a_round_is_full(shop: Any) -> None:
    """More orders are due than one round asks about, all since the same moment: each gets its turn."""
    orders = [await shop.placed() for _ in range(45)]
    await shop.pay(orders[-1])
    await shop.execute("UPDATE orders SET next_poll_at = now()")
    asked = [await shop.cashier.poll() for _ in range(4)]
    assert asked == [20, 20, 5, 0]
    assert (await shop.see(orders[-1]))["status"] == "delivered"


async def test_a_capture_after_thousands_of_declined_payments_is_found_by_asking(shop: Any) -> None:
    """However long the list of an order's payments, its capture is in the provider's answer."""
    order = await shop.placed()
    checkout = (await shop.row("SELECT checkout_id FROM orders"))["checkout_id"]
    with contextlib.closing(sqlite3.connect(shop.settings.data_dir / "sandbox.sqlite3")) as books, books:
        books.executemany(
            "INSERT INTO payments (id, checkout_id, outcome, created_at) VALUES (?, ?, 'failed', 0)",
            [(f"pay_{number}", checkout) for number in range(5000)],
        )
    await shop.pay(order)
    await shop.execute("UPDATE orders SET next_poll_at = now()")
    await shop.cashier.poll()
    assert (await shop.see(order))["status"] == "delivered"
    await shop.check()


async def test_a_last_question_that_finds_cards_locked_is_asked_again(shop: Any) -> None:
    """The last card is locked by a transaction that then rolls back: delivered when asked again."""
    order = await shop.placed("single")
    await shop.expire(order)
    await shop.pay(order)
    url = shop.settings.require("database_url")
    async with await psycopg.AsyncConnection.connect(url) as other:
        await other.execute("SELECT id FROM cards WHERE sku = 'single' FOR UPDATE")
        await shop.execute("UPDATE orders SET closed_at = now() - interval '2 hours', next_poll_at = now()")
        assert await shop.cashier.poll() == 1
        assert (await shop.see(order))["status"] == "expired"
        await other.rollback()
    await shop.execute("UPDATE orders SET next_poll_at = now() WHERE next_poll_at < '9000-01-01'")
    assert await shop.cashier.poll() == 1
    assert (await shop.see(order))["status"] == "delivered"
    await shop.check()


@pytest.mark.parametrize("asked_by", ["callback", "poll"])
async def test_a_checkout_opened_by_somebody_else_is_given_back(shop: Any, asked_by: str) -> None:
    """Somebody opens the order's checkout for one cent and pays it: refunded once, nothing delivered."""
    order = (await shop.order()).json()
    checkout = await shop.provider.post(
        "/checkouts",
        json={
            "order_id": order["order_id"],
            "amount_cents": 1,
            "currency": "EUR",
            "callback_url": "http://127.0.0.1:1/callbacks/sandbox",
            "return_url": "http://shop.test/",
        },
    )
    paid = await shop.provider.post(f"/checkouts/{checkout.json()['id']}/pay", json={"outcome": "success"})
    await shop.drain()
    with pytest.raises(ProviderError, match="409"):
        await shop.cashier.open_checkouts()
    if asked_by == "callback":
        await shop.callback(order, paid.json())
        await shop.drain()
    else:
        await shop.execute("UPDATE orders SET next_poll_at = now()")
    for _ in range(3):
        await shop.cashier.poll()
        await shop.execute("UPDATE orders SET next_poll_at = now()")
        await shop.execute("UPDATE refunds SET next_attempt_at = now()")
        await shop.cashier.refund()
    recorded = await shop.rows("SELECT payment_id, disposition, amount_cents FROM payments")
    assert recorded == [{"payment_id": paid.json()["id"], "disposition": "refund", "amount_cents": 1}]
    assert [row["state"] for row in await shop.rows("SELECT state FROM refunds")] == ["refunded"]
    (booked,) = (await shop.provider.get("/payments")).json()["payments"]
    assert booked["refunded_cents"] == 1
    assert (await shop.see(order))["status"] == "pending"
    await shop.expire(order)
    assert await shop.rows("SELECT 1 AS one FROM deliveries") == []
    await shop.check()


async def test_refused_checkouts_do_not_starve_the_others(shop: Any) -> None:
    """More orders than a round takes, all refused for good: the next order gets its checkout."""
    refused = [(await shop.order("flash")).json() for _ in range(55)]
    await shop.drain()
    await shop.execute("UPDATE orders SET currency = 'no'")
    for _ in range(2):
        with pytest.raises(ProviderError):
            await shop.cashier.open_checkouts()
    order = (await shop.order()).json()
    await shop.drain()
    await shop.execute(
        "UPDATE orders SET next_checkout_at = now() + interval '1 minute' WHERE currency = 'no'"
    )
    assert await shop.cashier.open_checkouts() == 1
    assert "pay_url" in await shop.see(order)
    tries = await shop.rows("SELECT checkout_tries FROM orders WHERE currency = 'no'")
    assert {row["checkout_tries"] for row in tries} <= {1, 2}
    assert len(tries) == len(refused)


async def test_one_order_has_one_checkout(shop: Any) -> None:
    """Two workers opening checkouts at once, and a GET in between, make one."""
    order = (await shop.order()).json()
    await shop.drain()
    row = (await shop.rows("SELECT * FROM orders"))[0]
    first = await shop.parts.provider.checkout(row)
    await shop.cashier.open_checkouts()
    assert (await shop.see(order))["pay_url"] == first.url


async def test_delivered_but_not_confirmed_is_put_right_by_the_sweeper(shop: Any) -> None:
    """A worker killed between its commit and the confirmation: the hold comes due and is confirmed."""
    order = await shop.placed()
    payment = await shop.pay(order)
    await shop.callback(order, payment)
    epoch, shop.parts.stock.epoch = shop.parts.stock.epoch, -1  # its confirmation comes to nothing
    await shop.drain()
    shop.parts.stock.epoch = epoch
    assert (await shop.parts.stock.hold(order["order_id"]))["state"] == "held"
    await shop.check()
    await shop.expire(order)
    assert (await shop.parts.stock.hold(order["order_id"]))["state"] == "confirmed"
    assert (await shop.see(order))["status"] == "delivered"
    await shop.check()
