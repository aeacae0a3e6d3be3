"""Reading a stream as one of a group: every entry is handled, and handled again until it is done.

An entry is acknowledged after its work is committed. What a dead worker left is claimed by another;
what fails time after time is given up: written down in `dead_letters`, its effects undone.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from shop_backend import tracing
from shop_backend.metrics import DEAD
from shop_backend.sections import WorkerSettings
from shop_backend.stock import keys
from shop_backend.storage.database import Database, is_outage
from shop_backend.workers.entries import Entry, Handler, Hopeless, Parked, brief, bury

_log = logging.getLogger(__name__)

_GONE = 3600.0  # seconds without a call after which a consumer is taken for dead
_OUTAGE_PAUSE = 0.5  # seconds before asking a server again that was away
# Take a consumer off a group unless entries are written to it: those would be nobody's any more. In one step,
# since a read that was given up may reach Redis late, and a worker that stood still for long may go on.
_FORGET = (
    "if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end "
    "return redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])"
)


def consumer_name() -> str:
    """A name no other worker has, not even this one after a restart."""
    return f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"


class StreamRunner:
    """One consumer of one stream."""

    def __init__(
        self,
        redis: Redis,
        database: Database,
        handler: Handler,
        settings: WorkerSettings,
        *,
        consumer: str | None = None,
    ) -> None:
        self._redis = redis
        self._database = database
        self._handler = handler
        self._settings = settings
        self._stream = handler.stream
        self._consumer = consumer or consumer_name()
        self._parked = False  # whether entries of ours wait for another try
        self._next_claim = 0.0

    async def run(self, stop: asyncio.Event) -> None:
        """Handle entries until told to stop; an outage is waited out."""
        await self._forget_the_dead()
        while not stop.is_set():
            began = asyncio.get_running_loop().time()
            try:
                if 0 < await self.once(stop=stop) < self._settings.batch:
                    # Under load the next batch is the larger for it, and costs as much as a small one.
                    pause = began + self._settings.gather - asyncio.get_running_loop().time()
                    if pause > 0:
                        await _pause(stop, pause)
            except Exception as error:  # noqa: BLE001 - a worker that ends on an error serves nobody
                if isinstance(error, ResponseError) and "NOGROUP" in str(error):
                    await self.join()
                    continue
                if isinstance(error, RedisError) or is_outage(error):
                    _log.warning("%s: a server is away: %s", self._stream, brief(error))
                else:
                    _log.exception("%s: unexpected error", self._stream)
                await _pause(stop, _OUTAGE_PAUSE)
        await self._leave()

    async def once(self, *, stop: asyncio.Event | None = None, block: float | None = None) -> int:
        """Handle one batch: entries to retry, else abandoned ones, else new ones.

        Returns:
            How many entries were looked at.

        Raises:
            RedisError: Redis is away, or the group is missing ("NOGROUP").
        """
        entries = await self._mine() or await self._abandoned() or await self._new(block)
        if entries:
            await self._process(entries, stop or asyncio.Event())
        return len(entries)

    async def join(self) -> None:
        """Make the group, if it is not there."""
        try:
            # From 0, not $: what was queued before the first worker came must not be skipped.
            await self._redis.xgroup_create(self._stream, keys.GROUP, id="0", mkstream=True)
        except RedisError as error:
            if "BUSYGROUP" not in str(error):
                _log.warning("%s: no group: %s", self._stream, brief(error))
                await asyncio.sleep(_OUTAGE_PAUSE)

    # ---- getting entries ---------------------------------------------------------------------

    async def _mine(self) -> list[Entry]:
        """Ours that were parked or failed, after a pause."""
        if not self._parked:
            return []
        idle = int(self._settings.retry_after * 1000)
        pending: Any = await self._redis.xpending_range(
            self._stream,
            keys.GROUP,
            min="-",
            max="+",
            count=self._settings.batch,
            consumername=self._consumer,
        )
        self._parked = bool(pending)
        due = [each["message_id"] for each in pending if each["time_since_delivered"] >= idle]
        if not due:
            return []
        return _entries(await self._redis.xclaim(self._stream, keys.GROUP, self._consumer, idle, due))

    async def _abandoned(self) -> list[Entry]:
        """Entries of workers that are gone, looked for now and then."""
        now = asyncio.get_running_loop().time()
        if now < self._next_claim:
            return []
        answer = await self._redis.xautoclaim(
            self._stream,
            keys.GROUP,
            self._consumer,
            min_idle_time=int(self._settings.abandoned_after * 1000),
            count=self._settings.batch,
        )
        entries = _entries(answer[1])
        if not entries:
            self._next_claim = now + self._settings.abandoned_after / 3
        return entries

    async def _new(self, block: float | None) -> list[Entry]:
        wait = self._settings.block if block is None else block
        if self._parked:
            wait = min(wait, self._settings.retry_after)
        answer: Any = await self._redis.xreadgroup(
            keys.GROUP,
            self._consumer,
            {self._stream: ">"},
            count=self._settings.batch,
            block=int(wait * 1000) or None,  # 0 would block for ever
        )
        if not answer:
            return []
        # RESP2 answers a list of pairs, RESP3 a mapping.
        batches = answer.values() if isinstance(answer, dict) else [pair[1] for pair in answer]
        return [entry for batch in batches for entry in _entries(batch)]

    # ---- handling them -----------------------------------------------------------------------

    async def _process(self, entries: list[Entry], stop: asyncio.Event) -> None:
        failures: Mapping[str, Exception]
        while True:
            try:
                with tracing.handling(
                    keys.label(self._stream), (entry.fields.get(tracing.FIELD, "") for entry in entries)
                ):
                    failures = await self._handler.handle(entries)
                break
            except Exception as error:  # noqa: BLE001 - kept beside the entry, and logged
                if not (isinstance(error, RedisError) or is_outage(error)):
                    failures = {entry.id: error for entry in entries}
                    break
                # Nobody's fault but the server's: not counted as a try.
                self._parked = True
                _log.warning("%s: a server is away: %s", self._stream, brief(error))
                await _pause(stop, _OUTAGE_PAUSE)
                if stop.is_set():
                    return
        await self._acknowledge([entry for entry in entries if entry.id not in failures])
        for entry in entries:
            if entry.id in failures:
                await self._failed_alone(entry, failures[entry.id])

    async def _acknowledge(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        ids = [entry.id for entry in entries]
        async with self._redis.pipeline(transaction=True) as pipe:
            pipe.xack(self._stream, keys.GROUP, *ids)
            pipe.xdel(self._stream, *ids)
            pipe.hdel(keys.failures(self._stream), *ids)
            await pipe.execute()

    async def _failed_alone(self, entry: Entry, error: Exception) -> None:
        """What goes wrong with one entry here stops no other; only an outage does."""
        try:
            await self._failed(entry, error)
        except Exception as trouble:
            if isinstance(trouble, RedisError) or is_outage(trouble):
                raise
            _log.exception("%s %s: can't be given up; tried again later", self._stream, entry.id)

    async def _failed(self, entry: Entry, error: Exception) -> None:
        self._parked = True
        if isinstance(error, Parked):
            return
        if not isinstance(error, Hopeless):
            tries: Any = self._redis.hincrby(keys.failures(self._stream), entry.id, 1)
            count = int(await tries)
            _log.warning("%s %s: try %d failed: %s", self._stream, entry.id, count, brief(error))
            if count < self._settings.attempts:
                return
        try:
            real = await bury(self._database, self._handler, entry, brief(error))
        except Exception as trouble:
            if isinstance(trouble, RedisError) or is_outage(trouble):
                raise
            # Better a letter that says little than an entry that never ends.
            _log.exception("%s %s: its dead letter can't be written in full", self._stream, entry.id)
            why = f"{type(error).__name__}, then {type(trouble).__name__}"
            real = await bury(self._database, self._handler, entry, why, in_full=False)
        if real:
            _log.error("%s %s: given up: %s", self._stream, entry.id, brief(error))
            await self._handler.gave_up(entry)
            DEAD.labels(keys.label(self._stream)).inc()
        await self._acknowledge([entry])

    async def _forget_the_dead(self) -> None:
        """Take names off the group whose workers are gone and left nothing."""
        try:
            consumers: Any = await self._redis.xinfo_consumers(self._stream, keys.GROUP)
            for each in consumers:
                if not each["pending"] and each["idle"] > _GONE * 1000:
                    await self._forget(each["name"])
        except RedisError:
            return  # there is no group yet, or names are left behind, which does no harm

    async def _leave(self) -> None:
        """Take our name off the group, unless entries are still written to it."""
        try:
            await self._forget(self._consumer)
        except RedisError:
            return  # a name left behind does no harm

    async def _forget(self, consumer: str) -> None:
        asked: Any = self._redis.eval(_FORGET, 1, self._stream, keys.GROUP, consumer)
        await asked


def _entries(raw: Sequence[Any]) -> list[Entry]:
    """Entries as redis-py gives them; deleted ones come without fields."""
    return [Entry(each[0], each[1]) for each in raw if each and each[1]]


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), seconds)
    except TimeoutError:
        return
