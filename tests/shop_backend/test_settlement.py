"""Payments settled many at once come to what they come to one by one."""

from __future__ import annotations

import itertools
from typing import Any

import psycopg
from hypothesis import given
from hypothesis import strategies as st

from shop_backend import settlement
from shop_backend.providers import Payment
from shop_backend.stock import keys

ORDERS = tuple(f"00000000-0000-8000-8000-00000000000{n}" for n in range(3))


def _order(order_id: str, state: str) -> dict[str, Any]:
    return {"id": order_id, "state": state, "amount_cents": 100, "currency": "EUR", "provider": "sandbox"}


def _payment(order_id: str, number: int, outcome: Any, cents: int) -> Payment:
    return Payment("sandbox", f"p{number}-{order_id[-1]}", order_id, outcome, cents, "EUR", "sandbox")


orders = st.fixed_dictionaries(
    {}, optional={order_id: st.sampled_from(("pending", "expired", "delivered")) for order_id in ORDERS}
)
news = st.lists(
    st.builds(
        _payment,
        st.sampled_from(ORDERS),
        st.integers(0, 2),
        st.sampled_from(("succeeded", "failed")),
        st.sampled_from((100, 99)),
    ),
    max_size=12,
)


@given(orders, news, st.sets(st.integers(0, 11)))
def test_only_what_needs_no_thought_is_settled_together(
    states: dict[str, str], payments: list[Payment], old: set[int]
) -> None:
    """A batch delivers a pending order at most once, by its first news, paid as asked; the rest is left."""
    rows = {order_id: _order(order_id, state) for order_id, state in states.items()}
    before = {settlement.key_of(p): p.order_id for n, p in enumerate(payments) if n in old}

    results, paid = settlement.triage(payments, [p.order_id for p in payments], rows, before)

    assert len(results) == len(payments)
    for order_id in ORDERS:
        own = [(p, result) for p, result in zip(payments, results, strict=True) if p.order_id == order_id]
        done = list(itertools.takewhile(lambda each: each[1] is not None, own))
        # Once one is left for later, so are all after it: an order's news keep their order.
        assert all(result is None for _, result in own[len(done) :])
        delivered = [p for p, result in done if result == "delivered"]
        assert delivered == ([paid[order_id]] if order_id in paid else [])
        for p in delivered:
            assert rows[order_id]["state"] == "pending"
            assert (p.outcome, p.amount_cents) == ("succeeded", 100)
            assert settlement.key_of(p) not in before
        for p, result in done:
            if result == "duplicate":
                assert settlement.key_of(p) in {*before, *map(settlement.key_of, delivered)}


async def test_a_batch_of_every_kind_of_news(shop: Any) -> None:
    """Good, doubled, declined, too little, unknown, malformed in one batch: each ends as it would alone."""
    good, twice, declined, cheap = [await shop.placed() for _ in range(4)]
    paid = [await shop.pay(order) for order in (good, twice)]
    failed, won = await shop.pay(declined, "fail"), await shop.pay(declined)
    less = await shop.pay(cheap)
    await shop.callback(cheap, less, amount_cents=less["amount_cents"] - 1)
    await shop.callback(twice, paid[1])
    await shop.callback(declined, failed)
    await shop.callback(good, paid[0])
    await shop.callback(declined, won)
    await shop.callback(twice, paid[1])
    await shop.callback({"order_id": ORDERS[0]}, paid[0], payment_id="nobody's")
    await shop.parts.redis_durable.xadd(keys.CALLBACKS, {"provider": "sandbox", "body": "{}"})

    await shop.callbacks.join()
    assert await shop.callbacks.once() == 8

    states = [(await shop.see(order))["status"] for order in (good, twice, declined, cheap)]
    assert states == ["delivered", "delivered", "delivered", "pending"]
    dead = await shop.rows("SELECT error FROM dead_letters ORDER BY error")
    assert [row["error"].partition(":")[0] for row in dead] == ["Hopeless", "Hopeless"]
    pending = await shop.parts.redis_durable.xpending(keys.CALLBACKS, keys.GROUP)
    assert pending["pending"] == 1  # the unknown order's may still come
    await shop.check()


async def test_one_bad_order_spoils_no_other_payment(shop: Any) -> None:
    """An order that lost its cards fails alone; the rest of its batch is delivered."""
    orders = [await shop.placed() for _ in range(3)]
    payments = [await shop.pay(order) for order in orders]
    broken = orders[1]["order_id"]
    await shop.execute("UPDATE cards SET state = 'disabled', order_id = NULL WHERE order_id = %s", broken)
    for order, payment in zip(orders, payments, strict=True):
        await shop.callback(order, payment)
    await shop.callbacks.join()
    await shop.callbacks.once()
    assert [(await shop.see(order))["status"] for order in orders] == ["delivered", "pending", "delivered"]


async def test_a_batch_is_few_statements(shop: Any) -> None:
    """Forty payments at once cost as many statements as four: what one costs must not grow with the crowd."""
    counts = []
    for many in (4, 40):
        orders = [await shop.placed() for _ in range(many)]
        for order in orders:
            await shop.callback(order, await shop.pay(order))
        seen: list[str] = []
        plain = psycopg.AsyncConnection.execute

        async def counted(self: Any, query: Any, *more: Any, **kw: Any) -> Any:
            if query:  # not the pool's own, which asks of a connection idle for a second whether it works
                seen.append(str(query))  # noqa: B023 - called within this turn only
            return await plain(self, query, *more, **kw)  # noqa: B023 - the same

        psycopg.AsyncConnection.execute = counted  # type: ignore[method-assign]
        try:
            await shop.callbacks.join()
            assert await shop.callbacks.once() == many
        finally:
            psycopg.AsyncConnection.execute = plain  # type: ignore[method-assign]
        counts.append(len(seen))
        assert {(await shop.see(order))["status"] for order in orders} == {"delivered"}
    assert 5 < counts[0] == counts[1]
