"""From queued callbacks to settled payments."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence

from redis.exceptions import RedisError

from shop_backend.config import WorkerSettings
from shop_backend.delivery import CardsBusy
from shop_backend.metrics import CALLBACKS
from shop_backend.payments import Mismatch, Payments, UnknownOrder
from shop_backend.providers import Irrelevant, News, Payment, PaymentProvider, Refunded
from shop_backend.stock import keys
from shop_backend.storage.database import Connection, Database, is_outage
from shop_backend.workers.runner import Entry, Hopeless, Parked

_log = logging.getLogger(__name__)

_AT_ONCE = 6  # orders settled side by side; each takes a database connection


class CallbackHandler:
    """Settles payments."""

    stream = keys.CALLBACKS

    def __init__(
        self,
        database: Database,
        payments: Payments,
        providers: Mapping[str, PaymentProvider],
        settings: WorkerSettings,
        *,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._database = database
        self._payments = payments
        self._providers = providers
        self._settings = settings
        self._clock = clock

    async def handle(self, entries: Sequence[Entry]) -> Mapping[str, Exception]:
        """Different orders side by side, one order's news one after the other."""
        by_order: dict[str, list[Entry]] = {}
        for entry in entries:
            by_order.setdefault(self.order_of(entry) or entry.id, []).append(entry)
        slots = asyncio.Semaphore(_AT_ONCE)
        failures: dict[str, Exception] = {}

        async def settle(group: list[Entry]) -> None:
            async with slots:
                for entry in group:
                    try:
                        await self._settle(entry)
                    except Exception as error:
                        if isinstance(error, RedisError) or is_outage(error):
                            raise
                        failures[entry.id] = error

        # All have to end before an outage is reported: the batch is then tried again as a whole.
        results = await asyncio.gather(*map(settle, by_order.values()), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return failures

    def order_of(self, entry: Entry) -> str | None:
        """The order of a payment."""
        try:
            news = self._read(entry)
        except (KeyError, ValueError):
            return None
        return _uuid_or_none(news.order_id) if isinstance(news, Payment) else None

    async def give_up(self, connection: Connection, entry: Entry) -> bool:
        """Let the provider be asked at once what really happened to the order."""
        order_id = self.order_of(entry)
        if order_id is not None:
            await connection.execute(
                "UPDATE orders SET next_poll_at = now() WHERE id = %s AND state IN ('pending', 'expired')",
                (order_id,),
            )
        return True

    async def gave_up(self, entry: Entry) -> None:
        """Nothing was done that had to be undone."""

    async def _settle(self, entry: Entry) -> None:
        try:
            news = self._read(entry)
            received = int(entry.fields["received_ms"]) / 1000
        except (KeyError, ValueError) as error:
            CALLBACKS.labels("malformed").inc()
            raise Hopeless(f"malformed callback: {error}") from error
        if isinstance(news, Irrelevant):
            return
        if isinstance(news, Refunded):
            known = await self._payments.refunded(news)
            result = "refunded" if news.state == "refunded" else f"refund_{news.state}"
            CALLBACKS.labels(result if known else "duplicate").inc()
            return
        try:
            result = await self._payments.settle(news, source="callback")
        except UnknownOrder as error:
            if self._clock() - received > self._settings.park_for:
                raise Hopeless(f"{error}, for {self._settings.park_for:g} s") from error
            CALLBACKS.labels("parked").inc()
            raise Parked(str(error)) from error
        except CardsBusy as error:
            raise Parked(str(error)) from error
        except Mismatch as error:
            CALLBACKS.labels("mismatch").inc()
            raise Hopeless(str(error)) from error
        CALLBACKS.labels(result).inc()

    def _read(self, entry: Entry) -> News:
        """Raises KeyError for a provider we don't have, ValueError for nonsense."""
        return self._providers[entry.fields["provider"]].read(entry.fields["body"])


def _uuid_or_none(text: str) -> str | None:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return None
