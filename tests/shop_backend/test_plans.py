"""No sequential scan on a hot path: every statement of a busy night, explained on tables that are full."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from shop_backend.notifications import counts
from shop_backend.payments import open_refunds
from shop_backend.restock import current_epoch

_SMALL = 500  # rows; such a table is a page or two, and stays so: products, partitions made ahead
READS = re.compile(r"\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b")
FILL = (Path(__file__).parent / "full_shop.sql").read_bytes()


@pytest.fixture
def statements(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Statement → the parameters it came with last; filled while the shop works."""
    seen: dict[str, Any] = {}
    execute = psycopg.AsyncCursor.execute

    async def noted(self: Any, query: Any, params: Any = None, **more: Any) -> Any:
        if isinstance(query, str) and READS.match(query):
            seen[query] = params
        return await execute(self, query, params, **more)

    monkeypatch.setattr(psycopg.AsyncCursor, "execute", noted)
    return seen


async def _busy_night(shop: Any) -> None:
    """Every step that is done for each order, buyer or message, and every loop of a worker."""
    headers = await shop.session()
    paid, declined, late, unpaid = [await shop.placed("plain", headers=headers) for _ in range(4)]
    hopeless = await shop.placed("single")
    for order in (late, hopeless):
        await shop.expire(order)
    await shop.callback(declined, await shop.pay(declined, "fail"))
    payment = await shop.pay(paid)
    for _ in range(2):
        await shop.callback(paid, payment)
    await shop.callback(late, await shop.pay(late))
    taken = await shop.placed("single")
    await shop.callback(hopeless, await shop.pay(hopeless))
    await shop.callback(paid, payment, amount_cents=1)  # a dead letter
    await shop.drain()
    for order in (paid, declined, late, unpaid, hopeless, taken):
        await shop.see(order)
    await shop.client.get("/api/me/profile", headers=headers)
    await shop.client.get("/api/orders", headers=headers)
    await shop.client.get("/api/products/plain/recommendations")
    await shop.client.get("/api/orders/00000000-0000-8000-8000-00000000dead?token=x", headers=headers)
    await shop.execute("UPDATE orders SET next_poll_at = now() WHERE id = %s", unpaid["order_id"])
    await shop.cashier.poll()
    await shop.cashier.refund()
    shop.mailbox.failures = 1
    await shop.outbox.send_due()
    await shop.outbox.send_due()
    await shop.keeper.check()
    await shop.recovery.recover(before_epoch=shop.parts.stock.epoch + 1)
    await shop.partitions.ensure(0)
    await counts(shop.parts.database)
    await open_refunds(shop.parts.database)
    await current_epoch(shop.parts.database)
    await shop.context.catalog.watch()


def _scans(plan: dict[str, Any], big: set[str]) -> Iterator[str]:
    """What of `big`, tables and indexes, a plan reads as a whole."""
    table, index = plan.get("Relation Name", ""), plan.get("Index Name", "")
    if plan["Node Type"] == "Seq Scan" and table in big:
        yield table
    elif index in big and "Index Cond" not in plan:
        yield f"{table} by all of {index}"
    for part in plan.get("Plans", []):
        yield from _scans(part, big)


def _whole_tables(url: str, statements: dict[str, Any]) -> dict[str, list[str]]:
    """Statement → what it reads as a whole, with its values at hand and as prepared for any."""
    found: dict[str, list[str]] = {}
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ANALYZE")
        # Not the partial indexes of what is still to do, which are read as a whole on purpose.
        rows = connection.execute(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND reltuples > %s",
            (_SMALL,),
        )
        big = {name for (name,) in rows.fetchall()}
        for mode in ("force_custom_plan", "force_generic_plan"):
            connection.execute(f"SET plan_cache_mode = {mode}".encode())
            for statement, values in statements.items():
                explained = connection.execute(f"EXPLAIN (FORMAT JSON) {statement}".encode(), values)
                (plans,) = explained.fetchone() or ([],)
                for scan in _scans(plans[0]["Plan"], big):
                    found.setdefault(statement, []).append(f"{mode}: {scan}")
    return found


async def test_no_hot_statement_reads_a_whole_table(shop: Any, statements: dict[str, Any]) -> None:
    """From the order's row to the mail, in front of a buyer and behind: each statement goes by an index."""
    url = shop.settings.require("database_url")
    await _busy_night(shop)
    hot = dict(statements)
    with psycopg.connect(url) as connection:
        connection.execute(FILL)

    assert len(hot) > 40
    for table in ("orders", "order_events", "cards", "deliveries", "payments", "refunds", "outbox"):
        assert any(re.search(rf"\b{table}\b", statement) for statement in hot), table
    read_whole = _whole_tables(url, hot)
    assert not read_whole, "\n".join(f"{' '.join(k.split())[:300]}\n    {v}" for k, v in read_whole.items())

    with psycopg.connect(url) as connection:
        connection.execute("DROP INDEX cards_order")
    seen = _whole_tables(url, hot)
    assert any("cards" in scan for scans in seen.values() for scan in scans), "a missing index is seen"
