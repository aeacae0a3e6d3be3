"""Limits that all gateways share through Redis: one script call for the requests of a loop tick."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence

from redis.asyncio.connection import AbstractConnection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError

from gateway.exchange import Charge, Clock, Hit, Verdict
from gateway.state.limits_batch import TAKE, Batch, OutOfStepError, Waiting, split
from gateway.state.limits_full import FullKeys
from gateway.state.limits_local import LocalLimits

__all__ = ["LocalLimits", "SharedLimits"]

CONNECT_TIMEOUT = 1.0  # seconds; no request waits for a connect
HEARTBEAT = 1.0  # seconds between looks at an idle store, so that `up` is true
FIRST_PROBE, LAST_PROBE = 0.1, 2.0  # seconds between probes while the store is away, before jitter
STEADY = 5.0  # seconds up after which the next outage is probed as quickly as the first
GRACE = 5  # loop passes after a time-out in which an answer that already arrived is still read

log = logging.getLogger(__name__)


class SharedLimits:
    """A LimitStore in Redis, with a local share while Redis is away.

    One task owns one connection, so a caller that is cancelled never touches it, and replies can't be swapped
    (redis-py#2665); any error or time-out drops it. Calls are made one after the other, each within
    `timeout` / 2: a request waits at most for the call under way and for its own, together `timeout`.
    A key that Redis refused is refused here until it can pass again, so an attacker costs no round trip.
    After a failure nothing is sent until a jittered probe succeeds; meanwhile each limit's `on_store_failure`
    decides: "local" judges this worker's share, "allow" admits, "refuse" refuses for a second
    (the policy answers that with 503, for it is not the client's doing).

    Attributes:
        up: whether the store answers.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout: float,
        prefix: str,
        workers: int,
        clock: Clock = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.up = False
        self._pool = ConnectionPool.from_url(
            url,
            protocol=2,
            socket_timeout=None,  # the time-out here covers send and receive together
            socket_connect_timeout=CONNECT_TIMEOUT,
            retry=Retry(NoBackoff(), 0),
        )
        self._call_timeout = timeout / 2
        self._prefix = f"{{{prefix}}}:limit:"  # the braces keep all keys in one slot
        self._local = LocalLimits(workers, clock, fallback=True)
        self._full = FullKeys(clock)
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._connection: AbstractConnection | None = None
        self._sha = ""
        self._calls = 0
        self._queue: list[Waiting] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    # ---- for policies -------------------------------------------------------------------------

    def try_take(self, hits: Sequence[Hit]) -> Verdict | None:
        """As `take` when there is nothing to wait for; else None, and `take` is to be awaited."""
        return self._full.verdict(hits) if self.up else self._without_store(hits)

    async def take(self, hits: Sequence[Hit]) -> Verdict:
        """Charge every limit at once, or none; shadow limits never refuse.

        Waits at most `timeout`; never raises for the store's sake.
        """
        if not self.up:
            return self._without_store(hits)
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        self._queue.append((hits, future))
        self._wake.set()
        return await future

    # ---- life ---------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect, and keep trying in the background if that fails."""
        await self._try_connect()
        self._task = asyncio.create_task(self._run(), name="limits")

    async def aclose(self) -> None:
        """Stop; whoever still waits is judged locally."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})
        await self._drop()

    async def _run(self) -> None:
        pause = FIRST_PROBE
        while True:
            while not self.up:
                # Jittered, so that the gateways don't all come back in the same moment.
                await asyncio.sleep(pause * self._rng.uniform(0.5, 1.5))
                pause = min(pause * 2, LAST_PROBE)
                await self._try_connect()
            since = self._clock()
            try:
                await self._serve()
            except TimeoutError:
                milliseconds = self._call_timeout * 1000
                log.warning("limits are judged locally: no answer from Redis within %g ms", milliseconds)
            except (RedisError, OSError, OutOfStepError) as error:
                log.warning("limits are judged locally, Redis is away: %s: %s", type(error).__name__, error)
            except Exception:
                log.exception("limits are judged locally, a call to Redis failed inside the gateway")
            finally:
                await self._drop()
            if self._clock() - since > STEADY:
                pause = FIRST_PROBE

    async def _serve(self) -> None:
        """Call for whoever waits, until a call fails."""
        loop = asyncio.get_running_loop()
        while True:
            if not self._queue:
                beat = loop.call_later(HEARTBEAT, self._wake.set)
                self._wake.clear()
                await self._wake.wait()
                beat.cancel()
            waiting, self._queue = self._queue, []
            try:
                await self._call(waiting)
            except BaseException:
                self._queue[:0] = waiting  # judged locally by _drop
                raise

    async def _try_connect(self) -> None:
        connection: AbstractConnection = self._pool.make_connection()  # type: ignore[no-untyped-call]  # redis-py's gap
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                await connection.connect()  # type: ignore[no-untyped-call]  # redis-py's gap
                await connection.send_command("SCRIPT", "LOAD", TAKE)
                self._sha = str(await connection.read_response(), "ascii")
            self._connection = connection
            await self._call([])  # as quick as it must be for requests
        except (RedisError, OSError, TimeoutError, OutOfStepError):
            self._connection = None
            await connection.disconnect(nowait=True)
        else:
            log.info("limits are shared through Redis")
            self.up = True

    async def _drop(self) -> None:
        self.up = False
        self._full.clear()
        queue, self._queue = self._queue, []
        for hits, future in queue:
            if not future.done():
                future.set_result(self._without_store(hits))
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    # ---- one call -----------------------------------------------------------------------------

    async def _call(self, waiting: Sequence[Waiting]) -> None:
        """Send all that wait, in batches, and settle them from the replies.

        Raises:
            TimeoutError: no answer within half of `timeout`.
        """
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as limit:
            alarm: list[asyncio.Handle] = [loop.call_later(self._call_timeout, lambda: expire(GRACE))]

            def expire(passes: int) -> None:
                # A worker that was busy for longer than the time-out finds the answer waiting: read it first.
                if passes:
                    alarm[0] = loop.call_soon(expire, passes - 1)
                else:
                    limit.reschedule(loop.time())

            try:
                await self._exchange(waiting)
            finally:
                alarm[0].cancel()

    async def _exchange(self, waiting: Sequence[Waiting]) -> None:
        connection = self._connection
        if connection is None:
            raise OutOfStepError("the connection is gone")
        batches = []
        for some in split(waiting):
            self._calls += 1
            batches.append(Batch(self._calls, self._prefix, some))
        asked = self._clock()
        await connection.send_packed_command(
            [batch.command("EVALSHA", self._sha) for batch in batches], check_health=False
        )
        forgotten = []
        for batch in batches:
            try:
                self._settle(batch, await connection.read_response(), asked)
            except NoScriptError:  # Redis was restarted or flushed its scripts; nothing was charged
                forgotten.append(batch)
        for batch in forgotten:
            await connection.send_packed_command([batch.command("EVAL", TAKE)], check_health=False)
            self._settle(batch, await connection.read_response(), asked)

    def _settle(self, batch: Batch, reply: object, asked: float) -> None:
        for hit, charge in batch.settle(reply):
            self._full.learn(hit, charge, asked)

    def _without_store(self, hits: Sequence[Hit]) -> Verdict:
        every = [hit.terms for hit in hits]
        refused = any(terms.on_store_failure == "refuse" and not terms.shadow for terms in every)
        local = iter(
            self._local.judge([hit for hit in hits if hit.terms.on_store_failure == "local"], refused=refused)
        )
        return [
            next(local)
            if terms.on_store_failure == "local"
            else Charge(True, terms.capacity, terms.capacity, 0.0, fallback=True)
            if terms.on_store_failure == "allow"
            else Charge(False, 0, terms.capacity, 1.0, 1.0, fallback=True)
            for terms in every
        ]
