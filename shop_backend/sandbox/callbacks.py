"""Send what the ledger owes the merchants, signed, until they take it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import random
import sqlite3
from datetime import UTC, datetime

from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook

from shop_backend.errors import SetupError
from shop_backend.http_client import HttpClient, NoAnswer
from shop_backend.sandbox.debts import Callback, Debts

log = logging.getLogger(__name__)

AT_ONCE = 32  # callbacks under way
TIMEOUT = 5.0  # seconds a merchant may take
MAX_ANSWER = 64 * 1024  # bytes of a merchant's answer read
FIRST_RETRY = 0.5  # seconds; doubles with each failure
TROUBLE = 1.0  # seconds to wait when the ledger itself fails
LAST_RETRY = 60.0  # seconds; no retry waits longer


def back_off(attempts: int, jitter: float) -> float:
    """Seconds to wait after `attempts` failures (0 for the first); `jitter` in 0..1 spreads them.

    Doubles from FIRST_RETRY to LAST_RETRY, of which half is left to the jitter.
    """
    ceiling = min(LAST_RETRY, FIRST_RETRY * 2.0 ** min(attempts, 30))
    return ceiling * (0.5 + 0.5 * jitter)


class Sender:
    """Delivers due callbacks, several at once, oldest first.

    Args:
        debts: what is owed.
        secret: Standard Webhooks secret, `whsec_…`; an empty one is refused.

    Raises:
        SetupError: the secret is empty or not base64.
    """

    def __init__(self, debts: Debts, secret: str) -> None:
        if not secret.removeprefix("whsec_"):
            raise SetupError("no signing secret: set TIDEGATE_SANDBOX_SECRET to whsec_<base64>")
        try:
            self._signer = Webhook(secret)
        except (ValueError, EmptyWebhookSecretError):
            # From nothing: the cause may quote the secret.
            raise SetupError("TIDEGATE_SANDBOX_SECRET is not whsec_<base64>") from None
        self._debts = debts
        self._wake = asyncio.Event()
        self._busy: dict[int, asyncio.Task[None]] = {}

    def wake(self) -> None:
        """Look at the ledger now: something was added."""
        self._wake.set()

    async def run(self) -> None:
        """Deliver until cancelled. What is under way then is owed still, and sent again later."""
        # One that follows no redirect: it would lead away from the address that was checked.
        http = HttpClient(at_once=AT_ONCE, timeout=TIMEOUT, max_answer=MAX_ANSWER)
        try:
            while True:
                self._wake.clear()
                wait = await self._start_due(http)
                # Not wait_for: in Python 3.11 it swallows a cancellation that comes with the wake.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait):
                        await self._wake.wait()
        finally:
            tasks = list(self._busy.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await http.close()

    async def _start_due(self, http: HttpClient) -> float | None:
        room = AT_ONCE - len(self._busy)
        if room <= 0:
            return None  # whoever finishes wakes us
        try:
            callbacks, wait = await self._debts.due(room, besides=list(self._busy))
        except sqlite3.Error as error:
            log.error("the ledger can't be read (%s); callbacks wait %.0f s", error, TROUBLE)  # noqa: TRY400 - one line
            return TROUBLE
        except Exception:
            # A sender that ends on what nobody foresaw would owe for ever.
            log.exception("callbacks can't be looked up; they wait %.0f s", TROUBLE)
            return TROUBLE
        for callback in callbacks:
            task = asyncio.create_task(self._deliver(http, callback))
            self._busy[callback.seq] = task
            task.add_done_callback(functools.partial(self._done, callback.seq))
        return wait

    def _done(self, seq: int, _: asyncio.Task[None]) -> None:
        del self._busy[seq]
        self._wake.set()

    async def _deliver(self, http: HttpClient, callback: Callback) -> None:
        try:
            await self._try(http, callback)
        except Exception as error:
            # Owed still, and not to come again at once.
            unforeseen = not isinstance(error, sqlite3.Error)
            log.error("callback %s will repeat: %r", callback.message_id, error, exc_info=unforeseen)  # noqa: TRY400 - as above
            await asyncio.sleep(TROUBLE)

    async def _try(self, http: HttpClient, callback: Callback) -> None:
        body = callback.body
        now = datetime.now(tz=UTC)
        headers = {
            "content-type": "application/json",
            "webhook-id": callback.message_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(callback.message_id, now, body),
        }
        try:
            answer = await http.ask("POST", callback.url, body=body.encode(), headers=headers)
            status, why = answer.status, f"HTTP {answer.status}"
        except NoAnswer as error:
            status, why = 0, str(error)
        if 200 <= status < 300:
            await self._debts.taken(callback.seq)
            return
        delay = back_off(callback.attempts, random.random())  # noqa: S311 - jitter
        attempt = callback.attempts + 1
        log.warning(
            "callback %s not taken (%s), attempt %d, again in %.1f s",
            callback.message_id,
            why,
            attempt,
            delay,
        )
        await self._debts.retry(callback.seq, delay)
