"""Work that nobody waits for is dropped: on arrival, before stock is taken, and at the database."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from typing import Any

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shop_backend import deadline
from shop_backend.config import Settings
from shop_backend.metrics import REGISTRY
from tests.waiting import until

TOO_LATE = "urn:tidegate:too-late"
SOON = {"tidegate-deadline": "1500"}  # milliseconds; enough to come where it is to end
_keys = itertools.count()


def dropped(at: str) -> float:
    return REGISTRY.get_sample_value("shop_dropped_requests_total", {"at": at}) or 0.0


@contextlib.asynccontextmanager
async def locked(shop: Any, table: str) -> AsyncIterator[psycopg.AsyncConnection[Any]]:
    """Whoever reads the table waits, as before a database that is too busy."""
    url = shop.settings.require("database_url")
    async with await psycopg.AsyncConnection.connect(url) as operator:
        await operator.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield operator


async def waiting(operator: psycopg.AsyncConnection[Any]) -> int:
    """Statements of the shop that PostgreSQL has not ended."""
    await operator.execute(
        "SELECT pg_stat_clear_snapshot()"
    )  # else a transaction sees its first look for ever
    cursor = await operator.execute(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'tidegate-shop' AND state <> 'idle'"
    )
    row = await cursor.fetchone()
    assert row is not None
    return int(row[0])


async def order(shop: Any, guest: dict[str, str], **headers: str) -> Any:
    body = {"sku": "plain", "quantity": 1, "email": "a@example.org"}
    return await shop.client.post(
        "/api/orders", json=body, headers={**guest, "idempotency-key": f"late-{next(_keys)}", **headers}
    )


async def test_what_comes_too_late_is_not_begun(shop: Any) -> None:
    """A millisecond before the end: 503, and neither stock nor stream has moved."""
    guest = await shop.session()
    before, count = await shop.snapshot(), dropped("arrival")
    answer = await order(shop, guest, **{"tidegate-deadline": "1"})

    assert (answer.status_code, answer.json()["type"]) == (503, TOO_LATE)
    assert answer.headers["retry-after"] == "1"
    assert dropped("arrival") == count + 1
    assert await shop.snapshot() == before


async def test_no_stock_is_taken_for_one_who_has_left(shop: Any) -> None:
    """The catalogue took all the time there was: the last known price serves, but nothing is held."""
    guest = await shop.session()
    assert (await order(shop, guest)).status_code == 202
    await shop.drain()
    before, count = await shop.snapshot(), dropped("stock")
    async with locked(shop, "products"):
        answer = await order(shop, guest, **SOON)

    assert (answer.status_code, answer.json()["type"]) == (503, TOO_LATE)
    assert dropped("stock") == count + 1
    assert await shop.snapshot() == before
    assert (await order(shop, guest, **{"tidegate-deadline": "60000"})).status_code == 202


async def test_a_statement_ends_with_its_deadline(shop: Any) -> None:
    """PostgreSQL itself stops working on it, by no bound of its own, while what it waits for is locked."""
    placed = await shop.placed()
    await shop.drain()
    count = dropped("database")
    async with locked(shop, "orders") as operator:
        answer = await shop.client.get(
            f"/api/orders/{placed['order_id']}?token={placed['token']}", headers=SOON
        )
        assert (answer.status_code, answer.json()["type"]) == (503, TOO_LATE)

        async def ended() -> bool:
            used = shop.context.database.usage()["primary", "used"]
            return used == await waiting(operator) == 0

        await until(ended, "no statement of the shop runs, and no connection is kept")
    assert dropped("database") == count + 1
    assert (await shop.see(placed))["status"] == "pending"


async def test_nobody_queues_for_a_connection_beyond_the_deadline(
    shop_settings: Settings, fill_shop: Any, start_shop: Any
) -> None:
    """The only one is taken: whoever has little time leaves the queue, and takes nothing with it."""
    database = shop_settings.database.model_copy(update={"min_size": 1, "max_size": 1})
    fill_shop(shop_settings)
    async with start_shop(shop_settings.model_copy(update={"database": database})) as shop:
        placed = await shop.placed()
        path = f"/api/orders/{placed['order_id']}?token={placed['token']}"
        async with shop.context.database.latest():
            answer = await shop.client.get(path, headers=SOON)
            assert (answer.status_code, answer.json()["type"]) == (503, TOO_LATE)
        assert (await shop.client.get(path, headers={"tidegate-deadline": "60000"})).status_code == 200
        assert shop.context.database.usage()["primary", "waiting"] == 0


async def test_one_deadline_is_not_the_others(shop: Any) -> None:
    """Two ask for the same; the one who began it has little time, and the other gets the answer."""
    path = "/api/products/plain/recommendations"
    async with locked(shop, "products"):
        hasty = asyncio.create_task(shop.client.get(path, headers=SOON))
        await asyncio.sleep(0)
        patient = asyncio.create_task(shop.client.get(path))
        assert (await hasty).json()["type"] == TOO_LATE
    assert (await patient).status_code == 200


@pytest.mark.parametrize("given", [[], ["60000"], ["soon"], ["-5"], ["1", "1"], ["9" * 30], ["1.5"], [""]])
async def test_without_a_deadline_it_takes_as_long_as_it_takes(shop: Any, given: list[str]) -> None:
    """None, a long one, and what is none."""
    answer = await shop.client.get("/api/products", headers=[("tidegate-deadline", each) for each in given])
    assert answer.status_code == 200


@given(
    st.lists(st.one_of(st.binary(max_size=12), st.integers(0, 10**12).map(lambda n: b"%d" % n)), max_size=2)
)
async def test_any_field_is_read(values: list[bytes]) -> None:
    """Whatever it holds, the request is served or told that it is too late; no deadline leaks out of it."""
    seen: list[float | None] = []
    sent: list[Any] = []

    async def app(*_: Any) -> None:
        seen.append(deadline.left())

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {"type": "http", "headers": [(deadline.HEADER, value) for value in values]}
    await deadline.Deadlines(app)(scope, send, send)
    assert deadline.left() is None
    if not seen:
        assert sent[0]["status"] == 503
    elif seen[0] is not None:
        assert len(values) == 1
        assert 0 < seen[0] <= int(values[0]) / 1000
