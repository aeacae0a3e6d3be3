"""POST /api/orders and GET /api/orders/{id}: who may, what is refused, and that refusals change nothing."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.routing import Route

from shop_backend import health
from shop_backend.app import routes
from shop_backend.config import Settings
from shop_backend.errors import ShopError
from shop_backend.orders import OrderBody
from shop_backend.own_orders import SHOWN
from shop_backend.providers import Forged
from shop_backend.providers.sandbox import SandboxProvider
from shop_backend.requests import client_network, parse
from shop_backend.stock import keys

GOOD = {"sku": "plain", "quantity": 1, "email": "buyer@example.com"}

BAD: list[tuple[str, bytes, int]] = [
    ("no body", b"", 400),
    ("broken JSON", b"{", 400),
    ("not UTF-8", b'{"sku": "\xff"}', 400),
    ("deep nesting", b"[" * 60_000, 400),
    ("NaN", b'{"sku": "plain", "quantity": NaN, "email": "a@b.example"}', 400),
    ("a number of 5,000 digits", b'{"quantity": ' + b"9" * 5000 + b"}", 400),
    ("a list", b"[]", 422),
    ("nothing in it", b"{}", 422),
    ("infinite quantity", b'{"sku": "plain", "quantity": 1e999, "email": "a@b.example"}', 422),
    ("negative", b'{"sku": "plain", "quantity": -1, "email": "a@b.example"}', 422),
    ("zero", b'{"sku": "plain", "quantity": 0, "email": "a@b.example"}', 422),
    ("true", b'{"sku": "plain", "quantity": true, "email": "a@b.example"}', 422),
    ("a string", b'{"sku": "plain", "quantity": "3", "email": "a@b.example"}', 422),
    ("a fraction", b'{"sku": "plain", "quantity": 1.5, "email": "a@b.example"}', 422),
    ("null", b'{"sku": "plain", "quantity": null, "email": "a@b.example"}', 422),
    ("absurd", b'{"sku": "plain", "quantity": 100000000000000000000, "email": "a@b.example"}', 422),
    ("more than one order may have", b'{"sku": "plain", "quantity": 101, "email": "a@b.example"}', 422),
    ("unknown member", b'{"sku": "plain", "quantity": 1, "email": "a@b.example", "price": 1}', 422),
    ("no address", b'{"sku": "plain", "quantity": 1, "email": "nobody"}', 422),
    (
        "two lines of address",
        b'{"sku": "plain", "quantity": 1, "email": "a@b.example\\nBcc: x@y.ex"}',
        422,
    ),
    ("long address", b'{"sku": "plain", "quantity": 1, "email": "' + b"a" * 300 + b'@b.example"}', 422),
    ("lone surrogate", b'{"sku": "plain", "quantity": 1, "email": "\\ud800@b.example"}', 422),
    ("surrogate as a member", b'{"\\ud800": 1}', 422),
    ("NUL in the sku", b'{"sku": "pl\\u0000ain", "quantity": 1, "email": "a@b.example"}', 422),
    ("long sku", b'{"sku": "' + b"a" * 1000 + b'", "quantity": 1, "email": "a@b.example"}', 422),
    ("sku of another type", b'{"sku": {}, "quantity": 1, "email": "a@b.example"}', 422),
    ("unknown sku", b'{"sku": "nothing", "quantity": 1, "email": "a@b.example"}', 404),
    ("too long", b" " * 70_000, 413),
]


async def test_bad_bodies_are_refused_and_change_nothing(shop: Any) -> None:
    """Each bad body gets its 4xx as problem+json; Redis stays as it was."""
    headers = await shop.session() | {"idempotency-key": "k"}
    redis = shop.parts.redis_durable
    before = {key: await redis.dump(key) for key in sorted(await redis.keys("*"))}
    for what, body, status in BAD:
        answer = await shop.client.post("/api/orders", content=body, headers=headers)
        assert (what, answer.status_code) == (what, status), answer.text
        assert answer.headers["content-type"] == "application/problem+json"
        problem = answer.json()
        assert problem["status"] == status
        assert problem["detail"]
        # In words: neither a pattern nor what pydantic tells programmers.
        assert not re.search(r"\^|\$|[Ii]nput|should|[Ss]tring|Field", problem["detail"]), problem["detail"]
    assert {key: await redis.dump(key) for key in sorted(await redis.keys("*"))} == before
    await shop.check()


_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["sku", "quantity", "email", "x"]), inner)
    ),
)


@given(st.binary() | _json.map(lambda value: json.dumps(value).encode()))
def test_no_body_breaks_the_parser(raw: bytes) -> None:
    """Any bytes are an order, or a refusal that can itself be written as JSON."""
    refused: ShopError | None = None
    try:
        assert parse(OrderBody, raw).quantity >= 1
    except ShopError as error:
        refused = error
    if refused is not None:
        assert 400 <= refused.status < 500
        json.dumps({"detail": refused.detail, **refused.extra}, ensure_ascii=False).encode()


@given(
    st.dictionaries(
        st.sampled_from(["webhook-id", "webhook-timestamp", "webhook-signature"]),
        st.text() | st.sampled_from(["v1,", "v1,AAAA", "v1a,=", "1", "nan", "1e999"]),
    ),
    st.binary(),
)
def test_no_callback_breaks_the_verifier(headers: dict[str, str], body: bytes) -> None:
    """Whatever is sent to the callback address, it is forged or stale, never an error."""
    # A clock that believes every timestamp it can read: the signature itself is judged.
    text = headers.get("webhook-timestamp", "0")
    provider = SandboxProvider(
        Settings.model_validate({"sandbox_secret": "whsec_c2VjcmV0c2VjcmV0"}), clock=lambda: _number(text)
    )
    with pytest.raises(Forged):
        provider.verify(headers, body)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return 0.0


@pytest.mark.parametrize(
    ("keys", "status"),
    [([], 400), (["a", "b"], 400), ([""], 422), (["x" * 201], 422), (["a\tb"], 422), ([b"\xe4"], 422)],
)
async def test_the_idempotency_key_is_required_and_bounded(shop: Any, keys: list[Any], status: int) -> None:
    """Missing or twice: 400; not 1 to 200 printable ASCII characters: 422."""
    headers = [(k, v) for k, v in (await shop.session()).items()] + [("idempotency-key", k) for k in keys]
    answer = await shop.client.post("/api/orders", json=GOOD, headers=headers)
    assert answer.status_code == status, answer.text


async def test_ordering_needs_a_session(shop: Any) -> None:
    """None, a forged one, or one signed by another key: 401."""
    for headers in ({}, {"cookie": "session=abc"}, {"authorization": "Bearer e30.e30.e30"}):
        answer = await shop.client.post("/api/orders", json=GOOD, headers=headers | {"idempotency-key": "k"})
        assert answer.status_code == 401, answer.text


async def test_the_same_key_gives_the_same_answer(shop: Any) -> None:
    """Twenty at once and one after the order was delivered: one order, one answer."""
    buyer = await shop.session()
    answers = await asyncio.gather(*(shop.order(headers=buyer, key="once") for _ in range(20)))
    assert {a.status_code for a in answers} == {202}
    assert len({a.text for a in answers}) == 1
    order = answers[0].json()
    await shop.drain()
    await shop.cashier.open_checkouts()
    await shop.callback(order, await shop.pay(order))
    await shop.drain()
    assert (await shop.order(headers=buyer, key="once")).text == answers[0].text
    assert (await shop.order(quantity=2, headers=buyer, key="once")).status_code == 409
    assert (await shop.order(headers=await shop.session(), key="once")).json()["order_id"] != order[
        "order_id"
    ]
    await shop.drain()
    assert len(await shop.rows("SELECT id FROM orders")) == 2
    await shop.check()


async def test_an_idempotency_key_outlives_a_lost_redis(shop: Any) -> None:
    """After Redis lost everything and was loaded again, an old key still gives its own order."""
    buyer = await shop.session()
    first = await shop.order(headers=buyer, key="once")
    await shop.drain()
    await shop.parts.redis_durable.flushall()
    assert (await shop.order(headers=buyer, key="other")).status_code == 503
    await shop.keeper.check()
    while (again := await shop.order(headers=buyer, key="once")).status_code == 503:
        pass  # the app asks for the new epoch now and then
    assert again.json()["order_id"] == first.json()["order_id"]
    assert (await shop.order(quantity=2, headers=buyer, key="once")).status_code == 409
    await shop.drain()
    assert len(await shop.rows("SELECT id FROM orders")) == 1
    await shop.check()


async def test_the_sales_rules_answer_with_their_status(shop: Any) -> None:
    """Outside the window 403, over the cap 409, sold out 410, each a problem that says what to do."""
    buyer = await shop.session()
    assert (await shop.order("early", headers=buyer)).status_code == 403
    assert (await shop.order("over", headers=buyer)).status_code == 403
    fewer = await shop.order("flash", 2, headers=buyer)
    assert (fewer.status_code, fewer.json()["detail"]) == (409, "you may have 1 more of this")
    assert (await shop.order("flash", headers=buyer)).status_code == 202
    no_more = await shop.order("flash", headers=buyer)
    assert (no_more.status_code, no_more.json()["left"]) == (409, 0)
    assert no_more.json()["detail"] == "you have had all that one buyer may have"
    assert (await shop.order("single", headers=buyer)).status_code == 202
    gone = await shop.order("single", headers=buyer)
    assert gone.status_code == 410
    assert gone.headers["content-type"] == "application/problem+json"
    assert gone.json()["type"] == "urn:tidegate:sold-out"
    assert gone.headers["tidegate-shut"] == "sku=single; for=2"  # the gateway tells the others
    await shop.drain()
    await shop.check()


async def test_too_many_at_once_shuts_nobody_off(shop: Any) -> None:
    """Asking for more than is left is no reason to turn away those who want one."""
    refused = await shop.order("single", 2)
    assert refused.status_code == 410
    assert "tidegate-shut" not in refused.headers
    assert (await shop.order("single")).status_code == 202


async def test_unpaid_orders_of_one_buyer_are_limited(shop: Any) -> None:
    """Hoarding ends at `open_holds_per_user`; an expired order makes room."""
    buyer = await shop.session()
    skus = ["plain"] * 5
    placed = [await shop.order(sku, headers=buyer) for sku in skus]
    assert [a.status_code for a in placed] == [202] * 5
    refused = await shop.order("flash", headers=buyer)
    assert (refused.status_code, refused.json()["type"]) == (409, "urn:tidegate:too-many-open-orders")
    await shop.drain()
    await shop.expire(placed[0].json())
    assert (await shop.order("flash", headers=buyer)).status_code == 202


async def test_an_order_is_shown_to_its_owner_only(shop: Any) -> None:
    """By cookie or token; to anyone else it does not exist, reserved or written."""
    buyer, stranger = await shop.session(), await shop.session()
    order = (await shop.order(headers=buyer)).json()
    other = (await shop.order(headers=stranger)).json()
    url = order["status_url"]
    for _ in range(2):
        assert (await shop.client.get(url, headers=buyer)).status_code == 200
        assert (await shop.client.get(url, params={"token": order["token"]})).status_code == 200
        for refused in (
            await shop.client.get(url),
            await shop.client.get(url, headers=stranger),
            await shop.client.get(url, params={"token": other["token"]}),
            await shop.client.get(url, params={"token": "ü\0"}),
            await shop.client.get("/api/orders/0", headers=buyer),
            await shop.client.get("/api/orders/00000000-0000-0000-0000-000000000000", headers=buyer),
        ):
            assert refused.status_code == 404
            assert refused.headers["cache-control"] == "no-store"
        await shop.drain()


async def test_an_order_says_what_was_bought(shop: Any) -> None:
    """Product and quantity at once, the price once it is written; also of what is sold no more."""
    order = (await shop.order("plain", 2)).json()
    reserved = await shop.see(order)
    assert (reserved["name"], reserved["quantity"]) == ("Plain", 2)
    await shop.drain()
    await shop.execute(
        "UPDATE products SET listed = false, sale_ends_at = now() - interval '1 s' WHERE sku = 'plain'"
    )
    await shop.context.catalog.watch()
    shop.context.catalog.forget()
    written = await shop.see(order)
    assert (written["name"], written["quantity"], written["amount_cents"]) == ("Plain", 2, 2000)


async def test_a_buyer_s_orders_are_listed_to_that_buyer(shop: Any) -> None:
    """The newest first, at most SHOWN; nobody sees another's, and who has no session sees none."""
    buyer, stranger = await shop.session(), await shop.session()
    placed = [(await shop.placed(sku, headers=buyer)) for sku in ("plain", "flash", "plain")]
    await shop.callback(placed[1], await shop.pay(placed[1]))
    await shop.drain()

    answer = await shop.client.get("/api/orders", headers=buyer)
    told = answer.json()["orders"]
    assert answer.headers["cache-control"] == "no-store"
    assert [each["order_id"] for each in told] == [each["order_id"] for each in reversed(placed)]
    assert [each["status"] for each in told] == ["pending", "delivered", "pending"]
    assert (told[1]["name"], told[1]["quantity"], told[1]["amount_cents"]) == ("Flash", 1, 1000)
    assert "CANARY" not in answer.text
    for headers in (stranger, {}):
        assert (await shop.client.get("/api/orders", headers=headers)).json() == {"orders": []}

    user = (await shop.row("SELECT user_id FROM orders LIMIT 1"))["user_id"]
    await shop.execute(
        "INSERT INTO orders (id, user_id, sku, quantity, amount_cents, currency, email, state, round,"
        " provider, created_at, expires_at, next_poll_at) SELECT gen_random_uuid(), %s, 'plain', 1, 1000,"
        " 'EUR', 'a@b.example', 'expired', 1, 'sandbox', now() - make_interval(days => n), now(), now()"
        " FROM generate_series(1, 30) n",
        user,
    )
    many = (await shop.client.get("/api/orders", headers=buyer)).json()["orders"]
    assert len(many) == SHOWN
    assert many[:3] == told


async def test_a_thousand_buyers_get_a_hundred_cards(shop: Any) -> None:
    """Everyone at once: 100 reserve, pay and receive; 900 are told it is sold out."""
    buyers = [shop.context.tokens.session(f"buyer{n}", lifetime=60) for n in range(1000)]
    answers = await asyncio.gather(
        *(shop.order("flash", headers={"cookie": f"session={token}"}) for token in buyers)
    )
    assert Counter(a.status_code for a in answers) == {202: 100, 410: 900}
    await shop.drain()
    while await shop.cashier.open_checkouts():
        pass
    for answer in answers:
        if answer.status_code == 202:
            order = answer.json()
            await shop.callback(order, await shop.pay(order))
    await shop.drain()
    sold = await shop.rows("SELECT state FROM orders")
    assert Counter(row["state"] for row in sold) == {"delivered": 100}
    assert (await shop.snapshot()).free["flash"] == 0
    await shop.check()


async def test_no_two_routes_want_the_same_path(shop: Any) -> None:
    """They may be tried in any order, but for the last, which takes what is left."""
    servers = health.readiness(shop.context)
    *particular, lost = (route for route in routes(shop.context, servers) if isinstance(route, Route))
    await servers.close()
    assert lost.path == "/{path:path}"
    for path in {route.path.replace("{", "").replace("}", "") for route in particular}:
        assert len({route.path for route in particular if route.path_regex.match(path)}) == 1, path


async def test_unknown_routes_and_methods_are_problems(shop: Any) -> None:
    """404 and 405 as problem+json, the latter with Allow."""
    missing = await shop.client.get("/api/nothing")
    assert (missing.status_code, missing.headers["content-type"]) == (404, "application/problem+json")
    wrong = await shop.client.delete("/api/orders")
    assert (wrong.status_code, wrong.headers["content-type"]) == (405, "application/problem+json")
    assert set(wrong.headers["allow"].split(", ")) == {"GET", "HEAD", "POST"}


async def test_card_keys_are_found_nowhere_but_in_the_owners_answer(shop: Any) -> None:
    """The canary in every key is not in Redis, SQL, mail or a stranger's answer."""
    order = await shop.placed("plain", 2)
    await shop.callback(order, await shop.pay(order))
    await shop.drain()
    await shop.outbox.send_due()
    seen = await shop.see(order)
    assert all(card.startswith("CANARY") for card in seen["cards"])
    for client in (shop.parts.redis_durable, shop.parts.redis_volatile):
        for key in await client.keys("*"):
            assert "CANARY" not in str(await _value(client, key))
    tables = ["cards", "orders", "outbox", "deliveries", "payments", "dead_letters", "order_events"]
    for table in tables:
        assert "CANARY" not in str(await shop.rows(f"SELECT t::text AS line FROM {table} t"))  # noqa: S608 - names above
        dumped = await shop.rows(f"SELECT t::text AS line FROM {table} t")  # noqa: S608 - names above
        assert b"CANARY".hex() not in str(dumped)
    assert "CANARY" not in str(shop.mailbox.sent)


async def _value(client: Any, key: str) -> Any:
    kind = await client.type(key)
    if kind == "hash":
        return await client.hgetall(key)
    if kind == "stream":
        return await client.xrange(key)
    if kind == "zset":
        return await client.zrange(key, 0, -1)
    if kind == "set":
        return await client.smembers(key)
    return await client.get(key)


@pytest.mark.parametrize(
    ("told", "network"),
    [
        ("203.0.113.7", ""),  # documentation, private, loopback: many may share it
        ("10.1.2.3", ""),
        ("", ""),
        ("unknown", ""),
        ("8.8.8.8", "8.8.8.8"),
        ("8.8.8.8, 10.0.0.1", "8.8.8.8"),
        ("::ffff:8.8.8.8", "8.8.8.8"),
        ("2a00:1450:4001:81a::200e", "2a00:1450:4001:81a::/64"),
        ("2a00:1450:4001:81a:ffff::1", "2a00:1450:4001:81a::/64"),
    ],
)
def test_whose_connection_it_is(told: str, network: str) -> None:
    """The first address of X-Forwarded-For, IPv6 by /64; nothing where many look alike."""
    headers = [(b"x-forwarded-for", told.encode())] if told else []
    request = Request({"type": "http", "headers": headers, "client": ("127.0.0.1", 1)})
    assert client_network(request) == network


async def test_one_address_may_not_hoard(shop_settings: Settings, fill_shop: Any, start_shop: Any) -> None:
    """Many guests of one address hold few orders open at once; others order on. Addresses are not kept."""
    few = shop_settings.stock.model_copy(update={"open_holds_per_address": 2})
    fill_shop(shop_settings)
    async with start_shop(shop_settings.model_copy(update={"stock": few})) as shop:
        home = {"x-forwarded-for": "8.8.8.8"}
        codes = [(await shop.order(headers=await shop.session() | home)).status_code for _ in range(3)]
        assert codes == [202, 202, 409]
        elsewhere = await shop.session() | {"x-forwarded-for": "9.9.9.9"}
        assert (await shop.order(headers=elsewhere)).status_code == 202
        redis = shop.parts.redis_durable
        kept = [await redis.hgetall(keys.ORIGINS), await redis.xrange(keys.ORDERS)]
        assert len(kept[0]) == 2
        assert "8.8.8.8" not in str(kept)
