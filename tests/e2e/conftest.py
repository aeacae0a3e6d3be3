"""A small HTTP client for thousands of buyers at once, and one buyer's walk."""

from __future__ import annotations

import asyncio
import contextlib
import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest

Lost = (OSError, asyncio.IncompleteReadError, EOFError)  # the connection broke; nobody knows what happened


@dataclass(frozen=True)
class Answer:
    """One HTTP answer; field names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """One keep-alive HTTP/1.1 connection with a cookie jar of one; reconnects when it was closed."""

    url: str
    cookie: str = ""
    _streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = field(default=None, repr=False)

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """One request; raises one of Lost when the connection breaks before the whole answer."""
        parts = urlsplit(self.url)
        if self._streams is None:
            self._streams = await asyncio.open_connection(parts.hostname, parts.port)
        reader, writer = self._streams
        raw = b"" if body is None else json.dumps(body).encode()
        fields = {"host": parts.netloc, "content-length": str(len(raw)), "content-type": "application/json"}
        fields |= {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookie:
            fields["cookie"] = self.cookie
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        try:
            writer.write(f"{method} {path} HTTP/1.1\r\n{head}\r\n".encode() + raw)
            await writer.drain()
            return await self._answer(reader)
        except BaseException:
            self.close()
            raise

    async def _answer(self, reader: asyncio.StreamReader) -> Answer:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while size := int(await reader.readline(), 16):
                body += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        else:
            body = await reader.readexactly(int(headers.get("content-length", "0")))
        if headers.get("connection") == "close":
            self.close()
        if headers.get("set-cookie", "").startswith("session="):
            self.cookie = headers["set-cookie"].partition(";")[0]
        return Answer(int(head[0].split()[1]), headers, body)

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


@dataclass
class Buyer:
    """Somebody who wants one card and does not give up for trifles.

    Attributes:
        outcome: "delivered", "sold out", "refused NNN" or "gave up" in the end.
        order_id: as answered with 202.
        cards: the keys received.
        limited: how often the gate asked to come back later (429 or 503).
        accepted: told the order's id at 202.
    """

    shop: str
    sandbox: str
    sku: str
    patience: float = 60.0  # seconds
    outcome: str = "gave up"
    order_id: str | None = None
    cards: list[str] = field(default_factory=list)
    limited: int = 0
    accepted: Callable[[str], None] = lambda _order_id: None

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
        order = await self._insist(
            client,
            "POST",
            "/api/orders",
            {"sku": self.sku, "quantity": 1, "email": "buyer@example.org"},
            {202, 403, 404, 409, 410, 422},
            idempotency_key=uuid.uuid4().hex,
        )
        if order.status != 202:
            self.outcome = "sold out" if order.status == 410 else f"refused {order.status}"
            return
        self.order_id = str(order.json()["order_id"])
        self.accepted(self.order_id)
        path = f"/api/orders/{self.order_id}"
        state = await self._poll(client, path, lambda body: body.get("pay_url"))
        pay = urlsplit(state["pay_url"]).path + "/pay"
        provider = Client(self.sandbox)
        try:
            await self._insist(provider, "POST", pay, {"outcome": "success"}, {200, 201, 202, 409})
        finally:
            provider.close()
        state = await self._poll(client, path, lambda body: body["status"] in {"delivered", "refunded"})
        self.outcome = state["status"]
        self.cards = [card["secret"] if isinstance(card, dict) else card for card in state.get("cards", [])]

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


@pytest.fixture(scope="session")
def http_client() -> type[Client]:
    """`http_client(url)`: one raw keep-alive connection."""
    return Client


@pytest.fixture(scope="session")
def buyer() -> type[Buyer]:
    """`buyer(shop, sandbox, sku)`: somebody with patience; `await .buy()`, then look at `.outcome`."""
    return Buyer
