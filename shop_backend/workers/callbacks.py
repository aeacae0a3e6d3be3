"""From queued callbacks to settled payments."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import Callable, Mapping, Sequence

from redis.exceptions import RedisError

from shop_backend.delivery import CardsBusy
from shop_backend.metrics import CALLBACKS
from shop_backend.payments import Mismatch, Payments, UnknownOrder
from shop_backend.providers import Irrelevant, News, Payment, PaymentProvider, Refunded
from shop_backend.sections import WorkerSettings
from shop_backend.stock import keys
from shop_backend.storage.database import Connection, Database, is_outage
from shop_backend.workers.entries import Entry, Hopeless, Parked

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
        """Most at once; what needs thought after that: different orders side by side, one's news in turn."""
        failures: dict[str, Exception] = {}
        news: dict[str, News] = {}
        for entry in entries:
            try:
                news[entry.id] = self._read(entry)
            except (KeyError, ValueError) as error:
                CALLBACKS.labels("malformed").inc()
                failures[entry.id] = Hopeless(f"malformed callback: {error}")
        payments = {entry_id: each for entry_id, each in news.items() if isinstance(each, Payment)}
        results = await self._payments.settle_all(list(payments.values()), source="callback")
        settled = dict(zip(payments, results, strict=True))
        apart: dict[str, list[Entry]] = {}
        for entry in entries:
            result = settled.get(entry.id)
            if isinstance(result, UnknownOrder):
                failures[entry.id] = self._too_early(entry, result)
            elif result is not None:
                CALLBACKS.labels(result).inc()
            elif entry.id in news:
                apart.setdefault(_subject(news[entry.id]) or entry.id, []).append(entry)
        await self._one_by_one(list(apart.values()), news, failures)
        return failures

    async def _one_by_one(
        self, groups: Sequence[Sequence[Entry]], news: Mapping[str, News], failures: dict[str, Exception]
    ) -> None:
        slots = asyncio.Semaphore(_AT_ONCE)

        async def settle(group: Sequence[Entry]) -> None:
            async with slots:
                for entry in group:
                    try:
                        await self._settle(entry, news[entry.id])
                    except Exception as error:
                        if isinstance(error, RedisError) or is_outage(error):
                            raise
                        failures[entry.id] = error

        # All have to end before an outage is reported: the batch is then tried again as a whole.
        results = await asyncio.gather(*map(settle, groups), return_exceptions=True)
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def order_of(self, entry: Entry) -> str | None:
        """The order of a payment."""
        try:
            news = self._read(entry)
        except (KeyError, ValueError):
            return None
        return _subject(news)

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

    async def _settle(self, entry: Entry, news: News) -> None:
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
            raise self._too_early(entry, error) from error
        except CardsBusy as error:
            raise Parked(str(error)) from error
        except Mismatch as error:
            CALLBACKS.labels("mismatch").inc()
            raise Hopeless(str(error)) from error
        CALLBACKS.labels(result).inc()

    def _too_early(self, entry: Entry, error: UnknownOrder) -> Exception:
        """Parked, for as long as the order's row may still come."""
        if self._clock() - _received(entry) > self._settings.park_for:
            return Hopeless(f"{error}, for {self._settings.park_for:g} s")
        CALLBACKS.labels("parked").inc()
        return Parked(str(error))

    def _read(self, entry: Entry) -> News:
        """Raises KeyError for a provider we don't have, ValueError for nonsense."""
        _received(entry)
        return self._providers[entry.fields["provider"]].read(entry.fields["body"])


def _received(entry: Entry) -> float:
    """When the callback came, Unix time; raises KeyError or ValueError."""
    return int(entry.fields["received_ms"]) / 1000


def _subject(news: News) -> str | None:
    """The order that news are about, when they say."""
    if not isinstance(news, Payment):
        return None
    try:
        return str(uuid.UUID(news.order_id))
    except ValueError:
        return None
