"""The crowd: who only looks, and who buys. Each has a connection of its own and comes when it wants."""

from __future__ import annotations

import asyncio
import contextlib
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any
from urllib.parse import urlsplit

from ops.errors import OpsError
from ops.rehearsal.client import Answer, Client, Lost
from ops.rehearsal.notes import Buyer, Note, Notes

ANSWER = 10.0  # seconds; who gets no answer by then calls it lost
PATIENCE = 45.0  # seconds that a buyer keeps trying
POLL = 0.4  # seconds between two looks at an order, as the storefront does
_PAUSE = (0.1, 0.6)  # seconds of thought between two clicks
_LONGEST = 5.0  # seconds that anybody waits before asking again, whatever Retry-After says
_TURNED_AWAY = (429, 503)
_DOUBLE, _LEAVES = 0.1, 0.02  # of the buyers: click twice; never pay


@dataclass(frozen=True, slots=True)
class Scene:
    """Where it all happens.

    Attributes:
        shop: the gateway, without a trailing slash.
        sandbox: the payment provider.
        sku: what everybody wants.
        seed: decides who clicks twice, leaves, and pauses how long.
    """

    shop: str
    sandbox: str
    sku: str
    seed: int = 0


async def play(scene: Scene, plan: Sequence[float], onlookers: int, notes: Notes) -> None:
    """Everybody comes by the plan, whether or not those before were answered; returns when all have gone.

    Args:
        scene: where.
        plan: seconds from now, ascending.
        onlookers: how many come with each buyer and only look.
        notes: written into.
    """
    began = time.monotonic()
    people: list[asyncio.Task[None]] = []
    for number, at in enumerate(plan):
        await asyncio.sleep(max(0.0, began + at - time.monotonic()))
        notes.late.append(time.monotonic() - began - at)
        random = Random(f"{scene.seed} {number}")  # noqa: S311 - no secret
        visitor = Visitor(scene, random, notes, began)
        if number % (onlookers + 1):
            people.append(asyncio.create_task(visitor.look()))
        else:
            buyer = Buyer(number, twice=random.random() < _DOUBLE, leaves=random.random() < _LEAVES)
            notes.buyers.append(buyer)
            people.append(asyncio.create_task(visitor.buy(buyer)))
    await asyncio.gather(*people)


class Visitor:
    """One person with a browser."""

    def __init__(self, scene: Scene, random: Random, notes: Notes, began: float) -> None:
        self._scene = scene
        self._random = random
        self._notes = notes
        self._began = began
        self._shop = Client(scene.shop)

    async def look(self) -> None:
        """Look at the shop and at what is on sale, and go."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self._browse()
        finally:
            self._shop.close()

    async def buy(self, buyer: Buyer) -> None:
        """Look, order, pay and wait for the key; whoever is turned away comes back as told."""
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE):
                    await self._browse()
                    await self._buy(buyer)
        finally:
            self._shop.close()

    async def _browse(self) -> None:
        # With a session from the start: all come from one address here, and would be counted as one.
        await self._insist("session", "POST", "/api/session", {}, {201})
        sku = self._scene.sku
        for what, path in (
            ("page", "/"),
            ("page", f"/p/{sku}"),
            ("recommendations", f"/api/products/{sku}/recommendations"),
        ):
            await self._ask(what, "GET", path)
            await asyncio.sleep(self._random.uniform(*_PAUSE))

    async def _buy(self, buyer: Buyer) -> None:
        pressed = time.monotonic()
        answer = await self._order(twice=buyer.twice)
        if answer.status != 202:
            buyer.end = "sold out" if answer.status == 410 else "refused"
            buyer.said = "" if answer.status == 410 else f"the order was answered {answer.status}"
            return
        order = answer.json()
        buyer.order_id = str(order["order_id"])
        path = f"/api/orders/{buyer.order_id}"
        state = await self._until(path, lambda said: said.get("pay_url"))
        if buyer.leaves:
            buyer.end = "left"
            return
        await self._pay(buyer, str(state["pay_url"]))
        state = await self._until(path, lambda said: said["status"] in {"delivered", "refunded"})
        buyer.end = str(state["status"])
        buyer.waited = time.monotonic() - pressed
        cards = state.get("cards") or []
        buyer.keys = [str(card["secret"] if isinstance(card, dict) else card) for card in cards]

    async def _order(self, *, twice: bool) -> Answer:
        """The order; pressed twice it is still one."""
        body = {"sku": self._scene.sku, "quantity": 1, "email": "rehearsal@example.org"}
        key = str(uuid.uuid4())
        final = {202, 400, 403, 404, 409, 410, 422}
        first = await self._insist("order", "POST", "/api/orders", body, final, idempotency_key=key)
        if twice and first.status == 202:
            again = await self._insist("order", "POST", "/api/orders", body, final, idempotency_key=key)
            if again.status != 202 or again.json()["order_id"] != first.json()["order_id"]:
                return again
        return first

    async def _pay(self, buyer: Buyer, pay_url: str) -> None:
        if not pay_url.startswith(f"{self._scene.sandbox}/"):
            raise OpsError(
                f"orders are paid at {pay_url}, not at the sandbox {self._scene.sandbox}; "
                "a rehearsal spends no real money: rehearse with a stack whose provider is the sandbox"
            )
        provider = Client(self._scene.sandbox)
        try:
            path = f"{urlsplit(pay_url).path}/pay"
            await self._insist("pay", "POST", path, {"outcome": "success"}, {200, 201, 202, 409}, provider)
            buyer.paid = True
        finally:
            provider.close()

    async def _until(self, path: str, enough: Any) -> dict[str, Any]:  # noqa: ANN401 - a predicate
        while True:
            said = dict((await self._insist("read", "GET", path, None, {200})).json())
            if enough(said):
                return said
            await asyncio.sleep(POLL)

    async def _insist(
        self,
        what: str,
        method: str,
        path: str,
        body: object,
        wanted: set[int],
        client: Client | None = None,
        **headers: str,
    ) -> Answer:
        """Ask until one of the wanted answers comes, each time as late as Retry-After says."""
        while True:
            answer = await self._ask(what, method, path, body, client, **headers)
            if answer is not None and answer.status in wanted:
                return answer
            told = answer.headers.get("retry-after", "") if answer is not None else ""
            wait = min(float(told), _LONGEST) if told.isdigit() else 0.3
            await asyncio.sleep(wait * self._random.uniform(1.0, 1.3))

    async def _ask(
        self,
        what: str,
        method: str,
        path: str,
        body: object = None,
        client: Client | None = None,
        **headers: str,
    ) -> Answer | None:
        """One request, noted; None when no answer came."""
        began = time.monotonic()
        answer = None
        try:
            async with asyncio.timeout(ANSWER):
                answer = await (client or self._shop).call(method, path, body, **headers)
        except (TimeoutError, *Lost, ValueError):
            pass
        status = answer.status if answer is not None else None
        told = None
        if answer is not None and status in _TURNED_AWAY:
            told = answer.headers.get("retry-after", "0").isdigit() and answer.headers["retry-after"] != "0"
        degraded = answer is not None and "tidegate-degraded" in answer.headers
        took = time.monotonic() - began
        self._notes.requests.append(Note(what, began - self._began, took, status, told, degraded))
        return answer


async def walk_through(scene: Scene) -> Buyer:
    """One buyer alone, before the crowd: shows that the way is open, and warms it.

    Raises:
        OpsError: orders are not paid at the sandbox.
    """
    buyer = Buyer(-1)
    visitor = Visitor(scene, Random(scene.seed), Notes(1), time.monotonic())  # noqa: S311 - no secret
    await visitor.buy(buyer)
    return buyer
