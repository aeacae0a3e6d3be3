"""What the routes share: limits, gates, circuits, upstreams, switches. Kept over a reload where unchanged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pydantic import BaseModel

from gateway import config
from gateway.access_log import AccessLog
from gateway.accounts import Accounts
from gateway.breakers import Breakers
from gateway.exchange import Exchange, Policy
from gateway.identity import Identity
from gateway.metrics import QueueState, ServerState, WorkerMetrics
from gateway.policies import rate_limit
from gateway.policies.cache import Cache
from gateway.policies.cache_store import Store
from gateway.policies.circuit_state import Change
from gateway.policies.degrade import Fallback, build_fallback, nothing
from gateway.policies.shut_off import Shut
from gateway.policies.shut_offs import ShutOff, ShutOffs
from gateway.policies.slots import Slots
from gateway.policies.trace import Trace
from gateway.pressure import measured
from gateway.state.counters import Counters, OwnCounters
from gateway.state.known_keys import KnownKeys
from gateway.state.known_shared import SharedKeys
from gateway.state.limits import LocalLimits, SharedLimits
from gateway.state.switches import LiveSwitches, Switches
from gateway.units import parse_rate
from gateway.upstream.proxy import Upstream

if TYPE_CHECKING:
    from gateway.tracing import RequestTracer  # needs an extra

_log = logging.getLogger("gateway")
_UNLIMITED = config.Concurrency(min=100_000, max=100_000)  # without `concurrency`, connections are the bound


class Parts:
    """The parts of one worker.

    Args:
        workers: how many workers share this host; each answers for its share when Redis is away.
        metrics: where they count.
        on_trip: told when a circuit of this worker changes by itself.
        on_shut: told when an upstream shuts something off.
        counters: of limits, where the workers of this host share them.
        keys: which requests this host has passed on; left out, this worker is the only one.
    """

    def __init__(
        self,
        workers: int,
        metrics: WorkerMetrics,
        on_trip: Callable[[Change], None] = lambda _: None,
        on_shut: Callable[[ShutOff], None] = lambda _: None,
        counters: Counters | None = None,
        keys: KnownKeys | None = None,
    ) -> None:
        self.metrics = metrics
        self.switches = LiveSwitches()
        self.config: config.Config | None = None
        self._counters: Counters = counters if counters is not None else OwnCounters()
        self.limits: LocalLimits | SharedLimits = LocalLimits(self._counters, workers=workers)
        self.gates: dict[str, Slots] = {}
        self.breakers = Breakers(on_trip, workers=workers)
        self.upstreams: dict[str, Upstream] = {}
        self.cache = Store()
        self.shut_offs = ShutOffs(on_shut)
        self._keys = keys if keys is not None else KnownKeys()
        self.known = SharedKeys(self._keys, None)
        self.identity = Identity(config.Identity(), ())
        self.access_log: AccessLog | None = None
        self.accounts = Accounts(metrics)
        self._workers = workers
        self._dropped_before = 0  # lines lost by access logs since replaced
        self._tracer: RequestTracer | None = None
        self._lag = 0.0  # seconds; the loop's longest turn of late
        self._leaving: set[asyncio.Task[None]] = set()

    async def adopt(self, new: config.Config) -> None:
        """Make the parts be as a configuration says; those it leaves as they were go on with their state.

        Raises:
            OSError, ValueError: a file that it names is not as it should be; nothing has changed then.
        """
        old, log_before = self.config, self.access_log
        before = old.upstreams if old is not None else {}
        # What may fail goes first, so that what holds is never half of one and half of the other.
        identity = Identity(new.identity, new.listen.trusted_proxies)
        made = {
            name: Upstream(name, settings)
            for name, settings in new.upstreams.items()
            if name not in before or not _same(before[name], settings, but={"breaker", "concurrency"})
        }
        access_log = self._open_log(new, old)
        self.config = new
        self.accounts.settle()  # what has ended until now goes into the log of until now
        self.access_log = self.accounts.log = access_log
        if log_before is not None and log_before is not access_log:
            await asyncio.to_thread(log_before.close)
            self._dropped_before += log_before.dropped
        self.identity = identity
        if old is None or old.redis != new.redis:
            await self._swap_stores(new.redis)
        for name, settings in new.upstreams.items():
            if name in made:
                self._leave(self.upstreams.pop(name, None))
                self.cache.clear()  # what another server said may not hold here
                self.upstreams[name] = made[name]
                await made[name].start()
            if name not in before or before[name].concurrency != settings.concurrency:
                self.gates[name] = Slots(settings.concurrency or _UNLIMITED)
        if old is None or old.tracing != new.tracing:
            self._swap_tracer(new.tracing)
        self.cache.resize(new.cache.max_bytes)
        for name in set(self.upstreams) - set(new.upstreams):
            self._leave(self.upstreams.pop(name))
            self.gates.pop(name, None)
        self.breakers.adopt(new)
        self.apply(self.switches.now)

    def apply(self, switches: Switches) -> bool:
        """Let switches hold; say whether the routes must be built anew."""
        changed = self.switches.now.rates != switches.rates
        self.switches.apply(switches)
        self.breakers.force(switches.breakers)
        return changed

    def rate_limit(self, names: Iterable[str], cost: int = 1) -> Policy | None:
        """The limits of a route as one policy, an operator's changes included.

        Args:
            names: the limits.
            cost: tokens that a request takes of each.
        """
        assert self.config is not None  # noqa: S101 - adopt comes first, by construction
        changed = {
            name: _override(limit, self.switches.now.rates.get(name))
            for name, limit in self.config.limits.items()
        }
        return rate_limit.build(tuple(names), changed, self.limits, self.metrics.limit_tally, cost)

    def fallback(self, feature: str | None, cache: Cache | None) -> Fallback:
        """What is answered in the place of a route's feature, perhaps what its cache keeps."""
        settings = self.config.features[feature].fallback if self.config and feature else None
        if settings is None:
            return nothing
        return build_fallback(settings, cache.last if cache is not None else None)

    def response_cache(self, route: config.Route) -> Cache | None:
        """What keeps a route's answers, if it asks for that."""
        if route.cache is None:
            return None
        return Cache(route.cache, self.cache, self.metrics.cached, self._renewed)

    def shut_off(self, route: config.Route) -> Policy:
        """What repeats the answers by which the upstream has shut something off."""
        return Shut(self.shut_offs, self.known, frozenset(route.shut))

    def gauges(self) -> None:
        """Write what can be read off the parts into the metrics; called when a snapshot is due."""
        self.accounts.settle()
        self.metrics.gauge("tidegate_limit_store_up", float(self.limits.up))
        self.metrics.gauge("tidegate_cache_bytes", self.cache.bytes)
        self.metrics.gauge("tidegate_cache_entries", len(self.cache))
        for name, gate in self.gates.items():
            self.metrics.gauge("tidegate_in_flight", gate.in_flight, name)
            self.metrics.gauge("tidegate_queue_delay_seconds", gate.queue_delay, name)
            if gate.limit < _UNLIMITED.min:
                self.metrics.gauge("tidegate_concurrency_limit", gate.limit, name)
        self.metrics.queues = [
            QueueState(name, priority, lane.waiting, lane.refused)
            for name, gate in self.gates.items()
            for priority, lane in gate.lanes.items()
        ]
        self.metrics.servers = [
            ServerState(name, **server)
            for name, upstream in self.upstreams.items()
            for server in upstream.servers()
        ]
        self.breakers.gauges(self.metrics)

    def dropped_lines(self) -> int:
        """Access log lines lost so far."""
        return self._dropped_before + (self.access_log.dropped if self.access_log is not None else 0)

    def pressures(self, cpu: float) -> dict[str, float]:
        """What each signal says, of the most pressed upstream; asked at a steady pace.

        Args:
            cpu: cores that this worker has used since it was last asked.
        """
        assert self.config is not None  # noqa: S101 - adopt comes first, by construction
        in_flight = queue_delay = critical_wait = 0.0
        for gate in self.gates.values():
            gate.pressure()  # works these out, since it was last asked
            in_flight = max(in_flight, gate.fullness)
            queue_delay = max(queue_delay, gate.queue_delay / gate.settings.target)
            critical_wait = max(critical_wait, gate.critical_wait)
        return measured(
            self.config.degradation.signals,
            in_flight=in_flight,
            queue_delay=queue_delay,
            critical_wait=critical_wait,
            lag=self._lag,
            cpu=cpu,
            sick=self.breakers.sick,
        )

    def lagging(self, seconds: float, usual: float) -> None:
        """A turn of the loop takes so long at most, or on average: the gateway's own share of a latency."""
        self._lag = seconds
        self.metrics.gauge("tidegate_loop_lag_seconds", seconds)
        for gate in self.gates.values():
            if gate.limiter is not None:
                gate.limiter.own_delay, gate.limiter.stall = usual, seconds

    def trace(self) -> Policy | None:
        """What records some of the requests, if that is configured."""
        return Trace(self._tracer) if self._tracer is not None else None

    async def aclose(self) -> None:
        """Close everything; the log last, so that it has every line."""
        await self.cache.aclose()
        for upstream in self.upstreams.values():
            await upstream.aclose()
        await self.limits.aclose()
        await self.known.aclose()
        self._keys.close()
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close)
        self.accounts.settle()
        if self.access_log is not None:
            await asyncio.to_thread(self.access_log.close)

    def _renewed(self, exchange: Exchange) -> None:
        if exchange.upstream_seconds is not None:
            self.metrics.upstream(exchange.upstream, exchange.upstream_seconds)

    def _open_log(self, new: config.Config, old: config.Config | None) -> AccessLog | None:
        if old is not None and old.access_log == new.access_log:
            return self.access_log
        settings = new.access_log
        return AccessLog(settings.file, settings.buffer) if settings.file is not None else None

    async def _swap_stores(self, redis: config.Redis | None) -> None:
        before, known_before = self.limits, self.known
        if redis is None:
            self.limits = LocalLimits(self._counters, workers=self._workers)
            self.known = SharedKeys(self._keys, None)
        else:
            self.known = SharedKeys(self._keys, redis.url, timeout=redis.timeout, prefix=redis.prefix)
            self.limits = SharedLimits(
                redis.url,
                timeout=redis.timeout,
                prefix=redis.prefix,
                workers=self._workers,
                counters=self._counters,
            )
        self.known.start()
        await self.limits.start()
        await before.aclose()
        await known_before.aclose()

    def _swap_tracer(self, settings: config.Tracing | None) -> None:
        before, self._tracer = self._tracer, None
        if settings is not None:
            from gateway.tracing import RequestTracer  # an extra; half a second, for those who want it

            self._tracer = RequestTracer(settings)
        if before is not None:
            task = asyncio.create_task(asyncio.to_thread(before.close), name="tracer-close")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)

    def _leave(self, upstream: Upstream | None) -> None:
        """Let an upstream's last requests end, then close it."""
        if upstream is not None:
            task = asyncio.create_task(upstream.aclose(), name="upstream-close")
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)


def _same(a: BaseModel, b: BaseModel, *, but: set[str]) -> bool:
    return a.model_dump(exclude=but) == b.model_dump(exclude=but)


def _override(limit: config.Limit, word: str | None) -> config.Limit:
    """A limit as an operator changed it: to a rate, "off" or "shadow"."""
    if word is None:
        return limit
    if word in {"off", "shadow"}:
        return limit.model_copy(update={"mode": word})
    return limit.model_copy(update={"rates": {"default": parse_rate(word)}})  # for every tier
