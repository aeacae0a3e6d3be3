"""The sections of the shop's settings, each for one part of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _duration(value: object) -> float:
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e10:
        return float(value)
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("not a duration; write for example 500ms, 5s, 10m or 2h")
    return float(match[1]) * _SECONDS[match[2]]


Duration = Annotated[  # seconds
    float,
    BeforeValidator(_duration),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0},
                {"type": "string", "pattern": rf"^\s*{_DURATION.pattern}\s*$"},
            ],
            "x-kind": "duration",
        }
    ),
]


class Section(BaseModel):
    """A part of the settings: unknown keys are mistakes, nothing changes later."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True
    )


class DatabaseSettings(Section):
    """The connection pools."""

    min_size: int = Field(2, ge=1)
    """Connections kept open, per role."""
    max_size: int = Field(16, ge=1)
    """The pool grows up to this under load."""
    idle_for: Duration = 60.0
    """Then a connection above `min_size` is closed again."""
    acquire_timeout: Duration = 3.0
    """Waiting for a free connection; then 503."""
    statement_timeout: Duration = 5.0
    """For one statement."""
    lock_timeout: Duration = 2.0
    """For one lock."""
    startup_timeout: Duration = 30.0
    """Waiting for the servers when a process starts."""
    max_replica_lag: Duration = 30.0
    """A replica further behind is not asked; the primary answers."""
    partition_rows: int = Field(5_000_000, ge=10)
    """No partition of orders or their events has more."""
    partitions_ahead: int = Field(2, ge=1)
    """Partitions made before they are needed."""


class StockSettings(Section):
    """Reservations."""

    hold_for: Duration = 600.0
    """A buyer's time to pay."""
    open_holds_per_user: int = Field(5, ge=1)
    """Unpaid orders at once."""
    open_holds_per_address: int = Field(100, ge=1)
    """The same from one client address (IPv6: its /64)."""
    cluster: bool = False
    """Whether the durable Redis is a Redis Cluster; its URL then names any node of it."""
    shards: int = Field(1, ge=1, le=1024)
    """Slots over which the SKUs are spread; more than 1 for a Redis Cluster."""
    max_quantity: int = Field(100, ge=1)
    """Of one order, whatever the product's cap."""
    remember: Duration = 86400.0
    """How long a closed hold still answers its Idempotency-Key."""
    timeout: Duration = 2.0
    """For one call to Redis."""


class WorkerSettings(Section):
    """The background work."""

    batch: int = Field(200, ge=1)
    """Stream entries in one transaction."""
    block: Duration = 1.0
    """Waiting for new entries."""
    gather: Duration = 0.05
    """From one batch of a stream to the next, at least, unless it is full."""
    attempts: int = Field(5, ge=1)
    """Tries before an entry is a dead letter."""
    retry_after: Duration = 0.5
    """Before a parked or failed entry is tried again."""
    park_for: Duration = 900.0
    """How long a callback may wait for its order's row."""
    abandoned_after: Duration = 5.0
    """Then another worker takes a dead one's entries."""
    interval: Duration = 0.5
    """Pause of the idle sweeper, outbox, checkout and refund loops."""
    sweep_batch: int = Field(200, ge=1)
    """Expired orders in one transaction."""
    poll_after: Duration = 30.0
    """First question to the provider about an unpaid order."""
    poll_until: Duration = 3600.0
    """After expiry; then the provider is asked once more, until it answers and nothing is under way."""


class SessionSettings(Section):
    """Sessions and carts."""

    lifetime: Duration = 7 * 86400.0
    """Of a session's token."""
    cart_lifetime: Duration = 7 * 86400.0
    """Of a cart nobody touches."""
    cart_lines: int = Field(50, ge=1)
    """Most products in a cart."""
    timeout: Duration = 0.5
    """For one call to Redis; whoever asks for a session or a cart can do without, or try again."""


class CatalogSettings(Section):
    """The catalogue's caches: in each process, and one in Redis for all."""

    fresh_for: Duration = 2.0
    """How long each process serves the products it has read."""
    shared_for: Duration = 60.0
    """How long Redis keeps the products unless they change; 0: not at all."""
    shared_timeout: Duration = 0.2
    """For one call to that Redis; then SQL is asked instead."""
    stock_fresh_for: Duration = 0.5
    """How long each process shows the stock hints it has read."""
    stock_timeout: Duration = 0.2
    """For reading them; a page without a hint is better than no page."""
    low_stock: int = Field(20, ge=0)
    """The hint says "low" from here down."""
    directory: Path = Path("config/catalog")
    """Where `seed` reads."""


class OutboxSettings(Section):
    """Mail and text messages."""

    attempts: int = Field(20, ge=1)
    """Tries before a message is a dead letter."""
    backoff: Duration = 5.0
    """After the first failure; doubled after every other."""
    longest: Duration = 900.0
    """The backoff grows up to this: twenty tries take some three hours."""
    timeout: Duration = 30.0
    """For sending one."""
    at_once: int = Field(16, ge=1)
    """Of each channel, and worker."""
    sender: str = Field("shop@tidegate.example", pattern=r"^[^@\s]+@[^@\s]+$")
    """From whom mails come."""
