"""Limits that all gateways share through Redis: one script call for the requests of a loop tick."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections.abc import Sequence

from redis.exceptions import MovedError, RedisError

from gateway.exchange import Clock, Hit, Verdict
from gateway.state.call_timeout import CallTimeout
from gateway.state.counters import Counters, OwnCounters
from gateway.state.limits_batch import MAX_HITS, OutOfStepError, Waiting
from gateway.state.limits_full import FullKeys
from gateway.state.limits_link import Link
from gateway.state.limits_local import LocalLimits
from gateway.state.limits_share import HostShare

__all__ = ["LocalLimits", "SharedLimits"]

HEARTBEAT = 1.0  # seconds between two signs of life, which also keep `up` true on an idle store
FIRST_PROBE, LAST_PROBE = 0.1, 2.0  # seconds between probes while the store is away, before jitter
STEADY = 5.0  # seconds up after which the next outage is probed as quickly as the first
GATHER = 0.02  # seconds between looks at who else is back
ALL_BACK = LAST_PROBE * 1.5 + 1.0  # seconds after which those who are not back are given up
ALL_SETTLED = 3.0  # seconds after which those who are back, but have debts yet, are given up: most take 1.6

log = logging.getLogger(__name__)


class SharedLimits:
    """A LimitStore in Redis, with this host's share while Redis is away.

    One task owns one connection, so a caller that is cancelled never touches it, and replies can't be
    swapped (redis-py#2665); any error or time-out drops it. Calls are made one after the other, each within
    `timeout` / 2: a request waits at most for the call under way and for its own, together `timeout`. A key
    that Redis refused is refused here until it can pass again, so an attacker costs no round trip. After a
    failure nothing is sent until a jittered probe succeeds; meanwhile HostShare decides, and of keys that
    Redis refused just before the share is used up as well. All who shared
    before return together, in two steps. First each finds Redis again, and judges by its share until all
    have. Then each charges what it admitted meanwhile, to the moments at which it did; from there on a
    request must pass both the share and Redis, until all have done so. Hence the share of one is never
    judged beside the whole limit of another: up to the moment when the last one has settled, each host
    admits its share at most; from then on Redis judges everything, knowing all of it.

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
        self._within = CallTimeout(timeout / 2)
        self._counters: Counters = counters if counters is not None else OwnCounters()
        self._share = HostShare(self._counters, workers, clock)
        self._full = FullKeys(clock)
        self._clock = clock
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._queue: list[Waiting] = []
        self._wake = asyncio.Event()
        self._probe = asyncio.Event()
        self._returned = self._counters.returned
        self._beat_at = 0.0
        self._expected = 0  # workers, over all hosts, that shared before the store was lost
        self._patience = 0.0  # until when they are waited for
        self._settled = False  # nothing is owed, and nothing admitted without Redis; `up` or about to be
        self._task: asyncio.Task[None] | None = None

    # ---- for policies -------------------------------------------------------------------------

    def try_take(self, hits: Sequence[Hit]) -> Verdict | None:
        """As `take` when there is nothing to wait for; else None, and `take` is to be awaited."""
        if self.up:
            return self._full.verdict(hits)
        if self._settled:
            return self._full.verdict(hits) or self._share.refusal(hits)
        return self._without_store(hits)

    def take(self, hits: Sequence[Hit]) -> asyncio.Future[Verdict]:
        """Charge every limit at once, or none, after `try_take` had no verdict; shadow limits never refuse.

        Waits at most `timeout`; never raises for the store's sake.
        """
        future: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        if self._settled:
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
            while not self._settled:
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
                milliseconds = self._within.seconds * 1000
                log.warning("limits are judged locally: no answer from Redis within %g ms", milliseconds)
            except MovedError:
                log.info("the limits have moved to another node of the cluster")
                moved = True
            except (RedisError, OSError, OutOfStepError) as error:
                log.warning("limits are judged locally, Redis is away: %s: %s", type(error).__name__, error)
            except Exception:
                log.exception("limits are judged locally, a call to Redis failed inside the gateway")
            finally:
                if self.up:
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
                timer = loop.call_later(max(0.0, self._beat_at - self._clock()), wake.set)
                wake.clear()
                await wake.wait()
                timer.cancel()
            waiting, self._queue = self._queue, []
            beat = self._clock() >= self._beat_at
            asked = round(self._clock() * 1e6)
            try:
                if waiting or beat:
                    for hit, charge in await self._within(self._link.call(waiting, beat=beat)):
                        self._full.learn(hit, charge, asked)
            except BaseException:
                self._queue[:0] = waiting  # judged locally by _drop
                raise
            if beat:
                self._living()
                if not self.up and (self._link.settled >= self._expected or self._clock() >= self._patience):
                    self._return()

    async def _try_connect(self) -> None:
        try:
            await self._link.open()
            # As quick as it must be for requests.
            await self._within(self._link.call([], beat=True, settled=False))
            self._counters.returned = self._returned = time.monotonic_ns()
            await self._gather()
            await self._settle()
        except (RedisError, OSError, TimeoutError, OutOfStepError) as error:
            log.debug("Redis is still away: %s: %s", type(error).__name__, error)
        except Exception:
            log.exception(
                "limits are judged locally, Redis could not be taken up for a reason of the gateway's"
            )
        else:
            self._shared()
            return
        self._alone()
        await self._link.close()

    def _shared(self) -> None:
        """Redis judges from now on; alone, once the others have settled too."""
        self._settled = True  # at once: nobody may be admitted in between
        self._share.full = {}
        self._beat_at = self._clock()
        self._patience = self._beat_at + ALL_SETTLED
        if not self._expected:
            self._return()

    def _return(self) -> None:
        """Let Redis alone decide."""
        log.info("limits are shared through Redis")
        self.up = True
        self._share.resize(self._link.alive)

    def _living(self) -> None:
        """Take in how many workers there are, over all hosts; while they return it is as it was."""
        self._beat_at = self._clock() + (HEARTBEAT if self.up else GATHER)
        if self.up:
            self._share.resize(self._link.alive)

    async def _gather(self) -> None:
        """Judge locally on, until all who shared before are back, or can't be expected to be.

        The first to return would have the whole limit, on top of the shares that the others still judge.
        Only who says something from now on is back: a Redis that was frozen still answers what it was told
        before, and takes those for alive who have just left.
        """
        until = self._clock() + ALL_BACK
        while self._link.present < self._expected and self._clock() < until:
            await asyncio.sleep(GATHER)
            await self._within(self._link.call([], beat=True, settled=False))
        self._expected = min(self._expected, self._link.present)

    async def _settle(self) -> None:
        """Charge what was admitted while Redis was away. Whoever is admitted meanwhile is charged too.

        While the last of it is charged nobody is: there would always be somebody on a busy worker.
        """
        owed = self._share.owed
        while owed:
            bill = owed.bill(round(self._clock() * 1e6), MAX_HITS)
            self._settled = owed.last
            if bill.debts:
                await self._within(self._link.owe(bill))
            owed.paid()

    async def _leave(self) -> None:
        """Let the others have this worker's share at once."""
        with contextlib.suppress(RedisError, OSError, TimeoutError, OutOfStepError):
            await self._within(self._link.leave())

    async def _drop(self) -> None:
        self._returned = self._counters.returned
        self._probe.clear()
        self._share.full = self._full.clear()
        self._alone()
        await self._link.close()

    def _alone(self) -> None:
        """Judge here, also whoever waits for Redis."""
        self.up = self._settled = False
        queue, self._queue = self._queue, []
        self._unjudged(queue)

    # ---- without the store --------------------------------------------------------------------

    def _unjudged(self, waiting: Sequence[Waiting]) -> None:
        """Judge here whom Redis did not."""
        for hits, future in waiting:
            if not future.done():
                future.set_result(self._without_store(hits))

    def _without_store(self, hits: Sequence[Hit]) -> Verdict:
        if self._counters.returned != self._returned:
            self._probe.set()  # another worker of this host has Redis back
        return self._share.judge(hits)
