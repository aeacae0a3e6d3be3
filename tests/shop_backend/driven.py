"""A shop on real Redis and PostgreSQL, in this process: its app, its provider, its workers by hand."""

from __future__ import annotations

import base64
import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
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
from shop_backend.stock import keys
from shop_backend.stock.records import Snapshot
from shop_backend.stock.second_copy import SecondCopy
from shop_backend.storage.partitions import Partitions
from shop_backend.workers.callbacks import CallbackHandler
from shop_backend.workers.money import Cashier
from shop_backend.workers.orders import OrderHandler
from shop_backend.workers.recovery import Recovery
from shop_backend.workers.runner import StreamRunner
from shop_backend.workers.sweeper import Sweeper
from shop_backend.workers.watch import StockKeeper
from tests.shop_backend.invariants import violations
from tests.shop_backend.serving import serve

SECRET = "whsec_" + base64.b64encode(b"s" * 24).decode()


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
        swept = await self.sweeper.sweep()
        assert swept == 1, swept

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
        found = await violations(self)
        assert not found, found


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
