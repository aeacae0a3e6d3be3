"""Limits that all gateways share through Redis: one script call for the requests of a loop tick."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

from redis.exceptions import MovedError, RedisError

from gateway.exchange import Clock, Hit, Verdict
from gateway.state.counters import Counters, OwnCounters
from gateway.state.limits_batch import MAX_HITS, OutOfStepError, Waiting
from gateway.state.limits_full import FullKeys
from gateway.state.limits_link import Link
from gateway.state.limits_local import LocalLimits
from gateway.state.limits_owed import Owed

__all__ = ["LocalLimits", "SharedLimits"]

HEARTBEAT = 1.0  # seconds between two signs of life, which also keep `up` true on an idle store
FIRST_PROBE, LAST_PROBE = 0.1, 2.0  # seconds between probes while the store is away, before jitter
STEADY = 5.0  # seconds up after which the next outage is probed as quickly as the first
GRACE = 5  # loop passes after a time-out in which an answer that already arrived is still read
GATHER = 0.05  # seconds between looks at who else is back, and between charges of what is admitted meanwhile
ALL_BACK = LAST_PROBE * 1.5 + 1.0  # seconds after which those who are not back are given up
UNCHECKED = 1_000_000  # microseconds for which `on_store_failure: refuse` refuses

T = TypeVar("T")
log = logging.getLogger(__name__)


class SharedLimits:
    """A LimitStore in Redis, with this host's share while Redis is away.

    One task owns one connection, so a caller that is cancelled never touches it, and replies can't be swapped
    (redis-py#2665); any error or time-out drops it. Calls are made one after the other, each within
    `timeout` / 2: a request waits at most for the call under way and for its own, together `timeout`.
    A key that Redis refused is refused here until it can pass again, so an attacker costs no round trip.
    After a failure nothing is sent until a jittered probe succeeds; meanwhile each limit's `on_store_failure`
    decides: "local" judges this host's share (limit x its workers ÷ all that live), "allow" admits, "refuse"
    refuses for a second (the policy answers that with 503, for it is not the client's doing). What was
    admitted locally is charged before Redis judges again, and all who shared before return together.

    Args:
        url: see RedisUrl.
        timeout: seconds that a request may wait for Redis.
        prefix: of all keys.
        workers: of this host.
        counters: where this host's workers count meanwhile; if not shared, each judges its own part.
        clock: seconds, the same for all workers of this host.
        rng: draws the jitter of probes.

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
        counters: Counters | None = None,
        clock: Clock = time.monotonic,
        rng: random.Random | None = None,
    ) -> None:
        self.up = False
        self._link = Link(url, prefix, secrets.token_hex(8), self._unjudged)
        self._call_timeout = timeout / 2
        self._counters: Counters = counters if counters is not None else OwnCounters()
        self._local = LocalLimits(self._counters, workers=workers, clock=clock, fallback=True)
        self._judges = 1 if self._counters.lock is None else workers  # who judge together what is judged here
        self._workers = workers
        self._owed = Owed()
        self._full = FullKeys(clock)
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._queue: list[Waiting] = []
        self._wake = asyncio.Event()
        self._probe = asyncio.Event()
        self._returned = self._counters.returned
        self._beat_at = 0.0
        self._expected = 0  # workers, over all hosts, that shared before the store was lost
        self._task: asyncio.Task[None] | None = None

    # ---- for policies -------------------------------------------------------------------------

    def try_take(self, hits: Sequence[Hit]) -> Verdict | None:
        """As `take` when there is nothing to wait for; else None, and `take` is to be awaited."""
        return self._full.verdict(hits) if self.up else self._without_store(hits)

    def take(self, hits: Sequence[Hit]) -> asyncio.Future[Verdict]:
        """Charge every limit at once, or none; shadow limits never refuse.

        Waits at most `timeout`; never raises for the store's sake.
        """
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        if self.up:
            self._queue.append((hits, future))
            if len(self._queue) == 1:
                self._wake.set()
        else:
            future.set_result(self._without_store(hits))
        return future

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
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(pause * self._rng.uniform(0.5, 1.5)):
                        await self._probe.wait()
                self._returned = self._counters.returned
                self._probe.clear()
                pause = min(pause * 2, LAST_PROBE)
                await self._try_connect()
            since = self._clock()
            moved = False
            try:
                await self._serve()
            except asyncio.CancelledError:
                await self._leave()
                raise
            except TimeoutError:
                milliseconds = self._call_timeout * 1000
                log.warning("limits are judged locally: no answer from Redis within %g ms", milliseconds)
            except MovedError:
                log.info("the limits have moved to another node of the cluster")
                moved = True
            except (RedisError, OSError, OutOfStepError) as error:
                log.warning("limits are judged locally, Redis is away: %s: %s", type(error).__name__, error)
            except Exception:
                log.exception("limits are judged locally, a call to Redis failed inside the gateway")
            finally:
                self._expected = 0 if moved or self._link.alive == 1 else self._link.alive
                await self._drop()
            if moved:
                await self._try_connect()
            if self._clock() - since > STEADY:
                pause = FIRST_PROBE

    async def _serve(self) -> None:
        """Call for whoever waits, until a call fails."""
        loop = asyncio.get_running_loop()
        wake = self._wake
        while True:
            if not self._queue:
                timer = loop.call_later(HEARTBEAT, wake.set)
                wake.clear()
                await wake.wait()
                timer.cancel()
            waiting, self._queue = self._queue, []
            beat = self._clock() >= self._beat_at
            asked = round(self._clock() * 1e6)
            try:
                if waiting or beat:
                    for hit, charge in await self._bounded(self._link.call(waiting, beat=beat)):
                        self._full.learn(hit, charge, asked)
            except BaseException:
                self._queue[:0] = waiting  # judged locally by _drop
                raise
            if beat:
                self._living()

    async def _try_connect(self) -> None:
        try:
            await self._link.open()
            await self._settle()  # first, since others go by the sign of life
            await self._bounded(self._link.call([], beat=True))  # as quick as it must be for requests
            self._counters.returned = self._returned = time.monotonic_ns()
            await self._gather()
            await self._settle()
        except (RedisError, OSError, TimeoutError, OutOfStepError) as error:
            log.debug("Redis is still away: %s: %s", type(error).__name__, error)
            await self._link.close()
        else:
            log.info("limits are shared through Redis")
            self._living()
            self.up = True

    def _living(self) -> None:
        """Take in how many workers there are, over all hosts."""
        self._beat_at = self._clock() + HEARTBEAT
        self._local.share = (self._judges, max(self._link.alive, self._workers))

    async def _settle(self) -> None:
        """Charge what was admitted while Redis was away. Whoever is admitted meanwhile is charged too."""
        new_future = asyncio.get_running_loop().create_future
        while self._owed:
            hits = self._owed.settle(round(self._clock() * 1e6))
            for first in range(0, len(hits), MAX_HITS):
                some: list[Waiting] = [([hit], new_future()) for hit in hits[first : first + MAX_HITS]]
                await self._bounded(self._link.call(some, owed=True))

    async def _gather(self) -> None:
        """Judge locally on, and charge it, until all who shared before are back, or can't be expected to be.

        The first to return would have the whole limit, on top of the shares that the others still judge.
        Only who says something from now on is back: a Redis that was frozen still answers what it was told
        before, and takes those for alive who have just left.
        """
        until = self._clock() + ALL_BACK
        while self._link.present < self._expected and self._clock() < until:
            await asyncio.sleep(GATHER)
            await self._settle()
            await self._bounded(self._link.call([], beat=True))

    async def _leave(self) -> None:
        """Let the others have this worker's share at once."""
        with contextlib.suppress(RedisError, OSError, TimeoutError, OutOfStepError):
            await self._bounded(self._link.leave())

    async def _drop(self) -> None:
        self.up = False
        self._returned = self._counters.returned
        self._probe.clear()
        self._full.clear()
        queue, self._queue = self._queue, []
        self._unjudged(queue)
        await self._link.close()

    async def _bounded(self, call: Coroutine[Any, Any, T]) -> T:
        """The result of a call, within half of `timeout`.

        Raises:
            TimeoutError: it took longer.
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
                return await call
            finally:
                alarm[0].cancel()

    # ---- without the store --------------------------------------------------------------------

    def _unjudged(self, waiting: Sequence[Waiting]) -> None:
        """Judge here whom Redis did not."""
        for hits, future in waiting:
            if not future.done():
                future.set_result(self._without_store(hits))

    def _without_store(self, hits: Sequence[Hit]) -> Verdict:
        if self._counters.returned != self._returned:
            self._probe.set()  # another worker of this host has Redis back
        local = [hit for hit in hits if hit[0].on_store_failure == "local"]
        refused = any(terms.on_store_failure == "refuse" and not terms.shadow for terms, _ in hits)
        judged = self._local.judge(local, refused=True) if refused else self._local.try_take(local)
        both = list(zip(local, judged, strict=True))
        if not refused and all(charge is not None and (charge[0] or hit[0].shadow) for hit, charge in both):
            now = round(self._clock() * 1e6)
            for (terms, key), charge in both:
                if charge is not None and charge[0]:
                    self._owed.add(terms, key, now)
        if len(local) == len(hits):
            return judged
        answers = iter(judged)
        return [
            next(answers)
            if terms.on_store_failure == "local"
            else (True, terms.capacity, terms.capacity, 0, 0, True)
            if terms.on_store_failure == "allow"
            else (False, 0, terms.capacity, UNCHECKED, UNCHECKED, True)
            for terms, _ in hits
        ]
