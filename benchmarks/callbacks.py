"""A storm of payment callbacks, each acknowledged soon, its effects once: `python -m benchmarks.callbacks`.

Orders are taken and paid at the sandbox, whose own callbacks are put off. Then each callback is sent many
times, in any order, signed, over some connections to the gateway. Now and then the same body goes to an
address of the same shop, by the same gateway, at which nothing is done. `tidegate audit` judges the effects.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvloop
from standardwebhooks.webhooks import Webhook

from benchmarks import machine
from benchmarks.orders.goods import SKU
from benchmarks.orders.ours import Tidegate, short_folder
from benchmarks.orders.wire import Broken, Line
from benchmarks.report import percentile

_EMPTY = "/callbacks/nobody"  # 404: the shop has no such provider, and asks no store
_PUT_OFF = 3600  # seconds; the sandbox's own callbacks are not what is measured
_LOOK_EVERY = 0.2  # seconds, at an order that has no checkout yet
_SETTLE = 120.0  # seconds for the stream to be worked off
_LANES = 32  # connections on which orders are made beforehand


async def _paid(shop: Tidegate, count: int) -> list[dict[str, Any]]:
    """Take so many orders and pay them; the payments as the sandbox tells them."""
    turns = iter(zip(itertools.count(), await asyncio.to_thread(shop.sessions, count), strict=False))
    body = json.dumps({"sku": SKU, "quantity": 1, "email": "buyer@shop.example"}).encode()
    payments: list[dict[str, Any]] = []

    async def lane() -> None:
        door, till = Line(shop.url), Line(shop.state["urls"]["sandbox"])
        for turn, token in turns:
            cookie = f"Cookie: session={token}\r\n"
            order = await _until(
                202, door, "POST", "/api/orders", f"{cookie}Idempotency-Key: {turn}\r\n", body
            )
            path = f"/api/orders/{order['order_id']}"
            seen: dict[str, Any] = {}
            while not seen.get("pay_url"):
                await asyncio.sleep(_LOOK_EVERY)
                seen = await _until(200, door, "GET", path, cookie)
            pay = f"/checkouts/{seen['pay_url'].rpartition('/')[2]}/pay"
            later = json.dumps({"outcome": "success", "delay": _PUT_OFF}).encode()
            payments.append(await _until(200, till, "POST", pay, "", later))

    await asyncio.gather(*(lane() for _ in range(_LANES)))
    return payments


async def _until(status: int, line: Line, method: str, path: str, headers: str, body: bytes = b"") -> Any:  # noqa: ANN401 - whatever the server says
    """Ask until the answer has this status."""
    while True:
        try:
            answer = await line.ask(method, path, headers, body)
        except Broken:
            continue
        if answer.status == status:
            return answer.json()
        await asyncio.sleep(answer.pause() / 4)


def _callback(payment: dict[str, Any]) -> bytes:
    names = ("checkout_id", "order_id", "amount_cents", "currency")
    data = {"payment_id": payment["id"], "channel": "sandbox", **{name: payment[name] for name in names}}
    return json.dumps({"type": "payment.succeeded", "data": data}).encode()


class Storm:
    """Callbacks in any order, and how long each took to be acknowledged."""

    def __init__(
        self, shop: Tidegate, secret: str, callbacks: Sequence[bytes], times: int, seed: int
    ) -> None:
        self._url = shop.url
        self._sign = Webhook(secret)
        order = [number for number in range(len(callbacks)) for _ in range(times)]
        random.Random(seed).shuffle(order)
        self._callbacks = callbacks
        self._order = iter(order)  # shared by all connections
        self.took: list[float] = []
        self.empty: list[float] = []
        self.answers: Counter[int] = Counter()

    async def blow(self, connections: int, probe_every: int) -> None:
        """Send all, closed-loop; each connection asks the empty endpoint once for `probe_every` callbacks."""
        await asyncio.gather(*(self._send(probe_every) for _ in range(connections)))

    async def _send(self, probe_every: int) -> None:
        line = Line(self._url)
        for turn, number in enumerate(self._order):
            if turn % probe_every == 0:
                began = time.perf_counter()
                await line.ask("POST", _EMPTY, "", self._callbacks[number])
                self.empty.append(time.perf_counter() - began)
            body, now = self._callbacks[number], datetime.now(UTC)
            name = f"msg_{number}"
            signature = self._sign.sign(name, now, body.decode())
            headers = (
                f"Webhook-Id: {name}\r\nWebhook-Timestamp: {int(now.timestamp())}\r\n"
                f"Webhook-Signature: {signature}\r\n"
            )
            began = time.perf_counter()
            answer = await line.ask("POST", "/callbacks/sandbox", headers, body)
            self.took.append(time.perf_counter() - began)
            self.answers[answer.status] += 1
        line.close()


async def _measure(given: argparse.Namespace) -> int:
    print(json.dumps(machine.describe()))
    print(f"load average {machine.load_average():.2f} before")
    settings = {"stock": {"hold_for": "1h"}, "workers": {"poll_after": "1h"}}
    with short_folder() as folder, Tidegate(folder / "stack", cards=given.payments, shop=settings) as shop:
        payments = await _paid(shop, given.payments)
        bodies = [_callback(payment) for payment in payments]
        secret = shop.environment["TIDEGATE_SANDBOX_SECRET"]
        storm = Storm(shop, secret, bodies, given.times, given.seed)
        before, began = shop.cpu(), time.monotonic()
        await storm.blow(given.connections, given.probe_every)
        seconds, after = time.monotonic() - began, shop.cpu()
        sent = len(storm.took)
        print(
            f"{len(bodies):,} callbacks, each {given.times} times, permuted,"
            f" {given.connections} connections: "
            f"{sent:,} in {seconds:.1f} s, answers {dict(storm.answers)}"
        )
        for share in (0.5, 0.99, 0.999):
            ours, theirs = percentile(storm.took, share) * 1e3, percentile(storm.empty, share) * 1e3
            print(
                f"  p{share * 100:g}: acknowledged in {ours:.1f} ms, empty endpoint {theirs:.1f} ms,"
                f" ratio {ours / theirs:.2f}"
            )
        spent = {name: (after[name] - before[name]) / sent * 1e6 for name in after}
        print("  CPU µs a callback: " + ", ".join(f"{name} {cost:.0f}" for name, cost in spent.items()))
        good = await _judge(shop, folder, [payment["order_id"] for payment in payments])
    print(f"load average {machine.load_average():.2f} after")
    return 0 if good and storm.answers == {200: sent} else 1


async def _judge(shop: Tidegate, folder: Path, orders: Sequence[str]) -> bool:
    """Whether each of the orders was delivered, once."""
    answered = folder / "answered"
    await asyncio.to_thread(answered.write_text, "".join(f"{each}\n" for each in orders))
    began = time.monotonic()
    audit = await asyncio.to_thread(shop.audit, answered, _SETTLE)
    delivered = await asyncio.to_thread(shop.count, "SELECT count(*) FROM orders WHERE state = 'delivered'")
    cards = await asyncio.to_thread(shop.count, "SELECT count(*) FROM deliveries")
    print(f"  {delivered:,} orders delivered, {cards:,} cards, of {len(orders):,}")
    said = audit.stdout.splitlines()[-1] if audit.stdout else audit.stderr
    print(f"  audit, after {time.monotonic() - began:.1f} s: {said}")
    if audit.returncode:
        print(audit.stdout)
    return audit.returncode == 0 and delivered == cards == len(orders)


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.callbacks",
        description=__doc__,
        formatter_class=argparse.RawTextHelpFormatter,
    )
    parser.add_argument("--payments", type=int, default=10_000)
    parser.add_argument("--times", type=int, default=20)
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--probe-every", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    return uvloop.run(_measure(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
