"""The shapes of what operators see: one feature, one limit, one upstream; documents are made of these."""

from __future__ import annotations

from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12

from gateway.differences import Difference

Outcomes = dict[str, float]  # by how a request ended: proxied, cached, limited, shed, …


class Pinned(TypedDict):
    """An operator's word on a switch."""

    by: str
    reason: str
    since: float  # seconds since 1970
    until: float | None  # the same; None: until changed
    seconds_left: int | None


class WorkerEffect(TypedDict):
    """When one worker confirmed a change."""

    pid: int
    ms: float | None  # None: not yet


class HostEffect(TypedDict):
    """When another host confirmed a change in all its workers."""

    host: str
    ms: float | None  # None: not yet, or it is away


class Effect(TypedDict):
    """In how many workers a change holds, and after how long."""

    applied: int
    workers: int
    ms: float  # milliseconds until the last of them confirmed, or until patience ended
    each: list[WorkerEffect]
    hosts: list[HostEffect]


class Changed(TypedDict):
    """Added to the answer of every change."""

    applied: int
    workers: int
    ms: float
    effect: Effect


# ---- one thing each ----------------------------------------------------------------------------


class Feature(TypedDict):
    """What a feature is told to be, and whether it is on."""

    name: str
    state: str  # on, off or auto
    on: bool
    fallback: bool  # whether something is answered in its place
    routes: list[str]
    pin: Pinned | None


class Rung(TypedDict):
    """One step of the ladder."""

    step: int
    name: str
    off: list[str]
    only: str | None


class Step(TypedDict):
    """Where the ladder stands, and what each rung gives up."""

    step: int
    state: str  # a number or auto
    name: str
    climbed: int  # where it would stand by itself
    steps: list[Rung]
    pin: Pinned | None


class Breaker(TypedDict):
    """What a breaker is told to be, and the sickest state of any worker's."""

    upstream: str
    state: str  # open, closed or auto
    now: str  # closed, half-open or open
    routes: dict[str, str]  # where each route has its own
    configured: bool
    pin: Pinned | None


class BusyKey(TypedDict):
    """Somebody who is at a limit or near it."""

    key: str  # u:USER, a:ADDRESS or another; for viewers a pseudonym that begins with #
    count: int  # requests near or over the limit, halved each minute
    error: int  # so many of them may be others'


class Limit(TypedDict):
    """The rate that holds, and the configured one."""

    name: str
    rate: str
    configured: str
    state: str  # changed or auto
    per: list[str]
    mode: str
    checks: dict[str, int]  # since the start, by decision
    per_second: Outcomes  # of late, by decision
    busiest: list[BusyKey]
    pin: Pinned | None


class ShutOff(TypedDict):
    """What an upstream has shut off."""

    id: str
    route: str
    parameter: str
    value: str
    status: int
    seconds_left: float


class Server(TypedDict):
    """One server of an upstream, as all workers see it."""

    url: str
    well: int  # workers that use it
    ejected: int  # workers that leave it alone because it failed them
    seconds_left: float  # of the longest ejection
    failures: int  # in a row, of the worker that saw most
    in_flight: int  # exchanges that hold a connection or wait for one
    idle: int  # connections


class Latency(TypedDict):
    """From a histogram, over the window; None where nothing was answered."""

    p50: float | None  # milliseconds, as all of these
    p90: float | None
    p99: float | None
    mean: float | None


class Upstream(TypedDict):
    """How full an upstream is."""

    name: str
    servers: list[Server]
    in_flight: int
    concurrency_limit: float | None  # requests it may hold at once; None: as many as connections
    queue: dict[str, int]  # requests that wait for a slot, by priority
    queue_delay_ms: float
    shed: dict[str, int]  # requests that went without, by priority, since the workers started
    latency_ms: Latency


class RouteTraffic(TypedDict):
    """What became of one route's requests."""

    route: str
    per_second: Outcomes
    total: Outcomes
    latency_ms: Latency


class Traffic(TypedDict):
    """What became of requests of late."""

    window_seconds: float
    per_second: Outcomes
    latency_ms: Latency
    routes: list[RouteTraffic]  # the busiest first
    routes_left_out: int


class Point(TypedDict):
    """What curves are drawn from, at one moment."""

    at: float  # seconds since 1970
    requests: dict[str, int]  # since the start, by outcome
    denied: dict[str, int]  # since the start, by limit
    latency_ms: Latency  # of all routes
    pressure: float
    step: int
    upstreams: dict[str, UpstreamPoint]


class UpstreamPoint(TypedDict):
    """The same of one upstream."""

    in_flight: int
    latency_ms: Latency


class Worker(TypedDict):
    """One process that serves."""

    pid: int
    ready: bool
    seconds: float  # since it was started
    switches: int  # number of the switches that it serves by
    config: int  # number of the configuration that it serves by
    pressure: dict[str, float]


class Workers(TypedDict):
    """Those of this host."""

    ready: int
    wanted: int
    restarts: int
    each: list[Worker]


class Host(TypedDict):
    """A gateway that shares our Redis."""

    name: str
    here: bool
    workers: int
    step: int
    off: list[str]  # features
    seen: float  # seconds ago


class Store(TypedDict):
    """Where limits are counted."""

    shared: bool
    up: bool


class CacheState(TypedDict):
    """The response caches of all workers."""

    bytes: int
    entries: int
    per_second: Outcomes  # by result: hit, miss, …


class Sample(TypedDict):
    """One number of a panel."""

    metric: str
    labels: dict[str, str]
    value: float


class Panel(TypedDict):
    """Numbers of something behind the gate."""

    title: str
    samples: list[Sample]
    seconds_old: float | None  # None: never fetched
    error: str | None  # why it could not be fetched the last time
    left_out: int  # samples too many to be shown


class ConfigState(TypedDict):
    """Which configuration holds."""

    file: str
    version: int
    since: float  # seconds since 1970
    mistakes: list[str]  # of the file as it stands; empty when it is what holds
    restart: list[Difference]  # what the gateway started with, and what holds once it is started again
