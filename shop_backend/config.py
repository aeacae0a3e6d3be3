"""The shop's settings: defaults, then config/shop.yaml, then the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError, WithJsonSchema

from shop_backend.errors import SetupError

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
    """After expiry, then the provider is asked no more."""


class SessionSettings(Section):
    """Sessions and carts."""

    lifetime: Duration = 7 * 86400.0
    """Of a session's token."""
    cart_lifetime: Duration = 7 * 86400.0
    """Of a cart nobody touches."""
    cart_lines: int = Field(50, ge=1)
    """Most products in a cart."""


class CatalogSettings(Section):
    """The catalogue's caches: in each process, and one in Redis for all."""

    fresh_for: Duration = 2.0
    """How long each process serves the products it has read."""
    shared_for: Duration = 60.0
    """How long Redis keeps the products unless they change; 0: not at all."""
    stock_fresh_for: Duration = 0.5
    """The same for stock hints."""
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


class Settings(Section):
    """Everything a process of the shop needs to know."""

    host: str = "127.0.0.1"
    """Address to listen on."""
    port: int = Field(8100, ge=0, le=65535)
    """Of `tidegate shop`."""
    metrics_port: int = Field(8110, ge=0, le=65535)
    """Of the shop's /metrics."""
    worker_metrics_port: int = Field(8111, ge=0, le=65535)
    """Of the worker's /metrics."""
    sandbox_port: int = Field(8200, ge=0, le=65535)
    """Of `tidegate sandbox`."""

    database_url: SecretStr | None = None
    """PostgreSQL."""
    replica_url: SecretStr | None = None
    """A replica for reading what may be a moment old; left out: the primary."""
    stock_redis_url: SecretStr | None = None
    """The durable Redis: stock and streams."""
    redis_url: SecretStr | None = None
    """The volatile Redis: caches; sessions and carts too when session_redis_url is not set."""
    session_redis_url: SecretStr | None = None
    """A Redis of its own for sessions and carts."""

    card_key: SecretStr | None = None
    """kid:base64url(32 bytes), several with commas: the first encrypts, all decrypt."""
    session_key_file: Path | None = None
    """Ed25519 private key, PEM, that signs sessions."""
    sandbox_secret: SecretStr | None = None
    """whsec_..., shared with the sandbox provider."""
    provider: Literal["sandbox", "stripe"] = "sandbox"
    """Who takes new orders' money; older orders keep theirs."""
    stripe_api_key: SecretStr | None = None
    """Stripe's secret or restricted key (sk_..., rk_...); with it Stripe's callbacks are taken."""
    stripe_webhook_secret: SecretStr | None = None
    """whsec_..., of the endpoint /callbacks/stripe."""
    stripe_url: str = "https://api.stripe.com"
    """Stripe's API."""
    smtp_url: SecretStr | None = None
    """smtp[+starttls|s]://user:password@host:port; left out: mails become files."""
    sms_url: SecretStr | None = None
    """A webhook that sends text messages; left out: they become files."""
    sms_secret: SecretStr | None = None
    """whsec_..., signs what goes there."""

    sandbox_url: str = "http://127.0.0.1:8200"
    """The provider as the shop reaches it."""
    public_url: str = "http://127.0.0.1:8000"
    """The shop as shoppers see it."""
    shop_url: str = "http://127.0.0.1:8000"
    """The shop as the provider reaches it."""
    data_dir: Path = Path(".tidegate")
    """Where messages go that become files."""

    tracing_endpoint: str | None = Field(None, pattern=r"^https?://[!-~]+$")
    """Base URL of an OpenTelemetry collector, OTLP over HTTP; left out: no spans are recorded."""

    max_body: int = Field(65536, ge=1024)
    """Longest request body, bytes."""
    drain_for: Duration = 8.0
    """For requests in flight at SIGTERM."""

    database: DatabaseSettings = DatabaseSettings()
    """Connection pools."""
    stock: StockSettings = StockSettings()
    """Cards held while their buyers pay."""
    workers: WorkerSettings = WorkerSettings()
    """Background work."""
    sessions: SessionSettings = SessionSettings()
    """Who is who, and what lies in the cart."""
    catalog: CatalogSettings = CatalogSettings()
    """The catalogue's cache."""
    outbox: OutboxSettings = OutboxSettings()
    """Messages, and how often they are tried."""

    def require(self, name: str) -> str:
        """A setting that has no default.

        Raises:
            SetupError: it is not set; the message names its variable.
        """
        value = getattr(self, name)
        if value is None:
            raise SetupError(f"{name} is not set: export {_VARIABLES[name]} or run `tidegate up`")
        return value.get_secret_value() if isinstance(value, SecretStr) else str(value)

    def require_path(self, name: str) -> Path:
        """The same, for a file.

        Raises:
            SetupError: it is not set; the message names its variable.
        """
        return Path(self.require(name))


_VARIABLES = {
    "host": "TIDEGATE_HOST",
    "database_url": "TIDEGATE_DATABASE_URL",
    "replica_url": "TIDEGATE_REPLICA_URL",
    "stock_redis_url": "TIDEGATE_STOCK_REDIS_URL",
    "redis_url": "TIDEGATE_REDIS_URL",
    "session_redis_url": "TIDEGATE_SESSION_REDIS_URL",
    "card_key": "TIDEGATE_CARD_KEY",
    "session_key_file": "TIDEGATE_SESSION_KEY_FILE",
    "sandbox_secret": "TIDEGATE_SANDBOX_SECRET",
    "provider": "TIDEGATE_PROVIDER",
    "stripe_api_key": "TIDEGATE_STRIPE_API_KEY",
    "stripe_webhook_secret": "TIDEGATE_STRIPE_WEBHOOK_SECRET",
    "stripe_url": "TIDEGATE_STRIPE_URL",
    "smtp_url": "TIDEGATE_SMTP_URL",
    "sms_url": "TIDEGATE_SMS_URL",
    "sms_secret": "TIDEGATE_SMS_SECRET",
    "sandbox_url": "TIDEGATE_SANDBOX_URL",
    "public_url": "TIDEGATE_PUBLIC_URL",
    "shop_url": "TIDEGATE_SHOP_URL",
    "data_dir": "TIDEGATE_DATA_DIR",
    "tracing_endpoint": "OTEL_EXPORTER_OTLP_ENDPOINT",
}


def json_schema() -> dict[str, Any]:
    """JSON Schema of the file, for editors; `x-variable` names what sets a key from the environment."""
    schema = Settings.model_json_schema()
    for name, variable in _VARIABLES.items():
        schema["properties"][name]["x-variable"] = variable
    for block in (schema, *schema["$defs"].values()):
        for value in block["properties"].values():
            value.pop("title", None)
    dialect = "https://json-schema.org/draft/2020-12/schema"
    return {"$schema": dialect, "$id": "shop.schema.json", **schema, "title": "Tidegate's shop"}


def load(path: Path | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """Read the settings: defaults, the file when there is one, then the environment.

    Raises:
        SetupError: the file can't be read or a value is wrong; every mistake is named, no value shown.
    """
    environment = os.environ if environment is None else environment
    named = environment.get("TIDEGATE_SHOP_CONFIG")
    path = path or (Path(named) if named else None)
    values: dict[str, Any] = {}
    if path is not None or Path("config/shop.yaml").exists():
        path = path or Path("config/shop.yaml")
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            raise SetupError(f"{path}: {error}") from error
        if not isinstance(values, dict):
            raise SetupError(f"{path}: must be a mapping of settings")
    for name, variable in _VARIABLES.items():
        if environment.get(variable):
            values[name] = environment[variable]
    try:
        return Settings.model_validate(values)
    except ValidationError as error:
        mistakes = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise SetupError(f"{path or 'environment'}: {mistakes}") from error
