"""A Redis that hangs (SIGSTOP) instead of dying: all get answers in time, and it comes back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from redis.exceptions import RedisError

from ops import embedded
from shop_backend.config import Settings
from shop_backend.parts import redis_client
from shop_backend.sections import CatalogSettings, SessionSettings
from shop_backend.storage.bounded_redis import Away, Patience
from shop_backend.workers.worker import Worker
from tests import unsupervised
from tests.clock import Clock
from tests.waiting import PATIENCE, until

LONG = PATIENCE  # seconds: far above every limit, far below "without bound"


@dataclass
class Server:
    """A Redis of the test's own."""

    url: str
    pid: int

    @contextlib.contextmanager
    def hung(self) -> Iterator[None]:
        """Stopped, until the end of the block."""
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)


@pytest.fixture
def servers(short_tmp: Path, tmp_path: Path) -> Iterator[dict[str, Server]]:
    """A durable and a volatile Redis that this test may stop."""
    folder = short_tmp / f"hung-{os.urandom(4).hex()}"
    folder.mkdir()
    with contextlib.ExitStack() as stack:
        found = {}
        for kind in ("durable", "volatile"):
            server = embedded.EmbeddedRedis(kind, tmp_path / kind, folder)
            service = server.service()
            process = unsupervised.start(service, tmp_path / f"{kind}.log")
            stack.callback(unsupervised.stop, process, service)
            found[kind] = Server(server.url(), process.pid)
        yield found


@pytest.fixture
async def frail(
    servers: dict[str, Server],
    shop_settings: Settings,
    start_shop: Any,
    fill_shop: Callable[[Settings], None],
) -> AsyncIterator[Any]:
    """A shop on Redis servers of its own, with short limits."""
    usual = CatalogSettings()
    short = {"shared_timeout": usual.shared_timeout, "stock_timeout": usual.stock_timeout}
    settings = Settings.model_validate(
        shop_settings.model_dump()
        | {
            "catalog": shop_settings.catalog.model_dump() | short,
            "sessions": SessionSettings().model_dump(),
            "stock_redis_url": servers["durable"].url,
            "redis_url": servers["volatile"].url,
            "stock": {"timeout": 2.0},
            "workers": {"block": 0.1, "interval": 0.05, "retry_after": 0.05, "abandoned_after": 0.5},
        }
    )
    fill_shop(settings)
    async with start_shop(settings) as shop:
        yield shop


async def test_pages_and_catalogue_outlive_a_hung_stock(frail: Any, servers: dict[str, Server]) -> None:
    """Durable Redis stopped: pages say "unknown", orders and callbacks 503; later all is well."""
    buyer = await frail.session()
    await until(lambda: _plenty(frail), "the stock is shown")
    with servers["durable"].hung():
        frail.context.catalog.forget()
        async with asyncio.timeout(LONG):
            shown = await asyncio.gather(*(frail.client.get("/api/products") for _ in range(20)))
            assert {p["stock"] for a in shown for p in a.json()["products"]} == {"unknown"}
            for address in ("/", "/p/plain", "/api/products/plain", "/api/products/plain/recommendations"):
                assert (await frail.client.get(address)).status_code == 200, address
            refused = [await frail.order(headers=buyer), await frail.send(_NEWS)]
            refused += await asyncio.gather(*(frail.order(headers=buyer) for _ in range(50)))
            ready = await until(lambda: _ready(frail, "database"), "the database is asked")
        for answer in refused:
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/problem+json"
            assert int(answer.headers["retry-after"]) >= 1
        assert ready.status_code == 503
        assert ready.json()["stock"] != "ok"
    await until(lambda: _status(frail.order(headers=buyer), 202))
    await until(lambda: _status(frail.client.get("/readyz"), 200))


async def test_selling_outlives_hung_sessions(frail: Any, servers: dict[str, Server]) -> None:
    """Volatile Redis stopped: sessions, orders and pages go on; the cart says 503; /readyz stays ready."""
    buyer = await frail.session()
    with servers["volatile"].hung():
        async with asyncio.timeout(LONG):
            assert (await frail.order(headers=buyer)).status_code == 202
            again = await frail.client.post("/api/session", json={"email": "a@example.com"}, headers=buyer)
            assert again.status_code == 201
            frail.client.cookies.clear()
            for address in ("/", "/cart", "/p/plain", "/livez"):
                assert (await frail.client.get(address)).status_code == 200, address
            assert (await frail.client.get("/api/me/profile", headers=buyer)).status_code == 200
            cart = await frail.client.get("/api/cart", headers=buyer)
            ready = await until(lambda: _ready(frail, "database", "stock"), "both are asked")
        assert cart.status_code == 503
        assert int(cart.headers["retry-after"]) >= 1
        assert ready.status_code == 200
        assert ready.json()["sessions"] != "ok"
    await until(lambda: _status(frail.client.get("/api/cart", headers=buyer), 200))


async def test_a_hung_server_is_asked_by_one_at_a_time(servers: dict[str, Server]) -> None:
    """After a call without an answer the next ones fail without being made; one answer ends that."""
    client, clock = redis_client(servers["volatile"].url, timeout=LONG), Clock()
    assert await client.execute_command("PING")
    client.patience = Patience(1.5, away_for=0.75, clock=clock)
    with servers["volatile"].hung():
        with pytest.raises(Away):
            await client.execute_command("PING")
        connections = client.connection_pool.get_connection_count()
        for _ in range(10):
            with pytest.raises(Away, match="not asked again"):
                await client.execute_command("PING")
            pipe = client.pipeline()
            pipe.hset("nothing", "a", "b")
            with pytest.raises(Away, match="not asked again"):
                await pipe.execute()
        assert client.connection_pool.get_connection_count() == connections
    with pytest.raises(Away, match="not asked again"):
        await client.execute_command("PING")
    clock.advance(0.75)
    assert await client.execute_command("PING")
    assert await client.execute_command("PING")
    await client.aclose()


async def test_cancelled_calls_never_hand_their_answer_on(servers: dict[str, Server]) -> None:
    """Calls cut off at random moments, also of a hung server: later answers fit their questions."""
    client = redis_client(servers["volatile"].url, timeout=1.5, connections=4)
    dice = random.Random(7)

    async def echo(number: int) -> None:
        word = f"w{number}"
        try:
            async with asyncio.timeout(dice.choice([0.0, 0.0002, 0.001, 5.0])):
                assert await client.execute_command("ECHO", word) == word
                async with client.pipeline() as pipe:
                    pipe.execute_command("ECHO", word)
                    pipe.execute_command("ECHO", word + "!")
                    assert await pipe.execute() == [word, word + "!"]
        except (TimeoutError, RedisError):
            return

    for number in range(0, 1200, 40):
        hang = servers["volatile"].hung() if number % 400 == 200 else contextlib.nullcontext()
        with hang:
            await asyncio.gather(*(echo(number + each) for each in range(40)))
    await until(lambda: _ping(client))
    for number in range(20):
        assert await client.execute_command("ECHO", f"last{number}") == f"last{number}"
    await client.aclose()


async def test_the_worker_carries_on_after_both_hung(frail: Any, servers: dict[str, Server]) -> None:
    """Both Redis stopped under a running worker and continued: it writes, delivers and expires."""
    stop = asyncio.Event()
    working = asyncio.create_task(Worker(frail.settings, frail.parts, mailer=frail.mailbox).run(stop))
    first = (await frail.order()).json()
    await until(lambda: _has_checkout(frail, first))
    with servers["durable"].hung(), servers["volatile"].hung():
        # Long enough for every loop to have run into its limit.
        await until(lambda: _away(frail))
    await until(lambda: _status(frail.order(), 202))
    second = (await frail.order()).json()
    await until(lambda: _has_checkout(frail, second))
    payment = await frail.pay(first)
    await until(lambda: _status(frail.callback(first, payment), 200))
    await until(lambda: _is(frail, first, "delivered"))
    await until(lambda: _ping(frail.parts.redis_durable))
    await frail.parts.redis_durable.zadd("{stock}:holds", {second["order_id"]: 1})
    await until(lambda: _is(frail, second, "expired"))
    assert not working.done()
    stop.set()
    async with asyncio.timeout(LONG):
        await working


_NEWS = (
    '{"type": "payment.failed", "data": {"payment_id": "p", "order_id": "o",'
    ' "amount_cents": 1, "currency": "EUR", "channel": "sandbox"}}'
)


async def _status(answer: Any, wanted: int) -> bool:
    return bool((await answer).status_code == wanted)


async def _plenty(shop: Any) -> bool:
    products = (await shop.client.get("/api/products")).json()["products"]
    return bool(products[0]["stock"] == "plenty")


async def _ready(shop: Any, *servers: str) -> Any:
    """The answer that finds these well, else None: a machine that stands still is none that hangs."""
    answer = await shop.client.get("/readyz")
    return answer if all(answer.json()[server] == "ok" for server in servers) else None


async def _ping(client: Any) -> bool:
    try:
        return bool(await client.execute_command("PING"))
    except RedisError:
        return False


async def _away(shop: Any) -> bool:
    return not await _ping(shop.parts.redis_durable)


async def _has_checkout(shop: Any, order: dict[str, Any]) -> bool:
    rows = await shop.rows("SELECT pay_url FROM orders WHERE id = %s", order["order_id"])
    return bool(rows and rows[0]["pay_url"])


async def _is(shop: Any, order: dict[str, Any], status: str) -> bool:
    return bool((await shop.see(order))["status"] == status)
