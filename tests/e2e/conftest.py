"""One buyer's walk, for thousands of them at once."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from playwright.sync_api import Browser, expect, sync_playwright

from ops.rehearsal.client import Answer, Client, Lost
from tests.waiting import PATIENCE


@dataclass
class Buyer:
    """Somebody who wants one card and does not give up for trifles.

    Attributes:
        outcome: "delivered", "sold out", "refused NNN" or "gave up" in the end.
        order_id: as answered with 202.
        cards: the keys received.
        limited: how often the gate asked to come back later (429 or 503).
        accepted: told the order's id at 202.
        repeats: order again with the same key before paying, as an impatient page does.
    """

    shop: str
    sandbox: str
    sku: str
    patience: float = 3 * PATIENCE  # seconds; a thousand of them keep a machine busy
    outcome: str = "gave up"
    order_id: str | None = None
    cards: list[str] = field(default_factory=list)
    limited: int = 0
    accepted: Callable[[str], None] = lambda _order_id: None
    repeats: bool = False

    async def buy(self) -> None:
        """Session, order, payment, card; whatever breaks on the way is tried again."""
        client = Client(self.shop)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self.patience):
                    await self._buy(client)
        finally:
            client.close()

    async def _buy(self, client: Client) -> None:
        await self._insist(client, "POST", "/api/session", {}, {201})
        key = uuid.uuid4().hex
        order = await self._order(client, key)
        if order.status != 202:
            self.outcome = "sold out" if order.status == 410 else f"refused {order.status}"
            return
        self.order_id = str(order.json()["order_id"])
        self.accepted(self.order_id)
        path = f"/api/orders/{self.order_id}"
        state = await self._poll(client, path, lambda body: body.get("pay_url"))
        if self.repeats:
            again = await self._order(client, key)
            if again.status != 202 or str(again.json()["order_id"]) != self.order_id:
                self.outcome = f"a repeat was answered {again.status}"
                return
        pay = urlsplit(state["pay_url"]).path + "/pay"
        provider = Client(self.sandbox)
        try:
            await self._insist(provider, "POST", pay, {"outcome": "success"}, {200, 201, 202, 409})
        finally:
            provider.close()
        state = await self._poll(client, path, lambda body: body["status"] in {"delivered", "refunded"})
        self.outcome = state["status"]
        self.cards = [card["secret"] if isinstance(card, dict) else card for card in state.get("cards", [])]

    async def _order(self, client: Client, key: str) -> Answer:
        return await self._insist(
            client,
            "POST",
            "/api/orders",
            {"sku": self.sku, "quantity": 1, "email": "buyer@example.org"},
            {202, 403, 404, 409, 410, 422},
            idempotency_key=key,
        )

    async def _poll(self, client: Client, path: str, enough: Any) -> dict[str, Any]:
        while True:
            body = (await self._insist(client, "GET", path, None, {200})).json()
            if enough(body):
                return dict(body)
            await asyncio.sleep(0.3)  # as the storefront does

    async def _insist(
        self, client: Client, method: str, path: str, body: Any, wanted: set[int], **headers: str
    ) -> Answer:
        while True:
            try:
                answer = await client.call(method, path, body, **headers)
            except Lost:
                await asyncio.sleep(0.2)
                continue
            if answer.status in wanted:
                return answer
            self.limited += answer.status in {429, 503}
            await asyncio.sleep(min(float(answer.headers.get("retry-after", "0.3")), 2.0))


def _trade(stack: Any) -> None:
    buyer = Buyer(stack.url, stack.sandbox_url, "steam-20")
    asyncio.run(buyer.buy())
    assert buyer.outcome == "delivered", buyer
    with httpx.Client(base_url=stack.url) as shopper:
        shopper.post("/api/session", json={}).raise_for_status()
        for _ in range(2):
            for path in ("/", "/api/products/steam-20", "/api/me/profile", "/nowhere"):
                shopper.get(path)
        codes = [shopper.post("/api/orders", json={}).status_code for _ in range(7)]
    assert set(codes) == {400, 429}, codes  # no Idempotency-Key; then over the checkout limit
    operator = {"Authorization": f"Bearer {stack.admin_token}"}
    feature = f"{stack.admin_url}/api/features/recommendations"
    for state in ("off", "auto"):
        httpx.put(feature, json={"state": state}, headers=operator).raise_for_status()
        httpx.get(f"{stack.url}/api/products/steam-20/recommendations").raise_for_status()


@pytest.fixture(scope="session")
def trade() -> Callable[[Any], None]:
    """`trade(stack)`: a purchase, and of every other outcome that a well stack has, a few requests."""
    return _trade


@pytest.fixture(scope="session")
def http_client() -> type[Client]:
    """`http_client(url)`: one raw keep-alive connection."""
    return Client


@pytest.fixture(scope="session")
def buyer() -> type[Buyer]:
    """`buyer(shop, sandbox, sku)`: somebody with patience; `await .buy()`, then look at `.outcome`."""
    return Buyer


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The system's Chromium; without one the tests are skipped, unless a browser is demanded."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        missing = "no chromium on PATH; install it, or unset TIDEGATE_REQUIRE_BROWSER"
        if os.environ.get("TIDEGATE_REQUIRE_BROWSER") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    expect.set_options(timeout=PATIENCE * 1000)
    with sync_playwright() as playwright:
        # Chromium's own sandbox refuses root; the pages are ours.
        chromium = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield chromium
        chromium.close()
