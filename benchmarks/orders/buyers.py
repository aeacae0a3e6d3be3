"""Who buys: each orders, pays at the provider, and looks until the key is there."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from benchmarks.orders.wire import Answer, Broken, Line

# Between two looks at an order, as pages/static/order.js has it: longer while nothing changes.
LOOK_AFTER, LONGER, LONGEST, SPREAD = 0.5, 1.3, 5.0, 0.25  # seconds, but the second, a factor
PATIENCE = 30.0  # seconds after which a buyer gives an order up
BUSY = frozenset({429, 502, 503, 504})


@dataclass(slots=True)
class Bought:
    """One order, as its buyer saw it; moments by the monotonic clock, None: it did not come to that."""

    order_id: str
    ordered: float
    accepted: float
    paid: float | None = None
    delivered: float | None = None
    cards: tuple[str, ...] = ()


@dataclass
class Journal:
    """What all buyers saw."""

    bought: list[Bought] = field(default_factory=list)
    answers: Counter[str] = field(default_factory=Counter)

    def saw(self, what: str, answer: Answer | None) -> None:
        """Count an answer; None is none."""
        self.answers[f"{what} {answer.status if answer else 'broken'}"] += 1


class Crowd:
    """Buyers who come one after the other, `at_once` at a time.

    Args:
        shop: base URL of the shop (the gateway before it).
        sku: what all of them want.
        tokens: a session for each who will come.
        journal: where they write.
    """

    def __init__(self, shop: str, sku: str, tokens: list[str], journal: Journal) -> None:
        self._shop = shop
        self._body = json.dumps({"sku": sku, "quantity": 1, "email": "buyer@shop.example"}).encode()
        self._tokens = tokens
        self._turns = itertools.count()
        self._journal = journal
        self._over = False

    async def come(self, at_once: int, seconds: float) -> None:
        """Buy for so long; who has ordered by then sees it through."""
        async with asyncio.TaskGroup() as group:
            for number in range(at_once):
                group.create_task(self._queue(number / at_once))
            await asyncio.sleep(seconds)
            self._over = True

    async def _queue(self, wait: float) -> None:
        """One place in the crowd, taken by one buyer after the other."""
        await asyncio.sleep(wait)  # not all in the same moment
        shop, till = Line(self._shop), _Till()
        try:
            while not self._over and (turn := next(self._turns)) < len(self._tokens):
                await self._buy(shop, till, self._tokens[turn], turn)
        finally:
            shop.close()
            till.close()

    async def _buy(self, shop: Line, till: _Till, token: str, turn: int) -> None:
        cookie = f"Cookie: session={token}\r\n"
        began = time.monotonic()
        order = await self._order(shop, cookie, turn, began)
        if order is None:
            return
        self._journal.bought.append(order)
        pause, shown = LOOK_AFTER, ""
        while time.monotonic() - began < PATIENCE:
            await asyncio.sleep(pause + random.random() * SPREAD)
            try:
                answer = await shop.ask("GET", f"/api/orders/{order.order_id}", cookie)
            except Broken:
                self._journal.saw("look", None)
                continue
            self._journal.saw("look", answer)
            if answer.status != 200:
                continue
            seen = answer.json()
            state = f"{seen['status']} {seen.get('pay_url')}"
            pause = LOOK_AFTER if state != shown else min(pause * LONGER, LONGEST)
            shown = state
            if seen["status"] == "delivered":
                order.delivered = time.monotonic()
                order.cards = tuple(seen["cards"])
                return
            if seen["status"] in ("expired", "refunded"):
                return
            if order.paid is None and seen.get("pay_url") and await self._pay(till, seen["pay_url"]):
                order.paid = time.monotonic()

    async def _order(self, shop: Line, cookie: str, turn: int, began: float) -> Bought | None:
        headers = f"{cookie}Idempotency-Key: order-{turn}\r\n"
        while time.monotonic() - began < PATIENCE and not self._over:
            asked = time.monotonic()
            try:
                answer = await shop.ask("POST", "/api/orders", headers, self._body)
            except Broken:
                self._journal.saw("order", None)
                continue
            self._journal.saw("order", answer)
            if answer.status == 202:
                return Bought(answer.json()["order_id"], asked, time.monotonic())
            if answer.status not in BUSY:
                return None
            await asyncio.sleep(answer.pause())
        return None

    async def _pay(self, till: _Till, url: str) -> bool:
        try:
            answer = await till.pay(url)
        except Broken:
            self._journal.saw("pay", None)
            return False
        self._journal.saw("pay", answer)
        return answer.status == 200


class _Till:
    """The provider's checkout page."""

    def __init__(self) -> None:
        self._line: Line | None = None
        self._at = ""

    async def pay(self, url: str) -> Answer:
        parts = urlsplit(url)
        if self._line is None or self._at != parts.netloc:
            self._line, self._at = Line(f"http://{parts.netloc}"), parts.netloc
        return await self._line.ask("POST", f"{parts.path}/pay", body=b'{"outcome": "success"}')

    def close(self) -> None:
        if self._line is not None:
            self._line.close()
