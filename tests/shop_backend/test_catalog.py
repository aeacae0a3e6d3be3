"""The catalogue's answers and its cache; sessions; the cart."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from redis.asyncio import Redis
from redis.exceptions import RedisError

from shop_backend.cache.single_flight import SingleFlight
from shop_backend.config import Settings
from shop_backend.errors import Unavailable
from shop_backend.metrics import REGISTRY
from shop_backend.tokens import Tokens
from shop_backend.workers.carts import CartKeeper
from shop_backend.workers.orders import OrderHandler
from shop_backend.workers.runner import StreamRunner
from shop_backend.workers.watch import Gauges
from tests.waiting import until


async def test_products_are_shown_and_revalidated(shop: Any) -> None:
    """List and detail have prices, window and a stock hint; a known ETag gets 304; unknown ones 404."""
    answer = await shop.client.get("/api/products")
    assert answer.status_code == 200
    listed = {product["sku"]: product for product in answer.json()["products"]}
    assert list(listed) == ["plain", "flash", "single", "early", "over"]
    assert listed["flash"]["sale_starts_at"] == "2026-01-01T00:00:00Z"
    assert (listed["plain"]["stock"], listed["single"]["stock"]) == ("plenty", "low")
    one = await shop.client.get("/api/products/plain")
    assert one.json() == listed["plain"]
    assert one.headers["cache-control"].startswith("public")
    for tag in (one.headers["etag"], "W/" + one.headers["etag"], f'"x", {one.headers["etag"]}', "*"):
        same = await shop.client.get("/api/products/plain", headers={"if-none-match": tag})
        assert (same.status_code, same.content, same.headers["etag"]) == (304, b"", one.headers["etag"])
    other = await shop.client.get("/api/products/plain", headers={"if-none-match": '"x"'})
    assert other.status_code == 200
    assert (await shop.client.get("/api/products/nothing")).status_code == 404
    assert (await shop.client.head("/api/products/plain")).content == b""


async def test_what_is_not_listed_is_gone_when_its_sale_is_over(shop: Any) -> None:
    """A rehearsal's product: sold by its address, on no shelf; then nowhere, while the books keep it."""
    await shop.execute(
        "UPDATE products SET listed = false, sale_ends_at = now() + interval '1 hour' WHERE sku = 'plain'"
    )
    await shop.keeper.load()
    gauges = Gauges(shop.parts.redis_durable, shop.parts.stock, shop.parts.database)
    shop.context.catalog.forget()
    await shop.context.catalog.watch()

    assert '"plain"' not in (await shop.client.get("/api/products")).text
    assert "/p/plain" not in (await shop.client.get("/")).text
    items = (await shop.client.get("/api/products/flash/recommendations")).json()["items"]
    assert "plain" not in {item["sku"] for item in items}
    assert (await shop.client.get("/p/plain")).status_code == 200
    assert (await shop.client.get("/api/products/plain")).status_code == 200
    order = await shop.placed("plain")
    await gauges.report()
    assert (REGISTRY.get_sample_value("shop_stock", {"sku": "plain", "state": "held"})) == 1

    await shop.execute("UPDATE products SET sale_ends_at = now() - interval '1 ms' WHERE sku = 'plain'")
    await shop.keeper.load()
    await shop.context.catalog.watch()
    shop.context.catalog.forget()
    await gauges.report()
    assert (await shop.client.get("/p/plain")).status_code == 404
    assert (await shop.client.get("/api/products/plain")).status_code == 404
    assert (await shop.order("plain")).status_code == 404
    assert REGISTRY.get_sample_value("shop_stock", {"sku": "plain", "state": "held"}) is None
    assert REGISTRY.get_sample_value("shop_stock", {"sku": "flash", "state": "free"}) == 100
    # What was sold of it is paid, delivered and accounted for all the same; the rest is still counted.
    await shop.callback(order, await shop.pay(order))
    await shop.drain()
    assert (await shop.see(order))["status"] == "delivered"
    assert (await shop.snapshot()).free["plain"] == 49
    await shop.check()


class Source:
    """Counts loads; waits for `go`; fails when told to."""

    def __init__(self) -> None:
        self.loads = 0
        self.go = asyncio.Event()
        self.broken = False

    async def __call__(self) -> int:
        self.loads += 1
        await self.go.wait()
        if self.broken:
            raise ConnectionError("away")
        return self.loads


async def test_a_thousand_misses_make_one_query_even_when_the_first_is_cancelled() -> None:
    """All wait for one loading, which goes on without the caller that began it."""
    source = Source()
    cache = SingleFlight(source, 1.0, clock=lambda: 0.0, level="test")
    leader = asyncio.create_task(cache.get())
    await asyncio.sleep(0)
    others = [asyncio.create_task(cache.get()) for _ in range(1000)]
    await asyncio.sleep(0)
    leader.cancel()
    source.go.set()
    assert await asyncio.gather(*others) == [1] * 1000
    assert source.loads == 1


async def test_old_answers_serve_while_the_source_is_away() -> None:
    """A failed refresh gives the old value for some minutes, then 503."""
    now = 0.0
    source = Source()
    source.go.set()
    cache = SingleFlight(source, 1.0, clock=lambda: now, level="test")
    assert await cache.get() == 1
    source.broken = True
    now = 10.0
    assert await cache.get() == 1
    now = 1000.0
    with pytest.raises(Unavailable):
        await cache.get()
    source.broken = False
    assert await cache.get() == 4


@pytest.mark.parametrize("first", [0, 1])
async def test_what_was_asked_before_it_was_forgotten_is_not_kept(first: int) -> None:
    """Who waited for it has it; whoever comes then asks anew, and has that, whichever answer comes first."""
    answers: list[asyncio.Future[int]] = []

    async def source() -> int:
        answers.append(asyncio.get_running_loop().create_future())
        return await answers[-1]

    cache = SingleFlight(source, 1.0, clock=lambda: 0.0, level="test")
    waiting = [asyncio.create_task(cache.get()) for _ in range(2)]
    await until(lambda: len(answers) == 1)
    cache.forget()
    waiting += [asyncio.create_task(cache.get()) for _ in range(2)]
    await until(lambda: len(answers) == 2)
    for place in (first, 1 - first):
        answers[place].set_result(place)
        await waiting[2 * place]

    assert await asyncio.gather(*waiting) == [0, 0, 1, 1]
    assert await cache.get() == 1
    assert len(answers) == 2


async def test_sessions_are_kept_not_replaced(shop: Any) -> None:
    """A guest's second POST renews the same user: caps and cart go on; the cookie is HttpOnly and Lax."""
    first = await shop.client.post("/api/session", json={"email": "a@b.example"})
    assert first.status_code == 201
    cookie = first.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=lax" in cookie
    assert "path=/" in cookie
    second = await shop.client.post("/api/session")
    assert second.json()["user"] == first.json()["user"]
    assert await shop.context.sessions.recall(first.json()["user"]) == {"email": "a@b.example"}
    shop.client.cookies.clear()
    assert (await shop.client.post("/api/session", json={})).json()["user"] != first.json()["user"]
    assert (await shop.client.post("/api/session", json={"email": 1})).status_code == 422
    assert (await shop.client.post("/api/session", content=b"{")).status_code == 400
    for key in await shop.parts.redis_volatile.keys("*"):
        assert await shop.parts.redis_volatile.ttl(key) > 0


async def test_old_and_foreign_tokens_are_nobodys(shop: Any) -> None:
    """Expired, unsigned, signed by another key, or for no user: None."""
    tokens: Tokens = shop.context.tokens
    good = tokens.session("u", lifetime=60)
    assert tokens.user_of(good) == "u"
    head, body, signature = good.split(".")
    for bad in (
        tokens.session("u", lifetime=-1),
        tokens.session("", lifetime=60),
        tokens.session("x" * 65, lifetime=60),
        f"{head}.{body}.",
        f"eyJhbGciOiJub25lIn0.{body}.",
        f"{head}.{body}.{signature[::-1]}",
        "a.b.c",
        "é",
    ):
        assert tokens.user_of(bad) is None


async def test_the_cart_is_priced_and_summed_here(shop: Any) -> None:
    """Lines, amounts and sums come from the catalogue; quantities are bounded; the anonymous have none."""
    client: httpx.AsyncClient = shop.client
    buyer = await shop.session()
    assert (await client.get("/api/cart")).json() == {"lines": [], "totals": []}
    assert (await client.put("/api/cart/plain", json={"quantity": 2})).status_code == 401
    assert (await client.put("/api/cart/plain", json={"quantity": 2}, headers=buyer)).status_code == 200
    answer = await client.put("/api/cart/flash", json={"quantity": 1}, headers=buyer)
    assert answer.json()["totals"] == [{"currency": "EUR", "amount_cents": 3000}]
    assert [line["amount_cents"] for line in answer.json()["lines"]] == [1000, 2000]
    for sku, body, status in (
        ("plain", {"quantity": 6}, 422),
        ("plain", {"quantity": -1}, 422),
        ("plain", {"quantity": True}, 422),
        ("plain", {}, 422),
        ("nothing", {"quantity": 1}, 404),
    ):
        assert (await client.put(f"/api/cart/{sku}", json=body, headers=buyer)).status_code == status
    assert len((await client.delete("/api/cart/flash", headers=buyer)).json()["lines"]) == 1
    assert (await client.delete("/api/cart/flash", headers=buyer)).status_code == 200
    assert (await client.put("/api/cart/plain", json={"quantity": 0}, headers=buyer)).json()["lines"] == []
    for key in await shop.parts.redis_volatile.keys("*"):
        assert await shop.parts.redis_volatile.ttl(key) > 0


async def test_what_was_ordered_leaves_the_cart(shop: Any) -> None:
    """As much as was ordered, once it is written; the rest, and other carts, stay."""
    buyer, other = await shop.session(), await shop.session()
    for headers in (buyer, other):
        for sku, quantity in (("plain", 3), ("flash", 1)):
            answer = await shop.client.put(f"/api/cart/{sku}", json={"quantity": quantity}, headers=headers)
            assert answer.status_code == 200
    carts = CartKeeper(shop.parts.redis_volatile)
    handler = OrderHandler(
        shop.parts.database,
        shop.parts.stock,
        shop.partitions,
        shop.settings.workers,
        provider="sandbox",
        written=carts.ordered,
    )
    runner = StreamRunner(shop.parts.redis_streams, shop.parts.database, handler, shop.settings.workers)
    await runner.join()

    async def lines(headers: dict[str, str]) -> dict[str, int]:
        cart = (await shop.client.get("/api/cart", headers=headers)).json()
        return {line["sku"]: line["quantity"] for line in cart["lines"]}

    for sku, quantity in (("plain", 2), ("flash", 1), ("single", 1)):
        assert (await shop.order(sku, quantity, headers=buyer)).status_code == 202
    while await runner.once():
        pass
    assert await carts.work() == 3
    assert await carts.work() == 0
    assert await lines(buyer) == {"plain": 1}
    assert await lines(other) == {"plain": 3, "flash": 1}
    assert await shop.parts.redis_volatile.ttl(f"cart:{_user(shop, buyer)}") > 0

    async with Redis.from_url("redis://127.0.0.1:1") as nobody:
        away = CartKeeper(nobody)
        away.ordered([("u", "plain", 1), ("u", "flash", 1)])
        for _ in range(2):
            with pytest.raises(RedisError):
                await away.work()


def _user(shop: Any, headers: dict[str, str]) -> str:
    user = shop.context.tokens.user_of(headers["cookie"].partition("=")[2])
    assert user is not None
    return str(user)


async def test_a_cart_has_no_line_too_many(shop_settings: Settings, fill_shop: Any, start_shop: Any) -> None:
    """All products at once into a cart of two: two fit, and may be changed, or make room for another."""
    fill_shop(shop_settings)
    sessions = shop_settings.sessions.model_copy(update={"cart_lines": 2})
    async with start_shop(shop_settings.model_copy(update={"sessions": sessions})) as shop:
        buyer = await shop.session()

        async def put(sku: str, quantity: int = 1) -> int:
            answer = await shop.client.put(f"/api/cart/{sku}", json={"quantity": quantity}, headers=buyer)
            return int(answer.status_code)

        skus = ("plain", "flash", "single", "early", "over")
        said = dict(zip(skus, await asyncio.gather(*map(put, skus)), strict=True))
        lines = (await shop.client.get("/api/cart", headers=buyer)).json()["lines"]

        inside = [line["sku"] for line in lines]
        assert {sku for sku in skus if said[sku] == 200} == set(inside)
        assert sorted(said.values()) == [200, 200, 422, 422, 422]
        outside = next(sku for sku in skus if sku not in inside)
        await shop.parts.redis_volatile.script_flush()  # as a restart does
        assert [await put(inside[0]), await put(outside)] == [200, 422]
        assert [await put(inside[0], 0), await put(outside)] == [200, 200]


async def test_health_is_told_apart(shop: Any) -> None:
    """/livez says the process answers, /readyz that its servers do."""
    assert (await shop.client.get("/livez")).status_code == 200
    well = {"database": "ok", "stock": "ok", "sessions": "ok"}

    async def ready() -> bool:  # asked of servers that may be slow to answer
        return bool((await shop.client.get("/readyz")).json() == well)

    await until(ready)


@pytest.mark.parametrize("expires", [10**400, 2**63, 253_402_300_800, True, 1.5, "9", None, -1])
def test_a_session_ends_before_the_year_10000(expires: Any) -> None:
    """Also signed with the real key, an `exp` that we would never write is refused."""
    key = Ed25519PrivateKey.generate()
    claims = {"sub": "u", "iat": 1, "exp": expires}
    tokens = Tokens(key, clock=lambda: 0.5)
    assert tokens.user_of(jwt.encode(claims | {"exp": 5}, key, algorithm="EdDSA")) == "u"
    assert tokens.user_of(_signed(key, claims)) is None


def _signed(key: Ed25519PrivateKey, claims: dict[str, Any]) -> str:
    """A token as anyone with the key can write it, whatever a library would refuse to."""
    parts = [
        base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=")
        for part in ({"alg": "EdDSA", "typ": "JWT"}, claims)
    ]
    signature = base64.urlsafe_b64encode(key.sign(b".".join(parts))).rstrip(b"=")
    return b".".join([*parts, signature]).decode()
