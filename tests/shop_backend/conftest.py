"""A shop on real Redis and PostgreSQL, in this process: its app, its provider, its workers by hand."""

from __future__ import annotations

import base64
import contextlib
import csv
import json
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from standardwebhooks.webhooks import Webhook
from starlette.applications import Starlette

from shop_backend.app import create_app
from shop_backend.config import Settings
from shop_backend.context import Context
from shop_backend.letters import Message
from shop_backend.notifications import Outbox
from shop_backend.parts import Parts, connect
from shop_backend.payments import Payments
from shop_backend.sandbox.app import create_app as create_sandbox
from shop_backend.seed import seed
from shop_backend.stock import keys
from shop_backend.stock.records import Snapshot
from shop_backend.stock.second_copy import SecondCopy
from shop_backend.storage.partitions import Partitions
from shop_backend.vault import Vault
from shop_backend.workers.callbacks import CallbackHandler
from shop_backend.workers.money import Cashier
from shop_backend.workers.orders import OrderHandler
from shop_backend.workers.recovery import Recovery
from shop_backend.workers.runner import StreamRunner
from shop_backend.workers.sweeper import Sweeper
from shop_backend.workers.watch import StockKeeper
from tests.shop_backend.serving import serve

SECRET = "whsec_" + base64.b64encode(b"s" * 24).decode()
CARD_KEY = "k1:" + base64.urlsafe_b64encode(b"k" * 32).decode()

# sku, cards, cap, window
PRODUCTS: list[tuple[str, int, int, str, str]] = [
    ("plain", 50, 5, "", ""),
    ("flash", 100, 1, "2026-01-01T00:00:00Z", "2036-01-01T00:00:00Z"),
    ("single", 1, 3, "", ""),
    ("early", 5, 5, "2035-01-01T00:00:00Z", ""),
    ("over", 5, 5, "2020-01-01T00:00:00Z", "2020-02-01T00:00:00Z"),
]


def write_catalog(folder: Path) -> Path:
    """products.csv and cards.csv of the tests' products; every key begins with CANARY."""
    folder.mkdir(exist_ok=True)
    with (folder / "products.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(
            [
                "sku",
                "name",
                "kind",
                "brand",
                "description",
                "price_cents",
                "list_price_cents",
                "currency",
                "sale_starts_at",
                "sale_ends_at",
                "per_user_cap",
                "image",
                "featured",
            ]
        )
        for sku, _, cap, starts, ends in PRODUCTS:
            out.writerow(
                [
                    sku,
                    sku.title(),
                    "card",
                    "Brand",
                    "Text",
                    1000,
                    2000,
                    "EUR",
                    starts,
                    ends,
                    cap,
                    "i.svg",
                    "true",
                ]
            )
    with (folder / "cards.csv").open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["sku", "secret"])
        for sku, cards, *_ in PRODUCTS:
            out.writerows([sku, f"CANARY-{sku}-{number:04d}"] for number in range(cards))
    return folder


@pytest.fixture
def shop_settings(
    tmp_path: Path, migrated_database_url: str, redis_durable_url: str, redis_volatile_url: str
) -> Settings:
    """Settings of a shop with every part of its own, migrated, not seeded."""
    key = tmp_path / "session.pem"
    key.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return Settings.model_validate(
        {
            "database_url": migrated_database_url,
            "stock_redis_url": redis_durable_url,
            "redis_url": redis_volatile_url,
            "card_key": CARD_KEY,
            "session_key_file": key,
            "sandbox_secret": SECRET,
            "sandbox_url": "http://sandbox.test",
            "public_url": "http://shop.test",
            "shop_url": "http://127.0.0.1:1",  # nobody listens: the tests send callbacks themselves
            "data_dir": tmp_path,
            "catalog": {"directory": write_catalog(tmp_path / "catalog"), "fresh_for": 0, "shared_for": 0},
            # Patient: a thousand buyers at once on a busy machine are no outage.
            "stock": {"timeout": 60},
            "workers": {"block": 0, "retry_after": 0, "abandoned_after": 0},
        }
    )


@dataclass
class Mailbox:
    """A Notifier that keeps what it is given, or fails as often as told."""

    sent: list[tuple[str, Message]] = field(default_factory=list)
    failures: int = 0

    async def send(self, to: str, message: Message) -> None:
        if self.failures:
            self.failures -= 1
            raise ConnectionError("mail server away")
        self.sent.append((to, message))


@dataclass
class Shop:
    """The shop and what drives it; see the fixture."""

    settings: Settings
    context: Context
    parts: Parts
    client: httpx.AsyncClient
    provider: httpx.AsyncClient
    partitions: Partitions
    orders: StreamRunner
    callbacks: StreamRunner
    sweeper: Sweeper
    cashier: Cashier
    outbox: Outbox
    keeper: StockKeeper
    recovery: Recovery
    payments: Payments
    mailbox: Mailbox

    async def session(self) -> dict[str, str]:
        """Headers of a new guest."""
        answer = await self.client.post("/api/session", json={})
        assert answer.status_code == 201, answer.text
        token = answer.cookies["session"]
        self.client.cookies.clear()
        return {"cookie": f"session={token}"}

    async def order(
        self,
        sku: str = "plain",
        quantity: Any = 1,
        *,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> httpx.Response:
        """POST an order, as a new guest unless told otherwise."""
        headers = dict(headers or await self.session()) | {"idempotency-key": key or uuid.uuid4().hex}
        body = {"sku": sku, "quantity": quantity, "email": "buyer@example.com"}
        return await self.client.post("/api/orders", json=body, headers=headers)

    async def placed(self, sku: str = "plain", quantity: int = 1, **more: Any) -> dict[str, Any]:
        """An order that was accepted, written and has its checkout."""
        answer = await self.order(sku, quantity, **more)
        assert answer.status_code == 202, answer.text
        await self.drain()
        await self.cashier.open_checkouts()
        return dict(answer.json())

    async def see(self, order: Mapping[str, Any]) -> dict[str, Any]:
        """GET the order with its token."""
        answer = await self.client.get(order["status_url"], params={"token": order["token"]})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def pay(self, order: Mapping[str, Any], outcome: str = "success") -> dict[str, Any]:
        """Pay at the provider. Its own callbacks are not sent in these tests: `callback` does that."""
        url = (await self.row("SELECT pay_url FROM orders WHERE id = %s", order["order_id"]))["pay_url"]
        answer = await self.provider.post(f"{url}/pay", json={"outcome": outcome})
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def callback(
        self, order: Mapping[str, Any], payment: Mapping[str, Any], **changes: Any
    ) -> httpx.Response:
        """Send what the provider would about a payment, properly signed, with some fields changed."""
        data = {
            "payment_id": payment["id"],
            "order_id": order["order_id"],
            "amount_cents": payment["amount_cents"],
            "currency": payment["currency"],
            "channel": "sandbox",
        } | changes
        kind = "payment.succeeded" if payment["outcome"] == "succeeded" else "payment.failed"
        return await self.send(json.dumps({"type": kind, "data": data}))

    async def send(
        self, body: str, *, at: datetime | None = None, secret: str = SECRET, sign: str | None = None
    ) -> httpx.Response:
        """POST a signed callback."""
        at = at or datetime.now(UTC)
        headers = {
            "webhook-id": uuid.uuid4().hex,
            "webhook-timestamp": str(int(at.timestamp())),
        }
        headers["webhook-signature"] = (
            Webhook(secret).sign(headers["webhook-id"], at, body) if sign is None else sign
        )
        return await self.client.post("/callbacks/sandbox", content=body.encode(), headers=headers)

    async def drain(self) -> None:
        """Handle what the streams hold, until nothing is new."""
        for runner in (self.orders, self.callbacks):
            await runner.join()
            while await runner.once():
                pass

    async def expire(self, order: Mapping[str, Any]) -> None:
        """Let a hold's time be over, and sweep."""
        await self.parts.redis_durable.zadd(keys.HOLDS, {order["order_id"]: 1})
        assert await self.sweeper.sweep() == 1

    async def rows(self, sql: str, *values: Any) -> list[dict[str, Any]]:
        """Rows of a query."""
        async with self.parts.database.primary() as connection:
            return await (await connection.execute(sql, values)).fetchall()

    async def row(self, sql: str, *values: Any) -> dict[str, Any]:
        """The one row of a query."""
        (row,) = await self.rows(sql, *values)
        return row

    async def execute(self, sql: str, *values: Any) -> None:
        """A statement without rows."""
        async with self.parts.database.primary() as connection:
            await connection.execute(sql, values)

    async def snapshot(self) -> Snapshot:
        """What Redis says."""
        return await self.parts.stock.snapshot()

    async def check(self) -> None:
        """Every invariant of the project that can be seen from SQL and Redis."""
        assert await violations(self) == []


async def violations(shop: Shop) -> list[str]:
    """I1 to I4, I8, I9, I11 and I12, as sentences."""
    found: list[str] = []
    imported = {sku: cards for sku, cards, *_ in PRODUCTS}
    cards = await shop.rows("SELECT sku, state, count(*) AS n FROM cards GROUP BY sku, state")
    for sku, wanted in imported.items():
        if sum(c["n"] for c in cards if c["sku"] == sku) != wanted:
            found.append(f"I1 {sku}")
    snapshot = await shop.snapshot()
    states = {str(r["id"]): r["state"] for r in await shop.rows("SELECT id, state FROM orders")}
    for sku in imported:
        available = sum(c["n"] for c in cards if c["sku"] == sku and c["state"] == "available")
        unsettled = sum(
            quantity
            for order_id, held, quantity in snapshot.holds
            if held == sku and states.get(order_id) not in ("pending", "paid", "delivered")
        )
        if snapshot.free[sku] < 0 or snapshot.free[sku] + unsettled != available:
            found.append(f"I2 {sku}: free {snapshot.free[sku]} + {unsettled} != {available}")
    for name, sql in {
        "I3/I4 deliveries of an order": (
            "SELECT o.id FROM orders o WHERE (SELECT count(*) FROM deliveries d WHERE d.order_id = o.id)"
            " <> CASE o.state WHEN 'delivered' THEN o.quantity ELSE 0 END"
        ),
        "I3 delivered cards": (
            "SELECT c.id FROM cards c LEFT JOIN deliveries d ON d.card_id = c.id"
            " WHERE (c.state = 'delivered') <> (d.card_id IS NOT NULL)"
        ),
        "I5 captures": (
            "SELECT p.payment_id FROM payments p WHERE outcome = 'succeeded' AND (disposition = 'refund')"
            " <> EXISTS (SELECT FROM refunds r WHERE r.payment_id = p.payment_id)"
        ),
        "I8": (
            "SELECT c.id FROM cards c JOIN orders o ON o.id = c.order_id"
            " WHERE o.state IN ('expired', 'refunding', 'refunded')"
        ),
        "held cards of an open order": (
            "SELECT o.id FROM orders o WHERE state = 'pending' AND quantity <>"
            " (SELECT count(*) FROM cards c WHERE c.order_id = o.id AND c.state = 'held')"
        ),
        "I9": (
            "SELECT o.user_id FROM orders o JOIN products p USING (sku) WHERE state IN ('pending', 'paid',"
            " 'delivered') GROUP BY o.user_id, sku, p.per_user_cap HAVING sum(o.quantity) > p.per_user_cap"
        ),
        "I11": "SELECT card_id FROM deliveries WHERE card_id NOT IN (SELECT card_id FROM outbox)",
        "I12": (
            "SELECT o.id FROM orders o JOIN LATERAL (SELECT to_state, lag(to_state) OVER (ORDER BY id) AS"
            " before, from_state, row_number() OVER (ORDER BY id DESC) AS last FROM order_events e"
            " WHERE e.order_id = o.id) e ON true WHERE e.before IS DISTINCT FROM e.from_state"
            " OR (e.last = 1 AND e.to_state <> o.state)"
        ),
    }.items():
        found += [f"{name}: {row}" for row in await shop.rows(sql)]
    return found


@contextlib.asynccontextmanager
async def _started(settings: Settings) -> AsyncIterator[Starlette]:
    app = create_app(settings)
    async with app.router.lifespan_context(app):
        yield app


@contextlib.asynccontextmanager
async def open_shop(settings: Settings) -> AsyncIterator[Shop]:
    """Start a shop on these settings; its stock is loaded."""
    sandbox = create_sandbox(settings)
    mailbox = Mailbox()
    async with (
        sandbox.router.lifespan_context(sandbox),
        serve(sandbox) as address,
        connect(ours := settings.model_copy(update={"sandbox_url": address})) as parts,
        _started(ours) as app,
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop.test") as client,
        httpx.AsyncClient(transport=httpx.ASGITransport(sandbox), base_url="http://sandbox.test") as provider,
    ):
        w = settings.workers
        payments = Payments(parts.database, parts.stock)
        partitions = Partitions(parts.database, settings.database)
        handler = OrderHandler(parts.database, parts.stock, partitions, w, provider=parts.provider.name)
        callbacks = CallbackHandler(parts.database, payments, parts.providers, w)
        recovery = Recovery(parts.database, SecondCopy(parts.redis_volatile, parts.database), handler)
        keeper = StockKeeper(parts.database, parts.redis_durable, parts.stock, settings.stock, recovery)
        await keeper.load()
        yield Shop(
            settings=settings,
            context=app.state.context,
            parts=parts,
            client=client,
            provider=provider,
            partitions=partitions,
            orders=StreamRunner(parts.redis_streams, parts.database, handler, w),
            callbacks=StreamRunner(parts.redis_streams, parts.database, callbacks, w),
            sweeper=Sweeper(parts.database, parts.stock, batch=100),
            cashier=Cashier(parts.database, payments, parts.providers, w),
            outbox=Outbox(parts.database, mailbox, settings.outbox, link=lambda order: f"http://x/{order}"),
            keeper=keeper,
            recovery=recovery,
            payments=payments,
            mailbox=mailbox,
        )


def fill(settings: Settings) -> None:
    """Seed the catalogue of the tests."""
    with psycopg.connect(settings.require("database_url")) as connection:
        seed(settings.catalog.directory, connection, Vault(CARD_KEY))


@pytest.fixture
async def shop(shop_settings: Settings) -> AsyncIterator[Shop]:
    """A seeded shop: `client` speaks to its app, `provider` to the sandbox; workers are called by hand."""
    fill(shop_settings)
    async with open_shop(shop_settings) as running:
        yield running


OpenShop = Callable[[Settings], contextlib.AbstractAsyncContextManager[Shop]]


@pytest.fixture
def fill_shop() -> Callable[[Settings], None]:
    """`fill_shop(settings)`: seed the tests' catalogue."""
    return fill


@pytest.fixture
def start_shop() -> OpenShop:
    """`start_shop(settings)`: a second shop process's worth of parts, or one on changed settings."""
    return open_shop
