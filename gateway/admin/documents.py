"""The answers of the admin API, as JSON has them; the OpenAPI document is made of these."""

from __future__ import annotations

from typing import Any, Literal

from typing_extensions import TypedDict  # pydantic reads no other before Python 3.12

from gateway.admin.shapes import (
    Breaker,
    CacheState,
    Changed,
    ConfigState,
    Feature,
    Host,
    Limit,
    Panel,
    Point,
    ShutOff,
    Step,
    Store,
    Traffic,
    Upstream,
    Workers,
)
from gateway.differences import Difference


class Status(TypedDict):
    """Everything on one page."""

    at: float  # seconds since 1970
    role: str  # of whom this was made for
    uptime_seconds: float
    draining: bool
    workers: Workers
    hosts: list[Host]
    pressure: float
    signals: dict[str, float]
    limit_store: Store
    requests: dict[str, int]  # since the start, by outcome
    traffic: Traffic
    step: Step
    features: list[Feature]
    breakers: list[Breaker]
    limits: list[Limit]
    upstreams: list[Upstream]
    shut_offs: int
    cache: CacheState
    panels: list[Panel]
    config: ConfigState
    trail: int  # grows with every entry of the trail


class History(TypedDict):
    """The last minutes, the newest last."""

    points: list[Point]


class Features(TypedDict):
    """All of them."""

    features: list[Feature]


class Breakers(TypedDict):
    """All of them."""

    breakers: list[Breaker]


class Limits(TypedDict):
    """All of them."""

    limits: list[Limit]


class ShutOffs(TypedDict):
    """All of them, the newest last."""

    shut_offs: list[ShutOff]


class Cleared(TypedDict):
    """How many shut-offs were ended."""

    cleared: int


class FeatureChanged(Feature, Changed):
    """A feature after its change."""


class StepChanged(Step, Changed):
    """The ladder after its change."""


class BreakerChanged(Breaker, Changed):
    """A breaker after its change."""


class LimitChanged(Limit, Changed):
    """A limit after its change."""


class ConfigPage(ConfigState):
    """The settings that hold, without secrets."""

    config: dict[str, Any]


class Checked(TypedDict):
    """What a configuration would change. Bad ones are answered 422 with `mistakes`."""

    good: Literal[True]
    version: int  # the one that holds, and is compared with
    changes: list[Difference]


class Reloaded(Changed):
    """What a reload has changed."""

    version: int
    changes: list[Difference]


class TrailEntry(TypedDict):
    """One change, or one attempt; see docs/admin.md."""

    at: int  # milliseconds since 1970
    kind: str
    name: str
    old: str
    value: str
    by: str
    role: str
    reason: str
    until: float | None
    result: Literal["done", "refused", "heard"]
    status: int
    detail: str
    applied: int | None
    workers: int | None
    ms: float | None
    left_out: int


class Trail(TypedDict):
    """The trail, the newest first."""

    changes: list[TrailEntry]
    refused: list[TrailEntry]


class SessionPage(TypedDict):
    """Who is asking."""

    name: str
    role: Literal["viewer", "operator"]
    csrf: str | None  # to be sent as X-CSRF-Token with every change; None for who sent a token
    ends: float | None  # seconds since 1970; the same


class Live(TypedDict):
    """This process answers."""

    status: Literal["live"]


class Ready(TypedDict):
    """Whether every worker serves."""

    status: Literal["ready", "starting", "draining"]
    workers: int
