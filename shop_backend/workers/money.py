"""What the shop asks its payment providers by itself: checkouts, lost callbacks, refunds."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from shop_backend.delivery import CardsBusy
from shop_backend.payments import Mismatch, Payments, UnknownOrder
from shop_backend.providers import Checkout, PaymentProvider, ProviderError, Refunded
from shop_backend.sections import WorkerSettings
from shop_backend.storage.database import Database

_log = logging.getLogger(__name__)

_CHECKOUTS = 50  # opened side by side
_WRITE_EVERY = 0.05  # seconds; what was opened meanwhile is written down at once
_POLLS = 20
_REFUNDS = 10
_LONGEST = 300.0  # seconds between two tries
_LONGEST_OVERDUE = 3600.0  # the same, of the last question about an order
_FIRST_CHECKOUT_RETRY = 0.25  # seconds; doubles
_LONGEST_CHECKOUT_RETRY = 15.0  # seconds; a buyer is waiting to pay
_NEVER = "9000-01-01"  # a date that psycopg can read, unlike infinity


class Cashier:
    """Talks to the providers. Every call may be made twice: a provider answers the same again.

    Args:
        providers: by name, also those that take no new orders any more.
    """

    def __init__(
        self,
        database: Database,
        payments: Payments,
        providers: Mapping[str, PaymentProvider],
        settings: WorkerSettings,
    ) -> None:
        self._database = database
        self._payments = payments
        self._providers = providers
        self._settings = settings

    async def open_checkouts(self) -> int:
        """Give pending orders a place to pay; how many got one.

        Raises:
            ProviderError: none got one.
        """
        async with self._database.primary() as connection:
            cursor = await connection.execute(
                # Put off before it is tried: what the provider refuses for good must not starve the others.
                "UPDATE orders SET checkout_tries = checkout_tries + 1, next_checkout_at = now() +"
                " make_interval(secs => least(%s * 2 ^ least(checkout_tries, 20), %s))"
                " WHERE id IN (SELECT id FROM orders WHERE state = 'pending' AND checkout_id IS NULL"
                " AND next_checkout_at <= now() ORDER BY next_checkout_at LIMIT %s FOR UPDATE SKIP LOCKED)"
                " RETURNING id::text, sku, quantity, amount_cents, currency, email, provider, created_at,"
                " expires_at",
                (_FIRST_CHECKOUT_RETRY, _LONGEST_CHECKOUT_RETRY, _CHECKOUTS),
            )
            orders = await cursor.fetchall()
        return await self._open_all(orders)

    async def poll(self) -> int:
        """Ask about unpaid and just-expired orders whose callback may be lost; how many were asked about.

        The last question, `poll_until` after expiry, is asked until it has its answer.

        Raises:
            ProviderError: none could be asked about.
        """
        async with self._database.primary() as connection:
            cursor = await connection.execute(
                # Put off before it is tried: one that is never answered must not starve the others.
                "UPDATE orders SET polls = polls + 1, next_poll_at = now() + make_interval(secs => least("
                " %s * 2 ^ least(polls, 20), CASE WHEN state = 'expired'"
                " AND closed_at < now() - make_interval(secs => %s) THEN %s ELSE %s END))"
                " WHERE id IN (SELECT id FROM orders WHERE state IN ('pending', 'expired')"
                " AND next_poll_at <= now() ORDER BY next_poll_at LIMIT %s FOR UPDATE SKIP LOCKED)"
                " RETURNING id::text, state, polls, provider, checkout_id, next_poll_at,"
                " state = 'expired' AND closed_at < now() - make_interval(secs => %s) AS overdue",
                (
                    self._settings.poll_after,
                    self._settings.poll_until,
                    _LONGEST_OVERDUE,
                    _LONGEST,
                    _POLLS,
                    self._settings.poll_until,
                ),
            )
            orders = await cursor.fetchall()
        answers = await asyncio.gather(*map(self._ask, orders), return_exceptions=True)
        over = [row for row, answer in zip(orders, answers, strict=True) if row["overdue"] and answer is True]
        if over:
            await self._ask_no_more(over)
        _well(len(answers), [each for each in answers if isinstance(each, BaseException)])
        return len(orders)

    async def refund(self) -> int:
        """Send money back that is owed, and ask how that stands; how many refunds were looked at.

        Raises:
            ProviderError: none went through.
        """
        async with self._database.primary() as connection:
            cursor = await connection.execute(
                "UPDATE refunds SET attempts = attempts + 1, next_attempt_at = now() +"
                " make_interval(secs => least(2 ^ least(attempts, 20), %s))"
                " WHERE (provider, payment_id) IN (SELECT provider, payment_id FROM refunds"
                " WHERE state IN ('pending', 'requested') AND next_attempt_at <= now()"
                " ORDER BY next_attempt_at LIMIT %s FOR UPDATE SKIP LOCKED)"
                " RETURNING provider, payment_id, amount_cents, currency",
                (_LONGEST, _REFUNDS),
            )
            owed = await cursor.fetchall()
        await self._all([self._give_back(row) for row in owed])
        return len(owed)

    # ---- one of each -------------------------------------------------------------------------

    async def _open_all(self, orders: Sequence[Mapping[str, Any]]) -> int:
        """Side by side, and written down some at a time: nobody waits for another's slow checkout."""
        asked = {asyncio.create_task(self._checkout(order)): order["id"] for order in orders}
        errors: list[BaseException] = []
        waiting: set[asyncio.Task[Checkout]] = set(asked)
        try:
            while waiting:
                done, waiting = await asyncio.wait(waiting, timeout=_WRITE_EVERY)
                opened = []
                for task in done:
                    if (error := task.exception()) is not None:
                        errors.append(error)
                    else:
                        opened.append((asked[task], task.result().checkout_id, task.result().url))
                if opened:
                    await self._write(opened)
        finally:
            for task in waiting:
                task.cancel()
        return _well(len(orders), errors)

    async def _checkout(self, order: Mapping[str, Any]) -> Checkout:
        return await self._of(order).checkout(order)

    async def _write(self, opened: Sequence[tuple[str, str, str]]) -> None:
        async with self._database.primary() as connection:
            await connection.execute(
                # Locked in the order in which payments lock them.
                "WITH t AS (SELECT * FROM unnest(%s::uuid[], %s::text[], %s::text[])"
                "  AS t (id, checkout, url)),"
                " locked AS (SELECT id FROM orders WHERE id IN (SELECT id FROM t) ORDER BY id FOR UPDATE)"
                " UPDATE orders SET checkout_id = t.checkout, pay_url = t.url FROM t JOIN locked USING (id)"
                " WHERE orders.id = t.id AND orders.checkout_id IS NULL",
                [list(column) for column in zip(*opened, strict=True)],
            )

    async def _ask(self, order: Mapping[str, Any]) -> bool:
        """Settle what the provider has of an order; whether there will be no more to hear."""
        provider, order_id, over = self._of(order), order["id"], True
        if order["state"] == "expired" and (order["polls"] == 1 or order["overdue"]):
            over = await provider.withdraw(order)
        # Declined payments first, as they happened: the outcome of an order is its capture.
        for payment in await provider.payments_of(order):
            try:
                result = await self._payments.settle(payment, source="poll")
            except (CardsBusy, Mismatch, UnknownOrder) as error:
                _log.warning("order %s polled: %s", order_id, error)
                over = over and not isinstance(error, CardsBusy)
                continue
            if result != "duplicate":
                _log.info("order %s polled: %s", order_id, result)
        return over

    async def _ask_no_more(self, orders: Sequence[Mapping[str, Any]]) -> None:
        ids, times = [row["id"] for row in orders], [row["next_poll_at"] for row in orders]
        async with self._database.primary() as connection:
            await connection.execute(
                # Locked as in `_write`; a callback that has meanwhile asked for a poll gets it.
                "WITH t AS (SELECT * FROM unnest(%s::uuid[], %s::timestamptz[]) AS t (id, next_poll_at)),"
                " locked AS (SELECT id FROM orders WHERE id IN (SELECT id FROM t) ORDER BY id FOR UPDATE)"
                " UPDATE orders SET next_poll_at = %s FROM t JOIN locked USING (id)"
                " WHERE orders.id = t.id AND orders.next_poll_at = t.next_poll_at",
                (ids, times, _NEVER),
            )

    async def _give_back(self, row: Mapping[str, Any]) -> None:
        state = await self._of(row).refund(row["payment_id"], row["amount_cents"], row["currency"])
        await self._payments.refunded(Refunded(row["provider"], row["payment_id"], state))
        if state == "failed":
            _log.error("the refund of %s failed at %s", row["payment_id"], row["provider"])

    def _of(self, row: Mapping[str, Any]) -> PaymentProvider:
        """Whom a row is about."""
        provider = self._providers.get(row["provider"])
        if provider is None:
            raise ProviderError(f"the provider {row['provider']} is not set up here any more")
        return provider

    async def _all(self, work: list[Any]) -> int:
        """Side by side; one failure does not stop the others. Returns how many went well."""
        results = await asyncio.gather(*work, return_exceptions=True)
        return _well(len(results), [each for each in results if isinstance(each, BaseException)])


def _well(count: int, errors: Sequence[BaseException]) -> int:
    """How many of `count` went well; raises when a program is at fault, or none went well."""
    for error in errors:
        if not isinstance(error, ProviderError):
            raise error
    if errors and len(errors) == count:
        raise errors[0]
    for error in errors:
        _log.warning("%s", error)
    return count - len(errors)
