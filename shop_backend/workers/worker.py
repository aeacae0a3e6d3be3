"""The worker process: both streams and every loop, stopped together, restartable at any moment."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from shop_backend.config import Settings
from shop_backend.mail import FileMailbox, SmtpMailer
from shop_backend.notifications import Notifier, Outbox
from shop_backend.parts import Parts
from shop_backend.payments import Payments
from shop_backend.sms import SmsFiles, SmsWebhook
from shop_backend.stock.second_copy import SecondCopy
from shop_backend.storage.partitions import Partitions
from shop_backend.workers.callbacks import CallbackHandler
from shop_backend.workers.carts import CartKeeper, Line
from shop_backend.workers.entries import Handler
from shop_backend.workers.loop import Loop
from shop_backend.workers.money import Cashier
from shop_backend.workers.orders import OrderHandler
from shop_backend.workers.recovery import Recovery
from shop_backend.workers.runner import StreamRunner
from shop_backend.workers.sweeper import Sweeper
from shop_backend.workers.watch import Gauges, PartitionKeeper, StockKeeper

_log = logging.getLogger(__name__)


class Worker:
    """All background work of the shop. Any number may run side by side."""

    def __init__(self, settings: Settings, parts: Parts, *, mailer: Notifier | None = None) -> None:
        w, database, stock = settings.workers, parts.database, parts.stock
        payments = Payments(database, stock)
        cashier = Cashier(database, payments, parts.providers, w)
        public = settings.public_url.rstrip("/")

        def link(order_id: str) -> str:
            return f"{public}/orders/{order_id}?token={parts.tokens.order_token(order_id)}"

        mails = Outbox(database, mailer or _mailer(settings), settings.outbox, link=link)
        texts = Outbox(database, _texts(settings), settings.outbox, link=link, channel="sms")
        self._outboxes = (mails, texts)
        partitions = Partitions(database, settings.database)
        checkouts = Loop("checkouts", cashier.open_checkouts, w.interval)
        keeper = CartKeeper(parts.redis_volatile)
        carts = Loop("carts", keeper.work, w.interval)

        def written(lines: Sequence[Line]) -> None:
            checkouts.wake.set()
            keeper.ordered(lines)
            carts.wake.set()

        orders = [
            OrderHandler(
                database,
                stock,
                partitions,
                w,
                provider=parts.provider.name,
                shard=shard,
                written=written,
            )
            for shard in range(stock.shards)
        ]
        copies = SecondCopy(parts.redis_volatile, database)
        recovery = Recovery(database, copies, orders[0])  # any shard's will do
        self._keeper = StockKeeper(database, parts.redis_durable, stock, settings.stock, recovery)
        self._loops = [
            checkouts,
            carts,
            Loop("sweeper", Sweeper(database, stock, batch=w.sweep_batch).sweep, w.interval),
            Loop("poller", cashier.poll, w.interval),
            Loop("refunds", cashier.refund, w.interval),
            Loop("mail", mails.keep_sending, w.interval),
            Loop("text messages", texts.keep_sending, w.interval),
            Loop("stock", self._keeper.check, 1.0),
            Loop("old copies", lambda: _forgotten(copies), 60.0),
            Loop("catalogue", parts.catalog(settings.catalog).watch, 1.0),
            Loop("partitions", PartitionKeeper(partitions, stock).check, 5.0),
            Loop("gauges", Gauges(parts.redis_durable, stock, database).report, 2.0),
        ]
        callbacks = CallbackHandler(database, payments, parts.providers, w)
        handlers: list[Handler] = [*orders, callbacks]
        self._runners = [StreamRunner(parts.redis_streams, database, each, w) for each in handlers]

    async def run(self, stop: asyncio.Event) -> None:
        """Work until told to stop; what is in hand is finished."""
        # Once at the start: an import or a crash may have left SQL and Redis apart.
        first = Loop("first count of the stock", self._first, 0.5)
        self._counted = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            group.create_task(first.run(self._counted))
            for loop in self._loops:
                group.create_task(loop.run(stop))
            for runner in self._runners:
                group.create_task(runner.run(stop))
            await stop.wait()
            self._counted.set()
        for outbox in self._outboxes:
            await outbox.close()
        _log.info("worker stopped")

    async def _first(self) -> int:
        await self._keeper.check()
        await self._keeper.load()
        self._counted.set()
        return 1


async def _forgotten(copies: SecondCopy) -> int:
    """For a loop: there is never more to do at once."""
    await copies.forget()
    return 0


def _mailer(settings: Settings) -> Notifier:
    sender = settings.outbox.sender
    if settings.smtp_url is None:
        return FileMailbox(settings.data_dir / "mail", sender)
    return SmtpMailer(
        settings.smtp_url.get_secret_value(),
        sender,
        timeout=settings.outbox.timeout,
        kept=settings.outbox.at_once,
    )


def _texts(settings: Settings) -> Notifier:
    if settings.sms_url is None:
        return SmsFiles(settings.data_dir / "sms")
    secret = settings.require("sms_secret")
    return SmsWebhook(settings.sms_url.get_secret_value(), secret, timeout=settings.outbox.timeout)
