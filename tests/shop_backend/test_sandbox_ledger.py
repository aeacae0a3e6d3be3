"""The provider's books against a model of a few lines, over any history."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shop_backend.sandbox.books import Books, Row
from shop_backend.sandbox.ledger import Conflict, Ledger, Order, Unknown

ORDERS = ("o-1", "o-2", "o-3")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.sampled_from(ORDERS), st.sampled_from([500, 900])),
        st.tuples(st.just("pay"), st.sampled_from(ORDERS), st.booleans()),
        st.tuples(st.just("refund"), st.sampled_from(ORDERS), st.sampled_from([500, 900])),
        st.tuples(st.just("deliver"), st.integers(1, 5), st.none()),
        st.tuples(st.just("restart"), st.none(), st.none()),
    ),
    max_size=40,
)


class Model:
    """What must be so: one checkout an order, one capture a checkout, one refund a capture."""

    def __init__(self) -> None:
        self.amounts: dict[str, int] = {}
        self.failed: Counter[str] = Counter()
        self.captured: set[str] = set()
        self.refunded: set[str] = set()
        self.owed = 0

    def create(self, order: str, amount: int) -> bool:
        return self.amounts.setdefault(order, amount) == amount

    def pay(self, order: str, success: bool) -> bool:
        if order not in self.amounts or (order in self.captured and not success):
            return False
        if success:
            self.captured.add(order)
        else:
            self.failed[order] += 1
        self.owed += 1
        return True

    def refund(self, order: str, amount: int) -> bool:
        if order not in self.captured or self.amounts[order] != amount:
            return False
        if order not in self.refunded:
            self.refunded.add(order)
            self.owed += 1
        return True


async def step(ledger: Ledger, kind: str, order: str, value: int) -> bool:
    """Do one step; whether the ledger agreed to it."""
    try:
        if kind == "create":
            await ledger.create_checkout(Order(order, value, "EUR", "http://s/c", "http://s/o", "x"))
            return True
        checkout = await ledger.checkout_of(order)
        if kind == "pay":
            await ledger.pay(checkout["id"], success=bool(value), delays=[0.0])
            return True
        captured = [p["id"] for p in checkout["payments"] if p["outcome"] == "succeeded"]
        await ledger.refund(captured[0] if captured else "pay_none", value)
    except (Conflict, Unknown):
        return False
    return True


@settings(max_examples=60, deadline=None)
@given(STEPS)
async def test_the_books_agree_with_the_model(steps: list[tuple[str, str, int]]) -> None:
    """After any history, restarts included, checkouts, captures, refunds and debts are the model's."""
    with tempfile.TemporaryDirectory() as folder:
        path, model = Path(folder) / "books.sqlite3", Model()
        ledger = Ledger(path)
        await ledger.open()
        for kind, order, value in steps:
            if kind == "restart":
                await ledger.close()
                ledger = Ledger(path)
                await ledger.open()
            elif kind == "deliver":
                callbacks, _ = await ledger.debts.due(int(order))
                for callback in callbacks:
                    await ledger.debts.taken(callback.seq)
                model.owed -= len(callbacks)
            else:
                expected = getattr(model, kind)(order, value)
                assert await step(ledger, kind, order, value) is expected
        payments = await ledger.payments(0, 1000)
        owed = await ledger.debts.owed()
        await ledger.close()

    by_outcome = {
        o: Counter(p["order_id"] for p in payments if p["outcome"] == o) for o in ("succeeded", "failed")
    }
    assert by_outcome["succeeded"] == dict.fromkeys(model.captured, 1)
    assert by_outcome["failed"] == +model.failed
    assert {p["order_id"] for p in payments if p["refunded_cents"]} == model.refunded
    assert all(p["refunded_cents"] in (0, p["amount_cents"]) for p in payments)
    assert owed == model.owed


async def test_callbacks_wait_for_their_time(tmp_path: Path) -> None:
    """What is not due is not given out, and the wait until then is told."""
    now = 1000.0
    ledger = Ledger(tmp_path / "books.sqlite3", clock=lambda: now)
    await ledger.open()
    checkout, _ = await ledger.create_checkout(Order("o-1", 5, "EUR", "http://s/c", "http://s/o", "x"))
    await ledger.pay(checkout["id"], success=True, delays=[0.0, 10.0])

    callbacks, wait = await ledger.debts.due(10)
    assert (len(callbacks), wait) == (1, 10.0)
    busy = [callbacks[0].seq]
    assert await ledger.debts.due(10, besides=busy) == ([], 10.0)

    await ledger.debts.retry(callbacks[0].seq, 4.0)
    assert await ledger.debts.due(10) == ([], 4.0)
    now += 4.0
    again, _ = await ledger.debts.due(10)
    assert [(c.seq, c.attempts) for c in again] == [(busy[0], 1)]
    assert json.loads(again[0].body)["type"] == "payment.succeeded"
    await ledger.close()


async def test_a_refused_step_leaves_no_trace(tmp_path: Path) -> None:
    """An error inside a transaction rolls all of it back, and the next one works."""
    ledger = Ledger(tmp_path / "books.sqlite3")
    await ledger.open()
    checkout, _ = await ledger.create_checkout(Order("o-1", 5, "EUR", "http://s/c", "http://s/o", "x"))

    def half(db: sqlite3.Connection) -> Row:
        db.execute("DELETE FROM checkouts")
        raise Conflict("in the middle")

    with pytest.raises(Conflict):
        await ledger._books.run(half)
    assert (await ledger.checkout(checkout["id"]))["state"] == "open"
    await ledger.close()


async def test_what_is_written_together_is_undone_alone(tmp_path: Path) -> None:
    """Of many works in one transaction the failing ones leave nothing, the others all, also after a close."""
    books = Books(tmp_path / "books.sqlite3")
    await books.open()

    def put(number: int) -> Callable[[sqlite3.Connection], int]:
        def work(db: sqlite3.Connection) -> int:
            db.execute(
                "INSERT INTO callbacks (message_id, url, body, due_at) VALUES (?, '', '', 0)", (str(number),)
            )
            if number % 3 == 0:
                raise ValueError(number)
            return number

        return work

    asked = [asyncio.create_task(books.run(put(number))) for number in range(50)]
    await asyncio.sleep(0)
    await books.close()
    for number, outcome in enumerate(await asyncio.gather(*asked, return_exceptions=True)):
        assert isinstance(outcome, ValueError) if number % 3 == 0 else outcome == number
    with contextlib.closing(sqlite3.connect(tmp_path / "books.sqlite3")) as db:
        found = [int(row[0]) for row in db.execute("SELECT message_id FROM callbacks ORDER BY seq")]
    assert found == [number for number in range(50) if number % 3]
