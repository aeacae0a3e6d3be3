"""Language and telephone number: from body, session or browser, by the order, to the letter."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop_backend.contact import language_of
from shop_backend.letters import LANGUAGES


async def _buy(shop: Any, session: dict[str, str], *, key: str = "", **more: Any) -> Any:
    headers = {**session, "idempotency-key": key or uuid.uuid4().hex, **more.pop("headers", {})}
    body = {"sku": "plain", "quantity": 1, "email": "buyer@example.com", **more}
    return await shop.client.post("/api/orders", json=body, headers=headers)


async def _delivered(shop: Any, answer: Any) -> None:
    assert answer.status_code == 202, answer.text
    await shop.drain()
    await shop.cashier.open_checkouts()
    await shop.callback(answer.json(), await shop.pay(answer.json()))
    await shop.drain()


async def _told(shop: Any) -> list[dict[str, Any]]:
    return list(
        await shop.rows(
            "SELECT b.channel, b.recipient, o.language, o.phone FROM outbox b"
            " JOIN orders o ON o.id = b.order_id ORDER BY b.id"
        )
    )


async def test_a_browser_s_language_reaches_the_letter(shop: Any) -> None:
    """Accept-Language says Chinese: so is the mail, which nothing else had asked for."""
    answer = await _buy(shop, await shop.session(), headers={"accept-language": "zh-CN,zh;q=0.9,en;q=0.8"})
    await _delivered(shop, answer)
    await shop.outbox.send_due()

    ((to, message),) = shop.mailbox.sent
    assert to == "buyer@example.com"
    assert message.subject == "您的 Plain 卡密已发货"


async def test_the_body_beats_the_session_and_the_session_the_browser(shop: Any) -> None:
    """What is said nearest to the order counts; a number is written as text message gateways take it."""
    guest = await shop.session()
    kept = await shop.client.put(
        "/api/me/contact", json={"language": "zh", "phone": "+49 (30) 123-456"}, headers=guest
    )
    assert kept.json() == {"email": None, "phone": "+4930123456", "language": "zh"}
    session = {"cookie": f"session={kept.cookies['session']}"}
    shop.client.cookies.clear()
    english = {"accept-language": "en"}

    await _delivered(shop, await _buy(shop, session, headers=english))
    await _delivered(shop, await _buy(shop, session, headers=english, language="en", phone=""))
    await _delivered(shop, await _buy(shop, session, headers=english, phone="+86 10 12345678"))

    told = [(row["channel"], row["recipient"], row["language"], row["phone"]) for row in await _told(shop)]
    assert told == [
        ("mail", "buyer@example.com", "zh", "+4930123456"),
        ("sms", "+4930123456", "zh", "+4930123456"),
        ("mail", "buyer@example.com", "en", ""),
        ("mail", "buyer@example.com", "zh", "+861012345678"),
        ("sms", "+861012345678", "zh", "+861012345678"),
    ]
    await shop.check()


async def test_a_contact_is_shown_changed_and_forgotten(shop: Any) -> None:
    """What is left out stays, "" is forgotten; only with a session, only what can be reached."""
    begun = await shop.client.post(
        "/api/session", json={"email": "a@b.example", "phone": "+4930123456", "language": "zh"}
    )
    assert begun.status_code == 201
    assert (await shop.client.get("/api/me/contact")).json() == {
        "email": "a@b.example",
        "phone": "+4930123456",
        "language": "zh",
    }
    forgotten = await shop.client.put("/api/me/contact", json={"phone": ""})
    assert forgotten.json() == {"email": "a@b.example", "phone": None, "language": "zh"}
    assert forgotten.headers["cache-control"] == "no-store"
    for wrong in (
        {"phone": "030123456"},
        {"phone": "+0301234567"},
        {"phone": 4930123456},
        {"language": "fr"},
    ):
        refused = await shop.client.put("/api/me/contact", json=wrong)
        assert refused.status_code == 422
        assert not re.search(r"\^|\$|[Ii]nput|[Ss]tring", refused.json()["detail"])
    number = await shop.client.put("/api/me/contact", json={"phone": "12345"})
    words = "phone: must begin with + and the country code, for example +49 30 123456"
    assert number.json()["detail"] == words
    shop.client.cookies.clear()
    assert (await shop.client.get("/api/me/contact")).status_code == 401
    assert (await shop.client.put("/api/me/contact", json={})).status_code == 401


async def test_a_repeated_order_with_another_number_is_another_body(shop: Any) -> None:
    """409, also after the stock was loaded anew; the same body gets the same order, whatever the browser."""
    session = await shop.session()
    first = await _buy(shop, session, key="one", phone="+4930123456")
    await shop.drain()
    for _ in range(2):
        browser = {"accept-language": "zh"}
        again = await _buy(shop, session, key="one", phone="+49 30 123456", headers=browser)
        assert again.json()["order_id"] == first.json()["order_id"]
        assert (await _buy(shop, session, key="one", phone="+4930123457")).status_code == 409
        assert (await _buy(shop, session, key="one")).status_code == 409
        assert (await _buy(shop, session, key="one", phone="+4930123456", language="zh")).status_code == 409
        await shop.parts.redis_durable.flushall()
        await shop.keeper.check()


async def test_without_the_session_s_redis_the_order_goes_without_a_number(shop: Any) -> None:
    """A number that can't be looked up costs a text message, never the order."""
    guest = await shop.session()
    kept = await shop.client.put("/api/me/contact", json={"phone": "+4930123456"}, headers=guest)
    session = {"cookie": f"session={kept.cookies['session']}"}
    shop.client.cookies.clear()
    await shop.parts.redis_volatile.flushall()

    answer = await _buy(shop, session)
    await shop.drain()

    assert answer.status_code == 202
    assert (await shop.row("SELECT phone, language FROM orders")) == {"phone": "", "language": "en"}


@pytest.mark.parametrize(
    ("accept", "language"),
    [
        ("", "en"),
        ("zh", "zh"),
        ("zh-Hant-TW, en;q=0.5", "zh"),
        ("en, zh;q=0.9", "en"),
        ("fr, de;q=0.9, zh;q=0.1", "zh"),
        ("fr, *;q=0.5", "en"),
        ("en;q=0, zh;q=0.001", "zh"),
        ("zh;q=0", "en"),
        ("zh;q=2", "en"),
        ("ZH ; Q=0.7 , en;q=0.6", "zh"),
        ("zhx, zh_CN", "en"),
        (";;;,,q=1", "en"),
    ],
)
def test_the_best_language_is_the_one_asked_for_most(accept: str, language: str) -> None:
    """By weight, then by order; a range matches its longer tags; nonsense weighs nothing."""
    assert language_of(accept) == language


@given(st.text(max_size=200))
def test_any_header_has_a_language(accept: str) -> None:
    """Whatever comes, a letter can be written."""
    assert language_of(accept) in LANGUAGES
