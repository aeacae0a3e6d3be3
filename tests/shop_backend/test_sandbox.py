"""The payment provider, over real sockets: its ledger, its callbacks, its page."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import random
import signal
import socket
import stat
import subprocess
import sys
import textwrap
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from shop_backend.config import Settings
from shop_backend.errors import SetupError
from shop_backend.sandbox import callbacks
from shop_backend.sandbox.app import create_app
from shop_backend.sandbox.callbacks import LAST_RETRY, back_off
from shop_backend.sandbox.debts import Callback, Debts
from shop_backend.sandbox.ledger import Ledger
from shop_backend.sandbox.requests import is_under
from tests.waiting import until

SECRET = "whsec_" + base64.b64encode(b"a rehearsal secret, 32 bytes ok!").decode()


@contextlib.asynccontextmanager
async def served(app: Starlette) -> AsyncIterator[str]:
    """Serve an app on a port of its own; yields its URL."""
    door = socket.socket()
    door.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on"))
    task = asyncio.create_task(server.serve(sockets=[door]))
    while not server.started:
        if task.done():
            task.result()
        await asyncio.sleep(0)
    try:
        yield f"http://127.0.0.1:{door.getsockname()[1]}"
    finally:
        server.should_exit = True
        await task
        door.close()


class Merchant:
    """A shop that takes callbacks, or refuses the first few."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, dict[str, Any]]] = []
        self.refused = 0
        self.refuse = 0  # how many to answer with 503 from now on
        self.app = Starlette(routes=[Route("/callbacks/sandbox", self.callback, methods=["POST"])])

    async def callback(self, request: Request) -> Response:
        body = await request.body()
        Webhook(SECRET).verify(body, dict(request.headers))
        if self.refuse:
            self.refuse -= 1
            self.refused += 1
            return PlainTextResponse("busy", 503)
        self.taken.append((request.headers["webhook-id"], json.loads(body)))
        return PlainTextResponse("ok")


class Shop:
    """A provider and a merchant that know each other."""

    def __init__(
        self, merchant: Merchant, merchant_url: str, provider_url: str, app: Starlette | None = None
    ) -> None:
        self.merchant = merchant
        self.merchant_url = merchant_url
        self.url = provider_url
        self.ledger = app.state.ledger if app else None
        self.http = httpx.AsyncClient(base_url=provider_url)

    def order(self, order_id: str = "order-1", **changes: Any) -> dict[str, Any]:
        body: dict[str, Any] = {
            "order_id": order_id,
            "amount_cents": 999,
            "currency": "EUR",
            "callback_url": f"{self.merchant_url}/callbacks/sandbox",
            "return_url": f"{self.merchant_url}/orders/{order_id}",
            "description": "1 × Emberfall",
        }
        return {**body, **changes}

    async def checkout(self, order_id: str = "order-1") -> dict[str, Any]:
        answer = await self.http.post("/checkouts", json=self.order(order_id))
        assert answer.status_code in (200, 201), answer.text
        return dict(answer.json())

    async def pay(self, checkout: dict[str, Any], **body: Any) -> httpx.Response:
        return await self.http.post(f"/checkouts/{checkout['id']}/pay", json={"outcome": "success", **body})


def sandbox_settings(data_dir: Path, shop_url: str, sandbox_url: str = "http://127.0.0.1:8200") -> Settings:
    return Settings.model_validate(
        {
            "sandbox_secret": SECRET,
            "data_dir": data_dir,
            "shop_url": shop_url,
            "sandbox_url": sandbox_url,
        }
    )


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    """A provider with its merchant."""
    merchant = Merchant()
    async with served(merchant.app) as merchant_url:
        app = create_app(sandbox_settings(tmp_path, merchant_url))
        async with served(app) as url:
            shop = Shop(merchant, merchant_url, url, app)
            async with shop.http:
                yield shop


# ---- checkouts -------------------------------------------------------------------------------


async def test_an_order_has_one_checkout(shop: Shop) -> None:
    """Asked twice for the same order, the provider answers with the same checkout."""
    first = await shop.http.post("/checkouts", json=shop.order())
    second = await shop.http.post("/checkouts", json=shop.order())

    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json() == second.json()
    assert first.json()["state"] == "open"


async def test_many_at_once_make_one_checkout(shop: Shop) -> None:
    """Fifty simultaneous requests for one order make one checkout."""
    made = await asyncio.gather(*(shop.checkout() for _ in range(50)))
    assert len({each["id"] for each in made}) == 1


async def test_another_amount_for_the_same_order_is_a_conflict(shop: Shop) -> None:
    """An order can't change its price once the buyer may be paying."""
    await shop.checkout()
    answer = await shop.http.post("/checkouts", json=shop.order(amount_cents=1))
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"


async def test_an_order_can_be_asked_for_by_its_id(shop: Shop) -> None:
    """A merchant that lost the callback finds what became of its order."""
    assert (await shop.http.get("/checkouts/by-order/order-1")).status_code == 404
    checkout = await shop.checkout()
    await shop.pay(checkout, outcome="fail")
    await shop.pay(checkout)

    found = (await shop.http.get("/checkouts/by-order/order-1")).json()

    assert (found["id"], found["state"]) == (checkout["id"], "paid")
    assert [p["outcome"] for p in found["payments"]] == ["failed", "succeeded"]


# ---- payments and callbacks ------------------------------------------------------------------


async def test_a_capture_is_called_back_signed(shop: Shop) -> None:
    """The callback verifies by Standard Webhooks and says what was paid."""
    checkout = await shop.checkout()
    payment = (await shop.pay(checkout)).json()
    await until(lambda: len(shop.merchant.taken) == 1)

    _, body = shop.merchant.taken[0]
    assert body == {
        "type": "payment.succeeded",
        "data": {
            "payment_id": payment["id"],
            "checkout_id": checkout["id"],
            "order_id": "order-1",
            "amount_cents": 999,
            "currency": "EUR",
            "channel": "sandbox",
        },
    }


async def test_a_checkout_is_captured_once(shop: Shop) -> None:
    """Twenty clicks on Pay take the money once, and a decline can't undo it."""
    checkout = await shop.checkout()
    paid = await asyncio.gather(*(shop.pay(checkout) for _ in range(20)))
    late = await shop.pay(checkout, outcome="fail")

    assert len({each.json()["id"] for each in paid}) == 1
    assert late.status_code == 409
    assert len((await shop.http.get("/payments")).json()["payments"]) == 1


async def test_a_refused_callback_is_sent_again(shop: Shop) -> None:
    """A merchant that is busy gets the same message later, until it takes it."""
    shop.merchant.refuse = 2
    await shop.pay(await shop.checkout())
    await until(lambda: len(shop.merchant.taken) == 1)

    assert shop.merchant.refused == 2

    async def settled() -> bool:
        return not await shop.ledger.debts.owed()

    await until(settled, "what is owed is erased just after the merchant's answer")


async def test_duplicates_and_storms_repeat_the_same_messages(shop: Shop) -> None:
    """A storm brings every outcome of the checkout again; each event keeps its message id."""
    checkout = await shop.checkout()
    await shop.pay(checkout, outcome="fail")
    await shop.pay(checkout, duplicates=3, storm=10)
    await until(lambda: len(shop.merchant.taken) == 1 + 4 + 20)

    names = [(name, body["type"]) for name, body in shop.merchant.taken]
    assert len(set(names)) == 2
    assert sum(kind == "payment.failed" for _, kind in names) == 11


async def test_a_delayed_callback_is_owed_meanwhile(shop: Shop) -> None:
    """The money is taken at once, the callback waits."""
    checkout = await shop.checkout()
    await shop.pay(checkout, delay=3600)

    assert (await shop.http.get("/checkouts/by-order/order-1")).json()["state"] == "paid"
    assert await shop.ledger.debts.owed() == 1
    assert shop.merchant.taken == []


# ---- refunds and the ledger ------------------------------------------------------------------


async def test_a_payment_is_refunded_once(shop: Shop) -> None:
    """Asked twice, the provider gives the money back once, and says so once."""
    payment = (await shop.pay(await shop.checkout())).json()
    body = {"payment_id": payment["id"], "amount_cents": 999}
    answers = await asyncio.gather(*(shop.http.post("/refunds", json=body) for _ in range(10)))

    assert sorted(a.status_code for a in answers) == [200] * 9 + [201]
    assert len({a.json()["id"] for a in answers}) == 1
    assert (await shop.http.get("/payments")).json()["payments"][0]["refunded_cents"] == 999
    await until(lambda: len(shop.merchant.taken) == 2)


async def test_only_the_whole_capture_is_refunded(shop: Shop) -> None:
    """A refund of another amount changes nothing."""
    payment = (await shop.pay(await shop.checkout())).json()
    for amount, status in [(998, 409), (1000, 409), (0, 422), (True, 422), ("999", 422)]:
        body = {"payment_id": payment["id"], "amount_cents": amount}
        assert (await shop.http.post("/refunds", json=body)).status_code == status
    assert (await shop.http.get("/payments")).json()["payments"][0]["refund_id"] is None


async def test_the_ledger_is_read_by_a_cursor(shop: Shop) -> None:
    """Pages of two, joined, are all payments in the order they were made."""
    ids = []
    for number in range(5):
        checkout = await shop.checkout(f"order-{number}")
        ids.append((await shop.pay(checkout, delay=3600)).json()["id"])
    seen, since = [], 0
    while page := (answer := (await shop.http.get(f"/payments?since={since}&limit=2")).json())["payments"]:
        seen += [each["id"] for each in page]
        since = answer["next"]
    assert seen == ids


class Stumbling(Debts):
    """Fails once in each of its ways, as nobody foresaw."""

    stumbles = 2

    async def due(self, limit: int, *, besides: Sequence[int] = ()) -> tuple[list[Callback], float | None]:
        if self.stumbles == 2:
            self.stumbles = 1
            raise KeyError("due")
        return await super().due(limit, besides=besides)

    async def taken(self, seq: int) -> None:
        if self.stumbles == 1:
            self.stumbles = 0
            raise KeyError("taken")
        await super().taken(seq)


async def test_what_nobody_foresaw_ends_no_sending(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The sender says so, with a traceback, and goes on: what is owed is delivered, and owed no more."""
    monkeypatch.setattr(callbacks, "TROUBLE", 0.0)
    assert shop.ledger is not None
    # Due later by the clock of the app's own sender, now by that of this one.
    debts = Stumbling(shop.ledger._books, clock=lambda: time.time() + 100)
    await shop.pay(await shop.checkout(), delay=50)
    sending = asyncio.create_task(callbacks.Sender(debts, SECRET).run())

    async def settled() -> bool:
        assert not sending.done()
        return not debts.stumbles and not await debts.owed()

    await until(settled)
    sending.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await sending
    assert len(shop.merchant.taken) == 2, "the one that could not be noted came again"
    assert caplog.text.count("Traceback") == 2


# ---- who may, and what is refused ------------------------------------------------------------


async def test_a_wrong_secret_is_refused(shop: Shop) -> None:
    """The merchant's calls refuse a wrong secret even from the loopback; the right one passes."""
    for authorization in ("Bearer wrong", "Bearer", f"Basic {SECRET}", "Bearer ü"):
        headers = {"authorization": authorization.encode()}
        for method, path in [("GET", "/payments"), ("POST", "/checkouts"), ("POST", "/refunds")]:
            answer = await shop.http.request(method, path, headers=headers)
            assert answer.status_code == 401
            assert SECRET not in answer.text
    right = await shop.http.get("/payments", headers={"authorization": f"Bearer {SECRET}"})
    assert right.status_code == 200


async def test_a_stranger_needs_the_secret(tmp_path: Path) -> None:
    """From another host the ledger is closed, while a buyer's checkout is open."""
    app = create_app(sandbox_settings(tmp_path, "http://127.0.0.1:8000"))
    outside = httpx.ASGITransport(app, client=("192.0.2.7", 4711))
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=outside, base_url="http://sandbox.example") as http,
    ):
        assert (await http.get("/payments")).status_code == 401
        assert (await http.get("/checkouts/chk_0")).status_code == 404


BAD_ORDERS: list[dict[str, Any]] = [
    {"amount_cents": 0},
    {"amount_cents": -1},
    {"amount_cents": 9.99},
    {"amount_cents": "999"},
    {"amount_cents": True},
    {"amount_cents": 10**30},
    {"currency": "eur"},
    {"order_id": ""},
    {"order_id": "../x"},
    {"order_id": "x" * 101},
    {"callback_url": "http://169.254.169.254/latest/meta-data"},
    {"callback_url": "file:///etc/passwd"},
    {"callback_url": "http://127.0.0.1:1/callbacks/sandbox"},
    {"return_url": "javascript:alert(1)"},
    {"return_url": "http://evil.example/"},
    {"return_url": "http://127.0.0.1:1/orders/1"},
    {"description": "x" * 301},
    {"surprise": 1},
]


async def test_a_bad_checkout_is_refused(shop: Shop) -> None:
    """Bad input is 422 problem+json, and there is no checkout."""
    for change in BAD_ORDERS:
        answer = await shop.http.post("/checkouts", json=shop.order(**change))
        assert answer.status_code == 422, change
        assert answer.headers["content-type"] == "application/problem+json"
    assert (await shop.http.get("/checkouts/by-order/order-1")).status_code == 404


BAD_PAYMENTS = [
    (b"", 400),
    (b"{", 400),
    (b"\xff", 400),
    (b"[" * 10000, 400),
    (b"[]", 422),
    (b'{"\\ud800": 1}', 422),
    (b'{"outcome": "maybe"}', 422),
    (b'{"outcome": "success", "delay": -1}', 422),
    (b'{"outcome": "success", "delay": 1e999}', 422),
    (b'{"outcome": "success", "delay": NaN}', 400),
    (b'{"outcome": "success", "storm": 1001}', 422),
    (b'{"outcome": "success", "duplicates": true}', 422),
    (b'{"outcome": "success", "x": "' + b"y" * 20000 + b'"}', 413),
]


async def test_a_bad_payment_takes_nothing(shop: Shop) -> None:
    """Whatever is sent to `pay`, the answer is 4xx and the checkout stays open."""
    checkout = await shop.checkout()
    for raw, status in BAD_PAYMENTS:
        for kind in ("application/json", "text/plain"):
            answer = await shop.http.post(
                f"/checkouts/{checkout['id']}/pay", content=raw, headers={"content-type": kind}
            )
            assert answer.status_code == status, raw[:40]
    assert (await shop.http.get("/checkouts/by-order/order-1")).json()["state"] == "open"


async def test_a_bad_cursor_is_refused(shop: Shop) -> None:
    """A cursor is a whole number within bounds."""
    for query in ("since=x", "since=-1", "since=1e3", "limit=0", "limit=1001", "since=" + "9" * 40):
        assert (await shop.http.get(f"/payments?{query}")).status_code == 422


async def test_curl_pays_without_naming_a_type(shop: Shop) -> None:
    """`curl -d '{…}'` sends JSON under a form's type, and is understood."""
    checkout = await shop.checkout()
    answer = await shop.http.post(
        f"/checkouts/{checkout['id']}/pay",
        content=b'{"outcome": "success"}',
        headers={"content-type": "application/x-www-form-urlencoded"},
    )
    assert answer.json()["outcome"] == "succeeded"


@given(st.text(max_size=60))
def test_only_the_shop_is_called_back(text: str) -> None:
    """No text after another host's name makes an address of the shop's."""
    base = "http://shop.example:8000/hooks"
    assert not is_under(f"http://evil.example/{text}", base)
    assert not is_under(f"http://{text}@evil.example:8000/hooks/a", base)


@pytest.mark.parametrize(
    ("url", "verdict"),
    [
        ("http://shop.example/hooks/a", True),
        ("http://shop.example:80/hooks", True),
        ("https://shop.example/hooks/a", False),
        ("http://shop.example:81/hooks/a", False),
        ("http://shop.example/hooksy", False),
        ("http://shop.example/hooks/../admin", False),
        ("http://shop.example/hooks/%2e%2e/admin", False),
        ("http://shop.example/hooks/%252e%252e/admin", False),
        ("http://user@shop.example/hooks/a", False),
        ("http://shop.example\\@evil.example/hooks", False),
        ("http://[::1/hooks", False),
    ],
)
def test_callback_addresses(url: str, verdict: bool) -> None:
    """The callback's address must be spelled plainly and lie under the shop's."""
    assert is_under(url, "http://shop.example/hooks") is verdict


@pytest.mark.parametrize("secret", [None, "whsec_"])
def test_without_a_secret_it_does_not_start(tmp_path: Path, secret: str | None) -> None:
    """An empty secret would let everyone sign."""
    values = {"data_dir": tmp_path, "sandbox_secret": secret}
    with pytest.raises(SetupError, match="TIDEGATE_SANDBOX_SECRET"):
        create_app(Settings.model_validate(values))


# ---- the page --------------------------------------------------------------------------------


async def test_the_page_works_without_scripts(shop: Shop) -> None:
    """A plain form pays and leads back to the shop; the page says so afterwards."""
    checkout = await shop.checkout()
    page = await shop.http.get(f"/checkouts/{checkout['id']}", headers={"accept": "text/html"})
    assert "€9.99" in page.text
    assert "<script" not in page.text
    assert f"form-action 'self' {shop.merchant_url}" in page.headers["content-security-policy"]

    declined = await shop.http.post(f"/checkouts/{checkout['id']}/pay", data={"outcome": "fail"})
    again = await shop.http.get(declined.headers["location"], headers={"accept": "text/html"})
    paid = await shop.http.post(f"/checkouts/{checkout['id']}/pay", data={"outcome": "success"})
    after = await shop.http.get(f"/checkouts/{checkout['id']}", headers={"accept": "text/html"})

    assert "declined" in again.text
    assert (paid.status_code, paid.headers["location"]) == (303, f"{shop.merchant_url}/orders/order-1")
    assert "This is paid" in after.text


async def test_what_a_merchant_writes_is_text(shop: Shop) -> None:
    """A description is shown, never run."""
    body = shop.order(description="<script>alert(1)</script>")
    checkout = (await shop.http.post("/checkouts", json=body)).json()
    page = await shop.http.get(f"/checkouts/{checkout['id']}", headers={"accept": "text/html"})
    assert "<script" not in page.text
    assert "&lt;script&gt;" in page.text


async def test_an_unknown_checkout_has_a_page(shop: Shop) -> None:
    """A mistyped link is told kindly, as 404; to programs as problem+json."""
    page = await shop.http.get("/checkouts/chk_0", headers={"accept": "text/html"})
    data = await shop.http.get("/checkouts/chk_0", headers={"accept": "application/json"})
    assert (page.status_code, data.status_code) == (404, 404)
    assert "No such checkout" in page.text
    assert data.json()["status"] == 404


async def test_health(shop: Shop) -> None:
    """Both health pages answer."""
    assert (await shop.http.get("/livez")).status_code == 200
    assert (await shop.http.get("/readyz")).status_code == 200


# ---- back-off, and survival ------------------------------------------------------------------


@given(st.integers(0, 10**6), st.floats(0, 1))
def test_back_off_is_bounded(attempts: int, jitter: float) -> None:
    """However often it failed, the next try comes within a minute, and never at once."""
    assert 0.25 <= back_off(attempts, jitter) <= LAST_RETRY


PROGRAM = """
    import sys, uvicorn
    from pathlib import Path
    from shop_backend.config import Settings
    from shop_backend.sandbox.app import create_app
    secret, folder, shop_url, descriptor = sys.argv[1:]
    settings = Settings(sandbox_secret=secret, data_dir=Path(folder), shop_url=shop_url)
    uvicorn.run(create_app(settings), fd=int(descriptor), log_level="warning")
"""


@contextlib.asynccontextmanager
async def process(folder: Path, shop_url: str) -> AsyncIterator[tuple[str, subprocess.Popen[bytes]]]:
    """The provider as a process of its own."""
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen(128)
        argv = [sys.executable, "-c", textwrap.dedent(PROGRAM), SECRET, str(folder), shop_url]
        running = subprocess.Popen(  # noqa: ASYNC220 - returns at once
            [*argv, str(door.fileno())], pass_fds=[door.fileno()]
        )
        url = f"http://127.0.0.1:{door.getsockname()[1]}"
    try:
        yield url, running
    finally:
        if running.poll() is None:
            running.kill()
        running.wait()


async def test_a_killed_provider_forgets_nothing(tmp_path: Path) -> None:
    """SIGKILL between capture and callback: after a restart the merchant still hears of every capture."""
    merchant = Merchant()
    merchant.refuse = 10**6  # as if the shop were down
    async with served(merchant.app) as shop_url:
        draw, paid = random.Random(7), set()
        async with process(tmp_path, shop_url) as (url, running):
            shop = Shop(merchant, shop_url, url)
            async with shop.http:
                for number in range(12):
                    checkout = await shop.checkout(f"order-{number}")
                    payment = await shop.pay(checkout, duplicates=draw.randrange(3))
                    paid.add(payment.json()["id"])
            os.kill(running.pid, signal.SIGKILL)
        merchant.refuse = 0
        async with process(tmp_path, shop_url):
            await until(lambda: {b["data"]["payment_id"] for _, b in merchant.taken} == paid)


async def test_callbacks_go_to_callbacks_only(shop: Shop) -> None:
    """Nothing else of the shop is posted to, and pages lead back to the shop only."""
    for path in ("", "/", "/callbacks", "/callbacks/", "/api/session", "/callbacks/../api", "/callbacksy/a"):
        answer = await shop.http.post("/checkouts", json=shop.order(callback_url=shop.merchant_url + path))
        assert answer.status_code == 422, path


def test_the_books_are_private(tmp_path: Path) -> None:
    """Files of the ledger are the operator's alone, also those an earlier release left open."""

    async def write() -> list[Path]:
        ledger = Ledger(tmp_path / "sandbox.sqlite3")
        await ledger.open()
        await ledger.debts.owed()
        found = sorted(tmp_path.glob("sandbox.sqlite3*"))  # noqa: ASYNC240 - nobody else waits on this loop
        assert len(found) >= 2
        assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in found} == dict.fromkeys(
            (path.name for path in found), 0o600
        )
        await ledger.close()
        return found

    before = os.umask(0o022)
    try:
        for path in asyncio.run(write()):
            if path.exists():
                path.chmod(0o644)
        asyncio.run(write())
    finally:
        os.umask(before)
