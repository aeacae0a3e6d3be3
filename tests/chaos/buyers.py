"""Clients of a sale: one after the other each plays buyers who pay, fail, give up, double-click and retry."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import time
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import urlsplit

from ops.rehearsal.client import Answer, Client, Lost
from tests.chaos import catalog
from tests.chaos.forger import Forger, Known
from tests.chaos.journal import End, Journal
from tests.chaos.world import HOLD_FOR

_WAIT = 6.0  # seconds for one answer
_HURRY = 0.15  # the same, of a buyer who clicks again
_PATIENCE = 12.0  # seconds for what must come next
_LAST_LOOK = 90.0  # seconds for somebody to say what became of an order, once the sale is over
_BEHAVIOURS = {
    "pay": 8,  # orders, pays, waits for the key
    "storm": 2,  # the same, and the provider tells it many times, in any order
    "fail": 2,  # declined first, then pays or leaves
    "abandon": 2,  # never pays
    "duplicate": 2,  # clicks twice at once, pays twice
    "retry": 3,  # asks again with the same key until answered
    "late": 2,  # pays after the hold is over
    "early": 1,  # pays at the provider before the order has a row
    "wrong": 1,  # the same, one cent off
}
_FINAL = {403, 404, 409, 410, 422}  # who is answered so asks no more
# Answers by which the gateway says that nothing was passed on.
_REFUSED = ("temporary-reduced-capacity", "upstream-unavailable")


@dataclass(frozen=True, slots=True)
class Placed:
    """An order that was answered 202."""

    order_id: str
    token: str
    sku: str
    quantity: int


class Shopper:
    """One client with one journal; plays a buyer at a time until told to stop.

    Attributes:
        placed: every order answered 202.
    """

    def __init__(self, url: str, sandbox: str, random: Random, journal: Journal, forger: Forger) -> None:
        self.placed: list[Placed] = []
        self._url = url
        self._sandbox = sandbox
        self._random = random
        self._journal = journal
        self._forger = forger
        self._shop = Client(url)
        self._bank = Client(sandbox)
        self._over = asyncio.Event()

    async def run(self) -> None:
        """Buyer after buyer, until `leave` is called."""
        while not self._over.is_set():
            await self._buyer()
            await self._pause(self._random.uniform(0.1, 0.8))

    def leave(self) -> None:
        """The sale is over: nobody waits for anything any more."""
        self._over.set()

    async def look_again(self) -> None:
        """After the sale: what became of each order, read until somebody answers."""
        for order in self.placed:
            await self._read(order, final=True)

    def close(self) -> None:
        """Hang up."""
        self._shop.close()
        self._bank.close()

    # ---- one buyer ---------------------------------------------------------------------------

    async def _pause(self, seconds: float) -> bool:
        """Wait; whether the sale still goes on."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._over.wait(), seconds)
        return not self._over.is_set()

    async def _buyer(self) -> None:
        self._shop.close()
        self._shop = Client(self._url)
        answer, _ = await self._call(self._shop, "POST", "/api/session", {})
        if answer is None or answer.status != 201:
            return
        user = _user(self._shop.cookie)
        behaviour = self._random.choices(list(_BEHAVIOURS), list(_BEHAVIOURS.values()))[0]
        product = self._random.choices(catalog.PRODUCTS, (3, 6, 2))[0]
        wanted = {"sku": product.sku, "quantity": self._random.randint(1, min(3, product.cap))}
        for _ in range(self._random.choice((1, 1, 1, 2))):  # some come back, until their cap is reached
            key = str(uuid.UUID(int=self._random.getrandbits(128), version=4))
            await getattr(self, f"_{behaviour}")(user, key, wanted)

    async def _pay(self, user: str, key: str, wanted: dict[str, Any]) -> None:
        if order := await self._order(user, key, wanted):
            await self._settle(order)

    async def _storm(self, user: str, key: str, wanted: dict[str, Any]) -> None:
        if order := await self._order(user, key, wanted):
            copies, rounds = self._random.randint(1, 20), self._random.randint(1, 20)
            delay = self._random.choice((0.0, 0.5, HOLD_FOR + 2.0))  # some come when all is over
            await self._settle(order, duplicates=copies, storm=rounds, delay=delay)

    async def _fail(self, user: str, key: str, wanted: dict[str, Any]) -> None:
        if (order := await self._order(user, key, wanted)) and (pay := await self._pay_path(order)):
            await self._pay_at(order, pay, outcome="fail", duplicates=self._random.randint(0, 3))
            if self._random.random() < 0.6:
                await self._settle(order, storm=self._random.randint(0, 5))

    async def _abandon(self, user: str, key: str, wanted: dict[str, Any]) -> None:
        if order := await self._order(user, key, wanted):
            await self._read(order)

    async def _duplicate(self, user: str, key: str, wanted: dict[str, Any]) -> None:
        other = Client(self._url, cookie=self._shop.cookie)
        try:
            orders = await asyncio.gather(
                self._order(user, key, wanted), self._order(user, key, wanted, client=other)
            )
        finally:
            other.close()
        if (order := orders[0] or orders[1]) and (pay := await self._pay_path(order)):
            bank = Client(self._sandbox)
            try:
                await asyncio.gather(
                    self._pay_at(order, pay, duplicates=2), self._pay_at(order, pay, duplicates=2, bank=bank)
                )
            finally:
                bank.close()
            await self._until(order, {"delivered", "refunded"})

    async def _retry(self, user: str, key: str, wanted: dict[str, Any]) -> None:
        wait = _HURRY
        for _ in range(20):
            order, status = await self._try_order(user, key, wanted, wait=wait)
            if order is not None:
                await self._settle(order)
            if order is not None or status in _FINAL:
                return
            if not await self._pause(self._random.uniform(0.05, 0.5)):
                return
            wait = self._random.choice((_HURRY, _WAIT))

    async def _late(self, user: str, key: str, wanted: dict[str, Any]) -> None:
        if (order := await self._order(user, key, wanted)) and (pay := await self._pay_path(order)):
            await self._pause(HOLD_FOR + self._random.uniform(-1.0, 2.0))
            await self._pay_at(order, pay, storm=self._random.randint(0, 3))
            await self._until(order, {"delivered", "refunded"})

    async def _early(self, user: str, key: str, wanted: dict[str, Any], cents: int = 0) -> None:
        """Order ids are no secret: anybody may open a checkout under one, and pay it."""
        order = await self._order(user, key, wanted)
        if order is None:
            return
        price = next(product.price for product in catalog.PRODUCTS if product.sku == order.sku)
        body = {
            "order_id": order.order_id,
            "amount_cents": price * order.quantity + cents,
            "currency": "EUR",
            "callback_url": f"{self._url}/callbacks/sandbox",
            "return_url": f"{self._url}/orders/{order.order_id}",
        }
        answer, _ = await self._call(self._bank, "POST", "/checkouts", body)
        if answer is not None and answer.status in {200, 201}:
            await self._pay_at(order, urlsplit(answer.json()["url"]).path)
            await self._until(order, {"delivered", "refunded"})

    async def _wrong(self, user: str, key: str, wanted: dict[str, Any]) -> None:
        await self._early(user, key, wanted, self._random.choice((-1, 1)))

    # ---- its steps ---------------------------------------------------------------------------

    async def _order(
        self, user: str, key: str, wanted: dict[str, Any], *, client: Client | None = None
    ) -> Placed | None:
        order, _ = await self._try_order(user, key, wanted, client=client)
        return order

    async def _try_order(
        self,
        user: str,
        key: str,
        wanted: dict[str, Any],
        *,
        client: Client | None = None,
        wait: float = _WAIT,
    ) -> tuple[Placed | None, int | None]:
        """An order, or the status it was refused with; neither when nobody answered."""
        number = self._journal.invoke("order", user=user, key=key, **wanted)
        body = {**wanted, "email": "buyer@example.org"}
        answer, end = await self._call(
            client or self._shop, "POST", "/api/orders", body, wait=wait, idempotency_key=key
        )
        if answer is None or answer.status != 202:
            status = answer.status if answer else None
            self._journal.end(number, end, status=status)
            return None, status
        said = answer.json()
        self._journal.end(number, "ok", order_id=said["order_id"])
        order = Placed(said["order_id"], said["token"], wanted["sku"], wanted["quantity"])
        self.placed.append(order)
        return order, 202

    async def _pay_path(self, order: Placed) -> str | None:
        """Where the order is paid, once it can be."""
        async with _patience():
            while True:
                state = await self._read(order)
                if state and state.get("pay_url"):
                    return str(urlsplit(state["pay_url"]).path)
                over = state and state["status"] not in {"reserved", "pending"}
                if over or not await self._pause(0.3):
                    return None
        return None

    async def _settle(self, order: Placed, **how: Any) -> None:
        """Pay, and wait for the key or the money."""
        if pay := await self._pay_path(order):
            await self._pay_at(order, pay, **how)
            await self._until(order, {"delivered", "refunded"})

    async def _pay_at(
        self, order: Placed, path: str, *, outcome: str = "success", bank: Client | None = None, **how: Any
    ) -> None:
        number = self._journal.invoke("pay", order_id=order.order_id, outcome=outcome)
        answer, end = await self._call(bank or self._bank, "POST", f"{path}/pay", {"outcome": outcome, **how})
        if answer is None or answer.status != 200:
            self._journal.end(number, end, status=answer.status if answer else None)
            return
        payment = answer.json()
        self._journal.end(number, "ok", payment_id=payment["id"], amount_cents=payment["amount_cents"])
        if outcome == "success":
            self._forger.heard.append(
                Known(payment["id"], payment["checkout_id"], order.order_id, payment["amount_cents"])
            )

    async def _until(self, order: Placed, states: set[str]) -> None:
        async with _patience():
            while True:
                state = await self._read(order)
                # As often as the storefront asks.
                if (state and state["status"] in states) or not await self._pause(0.4):
                    return

    async def _read(self, order: Placed, *, final: bool = False) -> dict[str, Any] | None:
        number = self._journal.invoke("read", order_id=order.order_id, final=final)
        path = f"/api/orders/{order.order_id}?token={order.token}"
        until = time.monotonic() + (_LAST_LOOK if final else 0)
        while True:
            answer, end = await self._call(self._shop, "GET", path, None)
            if answer is not None and answer.status == 200:
                state = dict(answer.json())
                self._journal.end(number, "ok", status=state["status"], cards=state.get("cards", []))
                return state
            if (answer is not None and answer.status == 404) or time.monotonic() >= until:
                break
            # All buyers are one address: who is told to come back later, and doesn't, is refused for ever.
            later = answer.headers.get("retry-after") if answer is not None else None
            await asyncio.sleep(float(later) if later else 0.25)
        self._journal.end(number, end, status=answer.status if answer else None)
        return None

    @staticmethod
    async def _call(
        client: Client, method: str, path: str, body: Any, *, wait: float = _WAIT, **headers: str
    ) -> tuple[Answer | None, End]:
        """One request: its answer, if one came, and whether it can have happened."""
        try:
            async with asyncio.timeout(wait):
                answer = await client.call(method, path, body, **headers)
        except (TimeoutError, *Lost):
            return None, "unknown"
        if answer.status < 400:
            return answer, "ok"
        if answer.status < 500 or any(name in answer.body.decode("latin-1") for name in _REFUSED):
            return answer, "fail"
        return answer, "unknown"


@contextlib.asynccontextmanager
async def _patience() -> AsyncIterator[None]:
    """Ends the block quietly after `_PATIENCE` seconds."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_PATIENCE):
            yield


def _user(cookie: str) -> str:
    """Whom a session names, read without checking it."""
    claims = cookie.partition("=")[2].split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))["sub"])
