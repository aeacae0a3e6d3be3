"""Callbacks that nobody should believe, and true ones again: forged, stale, altered, permuted, too early."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any, Literal

from standardwebhooks.webhooks import Webhook

from ops.rehearsal.client import Client, Lost
from tests.chaos.journal import Journal

_AT_ONCE = 8
_WAIT = 5.0  # seconds for one answer
Kind = Literal["forged", "stale", "altered", "swapped", "unknown", "replayed", "failed"]


@dataclass(frozen=True, slots=True)
class Known:
    """A payment the clients made: what its true callback says."""

    payment_id: str
    checkout_id: str
    order_id: str
    amount_cents: int


class Forger:
    """Sends storms of callbacks about payments it heard of.

    Attributes:
        heard: true payments, appended by the buyers.
    """

    def __init__(self, url: str, secret: str, random: Random, journal: Journal) -> None:
        self.heard: list[Known] = []
        self._url = url
        self._signer = Webhook(secret)
        self._other = Webhook("whsec_" + base64.b64encode(b"not the provider's").decode())
        self._random = random
        self._journal = journal

    async def storm(self) -> None:
        """Some of each kind, in any order, several at once."""
        some = self._random.sample(self.heard, min(12, len(self.heard)))
        work: list[tuple[Kind, dict[str, Any]]] = [("unknown", _event(_nobody()))]
        for known in some:
            work += [("replayed", _event(known))] * self._random.randint(1, 20)
            work += [("forged", _event(known)), ("stale", _event(known))]
            work.append(("altered", _event(known, amount=known.amount_cents + self._random.choice((-1, 1)))))
            work.append(("swapped", _event(known, order_id=self._random.choice(some).order_id)))
            work.append(("failed", _event(known, type_="payment.failed")))
        self._random.shuffle(work)
        queue: asyncio.Queue[tuple[Kind, dict[str, Any]]] = asyncio.Queue()
        for each in work:
            queue.put_nowait(each)
        await asyncio.gather(*(self._send(queue) for _ in range(_AT_ONCE)))

    async def _send(self, queue: asyncio.Queue[tuple[Kind, dict[str, Any]]]) -> None:
        client = Client(self._url)
        try:
            while not queue.empty():
                kind, event = queue.get_nowait()
                await self._post(client, kind, event)
        finally:
            client.close()

    async def _post(self, client: Client, kind: Kind, event: dict[str, Any]) -> None:
        body = json.dumps(event)
        at = datetime.now(UTC) - timedelta(minutes=10 if kind == "stale" else 0)
        message = f"msg_{uuid.uuid4().hex}"
        signer = self._other if kind == "forged" else self._signer
        headers = {
            "webhook_id": message,
            "webhook_timestamp": str(int(at.timestamp())),
            "webhook_signature": signer.sign(message, at, body),
        }
        number = self._journal.invoke("callback", kind=kind, payment_id=event["data"]["payment_id"])
        with contextlib.suppress(TimeoutError, *Lost):
            async with asyncio.timeout(_WAIT):
                answer = await client.call("POST", "/callbacks/sandbox", event, **headers)
            self._journal.end(number, "ok" if answer.status == 200 else "fail", status=answer.status)


def _nobody() -> Known:
    return Known(f"pay_{uuid.uuid4().hex}", "chk_none", str(uuid.uuid4()), 100)


def _event(
    known: Known,
    *,
    amount: int | None = None,
    order_id: str | None = None,
    type_: str = "payment.succeeded",
) -> dict[str, Any]:
    """A callback as the provider writes it."""
    return {
        "type": type_,
        "data": {
            "payment_id": known.payment_id,
            "checkout_id": known.checkout_id,
            "order_id": order_id or known.order_id,
            "amount_cents": known.amount_cents if amount is None else amount,
            "currency": "EUR",
            "channel": "sandbox",
        },
    }
