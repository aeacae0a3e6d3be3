"""The Stripe adapter, held to Stripe's documentation: recorded events, signatures, a strict API."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop_backend.config import Settings
from shop_backend.errors import SetupError
from shop_backend.providers import Forged, Irrelevant, Payment, ProviderError, Refunded, Stale
from shop_backend.providers.stripe import StripeProvider
from shop_backend.providers.stripe_amounts import cents_of, smallest_units
from tests.shop_backend.fake_stripe import KEY, SECRET, FakeStripe, recorded, signed
from tests.shop_backend.serving import serve

ORDER = "7b0a4b2e-8b63-4f2a-9d59-0b1c1b7a4f10"
INTENT = "pi_3QOqJ2LkdIwHu7ix0f4kWb1R"
BODY = json.dumps(recorded("checkout.session.completed"))


def provider(
    url: str = "http://127.0.0.1:1", *, secret: str = SECRET, now: float | None = None
) -> StripeProvider:
    """The adapter, at a time."""
    return StripeProvider(
        api_key=KEY,
        webhook_secret=secret,
        public_url="http://shop.test",
        base_url=url,
        clock=time.time if now is None else lambda: now,
    )


# ---- events ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "news"),
    [
        ("checkout.session.completed", Payment("stripe", INTENT, ORDER, "succeeded", 2000, "EUR", "stripe")),
        (
            "checkout.session.async_payment_failed",
            Payment("stripe", INTENT, ORDER, "failed", 2000, "EUR", "stripe"),
        ),
        ("payment_intent.payment_failed", Payment("stripe", INTENT, ORDER, "failed", 2000, "EUR", "stripe")),
        ("refund.updated", Refunded("stripe", INTENT, "refunded")),
        ("checkout.session.expired", Irrelevant("checkout.session.expired")),
    ],
)
def test_recorded_events_are_read(kind: str, news: object) -> None:
    """Each event in the format Stripe documents means what it should."""
    assert provider().read(json.dumps(recorded(kind))) == news


@pytest.mark.parametrize(
    ("changes", "news"),
    [
        ({"payment_status": "unpaid"}, Irrelevant),  # an asynchronous method: another event will tell
        ({"client_reference_id": None}, Irrelevant),  # a session of somebody else in the same account
        ({"payment_intent": None}, Irrelevant),
        ({"amount_total": None}, ValueError),
        ({"amount_total": -1}, ValueError),
        ({"amount_total": "2000"}, ValueError),
        ({"payment_status": "maybe"}, ValueError),
        ({"payment_intent": "pi_\u0000"}, ValueError),
        ({"currency": "bhd", "amount_total": 2001}, ValueError),
    ],
)
def test_other_sessions(changes: dict[str, Any], news: type) -> None:
    """What is not (yet) a payment of ours is passed over; what is not as documented is refused."""
    event = recorded("checkout.session.completed")
    event["data"]["object"] |= changes
    if issubclass(news, Exception):
        with pytest.raises(news):
            provider().read(json.dumps(event))
    else:
        assert isinstance(provider().read(json.dumps(event)), news)


@pytest.mark.parametrize(
    "body", ["", "{}", "[]", "no", '{"type": 1, "data": {}}', '{"type": "refund.updated", "data": []}']
)
def test_nonsense_is_refused(body: str) -> None:
    """What is no event at all."""
    with pytest.raises(ValueError, match="not an event of Stripe"):
        provider().read(body)


@given(currency=st.sampled_from(["eur", "jpy", "krw", "kwd", "usd"]), cents=st.integers(1, 10**9))
def test_amounts_survive_the_way_to_stripe_and_back(currency: str, cents: int) -> None:
    """In every kind of currency: hundredths, whole units, thousandths."""
    code = currency.upper()
    if code in ("JPY", "KRW") and cents % 100:
        with pytest.raises(ProviderError, match="no hundredths"):
            smallest_units(cents, code)
    else:
        assert cents_of(smallest_units(cents, code), code) == cents


# ---- signatures ------------------------------------------------------------------------------


def test_a_signature_made_elsewhere() -> None:
    """`openssl dgst -sha256 -hmac whsec_stripe_endpoint` of `1492774577.{"object":"event"}` agrees."""
    v1 = "46929c02091b313b75b827f90a6a5fd20644614f97616de4bd51b090154e9254"
    header = {"stripe-signature": f"t=1492774577,v1={v1}"}
    provider(now=1492774577).verify(header, b'{"object":"event"}')
    with pytest.raises(Forged):
        provider(now=1492774577).verify(header, b'{"object":"Event"}')


def test_several_signatures_while_a_secret_is_rolled() -> None:
    """One right v1 among several is enough; other schemes never are."""
    good = signed(BODY)["stripe-signature"]
    t, v1, v0 = good.split(",")
    provider().verify({"stripe-signature": f"{t},v1=00,{v1}"}, BODY.encode())
    for bad in (
        f"{t},v0={v1[3:]}",
        f"{t},{v0}",
        v1,
        f"{t},{t},{v1}",
        f"t=,{v1}",
        f"t=-1,{v1}",
        f"t=\u0661,{v1}",
        "",
        ",",
        "=",
    ):
        with pytest.raises(Forged):
            provider().verify({"stripe-signature": bad}, BODY.encode())


def test_old_and_future_signatures_are_stale() -> None:
    """Five minutes either way, then a callback may be a replay."""
    now = 1_732_500_000.0
    for age in (-300, 0, 300):
        provider(now=now).verify(signed(BODY, at=now - age), BODY.encode())
    for age in (-301, 301, 10**9):
        with pytest.raises(Stale):
            provider(now=now).verify(signed(BODY, at=now - age), BODY.encode())


def test_altered_foreign_and_unsigned_callbacks_are_forged() -> None:
    """Another body, another secret, none at all, and no secret of ours."""
    for headers, body in (
        (signed(BODY), BODY.replace("2000", "2001")),
        (signed(BODY, secret="whsec_other"), BODY),
        ({}, BODY),
    ):
        with pytest.raises(Forged):
            provider().verify(headers, body.encode())
    with pytest.raises(Forged, match="SECRET is empty"):
        provider(secret="").verify(signed(BODY, secret=""), BODY.encode())


@given(header=st.text(max_size=80))
def test_no_header_gets_past_or_breaks_it(header: str) -> None:
    """Whatever stands in Stripe-Signature, without the secret it is a forgery."""
    with pytest.raises(Forged):
        provider().verify({"stripe-signature": header}, b"{}")


def test_a_publishable_key_is_a_clear_error() -> None:
    """Which variable is wrong; the key is not shown."""
    with pytest.raises(SetupError, match="TIDEGATE_STRIPE_API_KEY") as raised:
        StripeProvider(api_key="pk_live_x", webhook_secret=SECRET, public_url="http://x")
    assert "pk_live_x" not in str(raised.value)


# ---- the shop on Stripe ----------------------------------------------------------------------


@pytest.fixture
async def stripe() -> AsyncIterator[tuple[FakeStripe, str]]:
    """Stripe's API on a real socket."""
    account = FakeStripe()
    async with serve(account.app()) as url:
        yield account, url


@pytest.fixture
async def shop(
    shop_settings: Settings, start_shop: Any, fill_shop: Any, stripe: tuple[FakeStripe, str]
) -> AsyncIterator[Any]:
    """The tests' shop, whose orders are paid at Stripe."""
    settings = Settings.model_validate(
        shop_settings.model_dump()
        | {
            "provider": "stripe",
            "stripe_api_key": KEY,
            "stripe_webhook_secret": SECRET,
            "stripe_url": stripe[1],
        }
    )
    fill_shop(settings)
    async with start_shop(settings) as running:
        yield running


async def tell(shop: Any, event: dict[str, Any], **signing: Any) -> httpx.Response:
    """Send an event as Stripe does."""
    body = json.dumps(event)
    answer: httpx.Response = await shop.client.post(
        "/callbacks/stripe", content=body.encode(), headers=signed(body, **signing)
    )
    return answer


async def test_paid_at_stripe_and_delivered_once(shop: Any, stripe: tuple[FakeStripe, str]) -> None:
    """Declined, then paid, each told three times and in any order: one delivery."""
    account, _ = stripe
    order = await shop.placed("plain", 2)
    seen = await shop.see(order)
    assert seen["pay_url"].startswith("https://checkout.stripe.example/")
    session = account.session_of(order["order_id"])
    assert (session["amount_total"], session["currency"]) == (2000, "eur")
    assert session["success_url"] == f"http://shop.test/orders/{order['order_id']}"
    declined, paid = account.decline(order["order_id"]), account.pay(order["order_id"])
    for event in (declined, paid, declined, paid, paid, declined):
        assert (await tell(shop, event)).status_code == 200
        await shop.drain()
    assert (await shop.see(order))["status"] == "delivered"
    assert len(await shop.rows("SELECT 1 AS one FROM payments")) == 2
    await shop.check()


async def test_refused_callbacks_store_nothing(shop: Any, stripe: tuple[FakeStripe, str]) -> None:
    """Forged and stale ones 401, nonsense 400, other events 200 without an effect."""
    account, _ = stripe
    order = await shop.placed()
    paid = account.pay(order["order_id"])
    assert (await tell(shop, paid, secret="whsec_other")).status_code == 401
    assert (await tell(shop, paid, at=time.time() - 400)).status_code == 401
    assert (await shop.client.post("/callbacks/stripe", json=paid)).status_code == 401
    assert (await tell(shop, {"type": "checkout.session.completed", "data": {}})).status_code == 400
    assert (await tell(shop, recorded("checkout.session.expired"))).status_code == 200
    # Signed for the sandbox, sent to Stripe's address: another provider's word.
    assert (await shop.send(json.dumps(paid))).status_code == 400
    assert await shop.parts.redis_durable.xlen("{stock}:callbacks") == 0
    assert (await shop.see(order))["status"] == "pending"


async def test_a_lost_callback_is_found_by_asking(shop: Any, stripe: tuple[FakeStripe, str]) -> None:
    """Paid, and no event ever came: the session says so."""
    account, _ = stripe
    order = await shop.placed()
    account.pay(order["order_id"])
    await shop.execute("UPDATE orders SET next_poll_at = now()")
    await shop.cashier.poll()
    assert (await shop.see(order))["status"] == "delivered"
    await shop.check()


async def test_asking_again_opens_no_second_session(shop: Any, stripe: tuple[FakeStripe, str]) -> None:
    """Answers that are lost, and workers that die before they write: one session an order."""
    account, _ = stripe
    account.trouble = [503, 500]
    answer = await shop.order()
    order = answer.json()
    await shop.drain()
    for _ in range(2):
        with pytest.raises(ProviderError, match="api_error"):
            await shop.cashier.open_checkouts()
        await shop.execute("UPDATE orders SET next_checkout_at = now()")
    assert await shop.cashier.open_checkouts() == 1
    assert len(account.sessions) == 1
    row = await shop.row("SELECT * FROM orders")
    assert row["checkout_id"] == account.session_of(order["order_id"])["id"]
    again = await shop.parts.provider.checkout(row)
    assert (again.checkout_id, again.url) == (row["checkout_id"], row["pay_url"])


async def test_an_expired_order_can_be_paid_no_more(shop: Any, stripe: tuple[FakeStripe, str]) -> None:
    """Soon after the hold is over its session is expired at Stripe, too; one that was paid stays."""
    account, _ = stripe
    left, paid = await shop.placed(), await shop.placed()
    await shop.expire(left)
    await shop.expire(paid)
    account.pay(paid["order_id"])
    for _ in range(2):
        await shop.execute("UPDATE orders SET next_poll_at = now()")
        await shop.cashier.poll()
    assert account.session_of(left["order_id"])["status"] == "expired"
    assert (await shop.see(left))["status"] == "expired"
    assert (await shop.see(paid))["status"] == "delivered"
    await shop.check()


async def ask_at_last(shop: Any) -> None:
    """The time to ask about expired orders is over; whoever is still to be asked about is due."""
    await shop.execute("UPDATE orders SET closed_at = now() - interval '2 hours' WHERE state = 'expired'")
    await shop.execute(
        "UPDATE orders SET next_poll_at = now() WHERE state = 'expired' AND next_poll_at < '9000-01-01'"
    )
    await shop.cashier.poll()


@pytest.mark.parametrize("trouble", [[503], [200, 503]])
async def test_the_last_question_is_asked_until_it_is_answered(
    shop: Any, stripe: tuple[FakeStripe, str], trouble: list[int]
) -> None:
    """Stripe is away when an expired order is asked about for the last time: its capture is found later."""
    account, _ = stripe
    order = await shop.placed()
    await shop.expire(order)
    account.pay(order["order_id"])
    account.trouble = trouble
    with pytest.raises(ProviderError):
        await ask_at_last(shop)
    assert (await shop.see(order))["status"] == "expired"
    await ask_at_last(shop)
    assert (await shop.see(order))["status"] == "delivered"
    await shop.check()


async def test_what_was_answered_at_last_is_asked_no_more(shop: Any, stripe: tuple[FakeStripe, str]) -> None:
    """Nothing was paid, and the session is expired: nothing will be."""
    account, _ = stripe
    order = await shop.placed()
    await shop.expire(order)
    await ask_at_last(shop)
    assert account.session_of(order["order_id"])["status"] == "expired"
    await ask_at_last(shop)
    assert (await shop.row("SELECT polls FROM orders"))["polls"] == 1


@pytest.mark.parametrize("outcome", ["succeeded", "requires_payment_method"])
async def test_a_bank_debit_under_way_is_asked_about_until_it_is_decided(
    shop: Any, stripe: tuple[FakeStripe, str], outcome: str
) -> None:
    """Its event is lost, and it takes longer than expired orders are asked about."""
    account, _ = stripe
    order = await shop.placed()
    account.begin(order["order_id"])
    await shop.expire(order)
    for _ in range(3):
        await ask_at_last(shop)
    assert (await shop.see(order))["status"] == "expired"
    account.decide(order["order_id"], outcome)
    await ask_at_last(shop)
    assert (await shop.see(order))["status"] == ("delivered" if outcome == "succeeded" else "expired")
    polls = (await shop.row("SELECT polls FROM orders"))["polls"]
    await ask_at_last(shop)
    assert (await shop.row("SELECT polls FROM orders"))["polls"] == polls == 4
    await shop.check()


async def late(shop: Any, account: FakeStripe) -> dict[str, Any]:
    """An order that was paid after its card went to somebody else."""
    order: dict[str, Any] = await shop.placed("single")
    await shop.expire(order)
    assert (await shop.order("single")).status_code == 202
    await shop.drain()
    await tell(shop, account.pay(order["order_id"]))
    await shop.drain()
    assert (await shop.see(order))["status"] == "refunding"
    return order


async def refund_again(shop: Any) -> None:
    """Let the refunds be due, and look after them."""
    await shop.execute("UPDATE refunds SET next_attempt_at = now()")
    await shop.cashier.refund()


async def test_paid_late_goes_back_once(shop: Any, stripe: tuple[FakeStripe, str]) -> None:
    """Answers are lost: however often we ask, one refund of the whole amount."""
    account, _ = stripe
    order = await late(shop, account)
    account.trouble = [500, 503]
    for _ in range(2):
        with pytest.raises(ProviderError):
            await refund_again(shop)
    for _ in range(2):
        account.answered.clear()  # as after a day: the key is forgotten
        await refund_again(shop)
    assert [(r["amount"], r["status"]) for r in account.refunds] == [(1000, "succeeded")]
    assert (await shop.see(order))["status"] == "refunded"
    await shop.check()


@pytest.mark.parametrize("told", ["by callback", "by asking"])
async def test_a_refund_that_takes_days(shop: Any, stripe: tuple[FakeStripe, str], told: str) -> None:
    """It is refunded when the bank says so, not when Stripe took it."""
    account, _ = stripe
    account.refund_status = "pending"
    order = await late(shop, account)
    for _ in range(2):
        await refund_again(shop)
    assert (await shop.row("SELECT state FROM refunds"))["state"] == "requested"
    assert (await shop.see(order))["status"] == "refunding"
    event = account.settle_refund("succeeded")
    for _ in range(2):
        if told == "by callback":
            await tell(shop, event)
            await shop.drain()
        else:
            await refund_again(shop)
    assert (await shop.see(order))["status"] == "refunded"
    assert len(account.refunds) == 1
    await shop.check()


async def test_a_refund_that_fails_waits_for_an_operator(shop: Any, stripe: tuple[FakeStripe, str]) -> None:
    """The bank sends it back: seen, not asked for again by itself, and done when an operator says so."""
    account, _ = stripe
    account.refund_status = "pending"
    order = await late(shop, account)
    await refund_again(shop)
    await tell(shop, account.settle_refund("failed"))
    await shop.drain()
    await refund_again(shop)
    assert (await shop.row("SELECT state FROM refunds"))["state"] == "failed"
    assert (await shop.see(order))["status"] == "refunding"
    account.refund_status = "succeeded"
    await shop.execute("UPDATE refunds SET state = 'pending'")  # what `tidegate refunds --retry` does
    await refund_again(shop)
    assert [r["status"] for r in account.refunds] == ["failed", "succeeded"]
    assert (await shop.see(order))["status"] == "refunded"
    await shop.check()


async def test_orders_keep_their_provider(shop: Any, stripe: tuple[FakeStripe, str]) -> None:
    """After a change of provider the older orders are still asked about where they were opened."""
    account, _ = stripe
    older, newer = await shop.placed(), await shop.placed()
    checkout = await shop.parts.providers["sandbox"].checkout(
        await shop.row("SELECT * FROM orders WHERE id = %s", older["order_id"])
    )
    await shop.execute(
        "UPDATE orders SET provider = 'sandbox', checkout_id = %s, pay_url = %s WHERE id = %s",
        checkout.checkout_id,
        checkout.url,
        older["order_id"],
    )
    await shop.pay(older)
    account.pay(newer["order_id"])
    await shop.execute("UPDATE orders SET next_poll_at = now()")
    await shop.cashier.poll()
    assert [(await shop.see(order))["status"] for order in (older, newer)] == ["delivered"] * 2


async def test_what_stripe_refuses_names_no_secret() -> None:
    """An error carries Stripe's type and code, not what was sent; a dead line is one, too."""
    account = FakeStripe()
    async with serve(account.app()) as url:
        row = {
            "id": ORDER,
            "quantity": 1,
            "amount_cents": 1000,
            "currency": "EUR",
            "email": "who@example.com",
            "sku": "plain",
            "created_at": datetime.now(UTC),
            "expires_at": datetime.fromtimestamp(0, UTC),
        }
        adapter = provider(url)
        with pytest.raises(ProviderError, match="400 invalid_request_error expires_at") as raised:
            await adapter.checkout(row)
        assert "who@" not in str(raised.value)
        await adapter.close()
    adapter = provider(url)
    with pytest.raises(ProviderError, match="ConnectError"):
        await adapter.refund("pi_1", 100, "EUR")
    await adapter.close()
