"""The shop's settings: defaults, then config/shop.yaml, then the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, ValidationError

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


Duration = Annotated[float, BeforeValidator(_duration)]  # seconds


class Section(BaseModel):
    """A part of the settings: unknown keys are mistakes, nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class DatabaseSettings(Section):
    """The connection pools."""

    min_size: int = Field(2, ge=1)  # connections kept open, per role
    max_size: int = Field(16, ge=1)  # the pool grows up to this under load
    acquire_timeout: Duration = 3.0  # waiting for a free connection
    statement_timeout: Duration = 5.0
    lock_timeout: Duration = 2.0
    startup_timeout: Duration = 30.0  # waiting for the servers when a process starts
    partition_rows: int = Field(5_000_000, ge=10)  # no partition of orders or their events has more
    partitions_ahead: int = Field(2, ge=1)  # made before they are needed


class StockSettings(Section):
    """Reservations."""

    hold_for: Duration = 600.0  # a buyer's time to pay
    open_holds_per_user: int = Field(5, ge=1)  # unpaid orders at once
    open_holds_per_address: int = Field(100, ge=1)  # the same from one client address (IPv6: its /64)
    shards: int = Field(1, ge=1, le=1024)  # slots over which the SKUs are spread; more than 1 for a cluster
    max_quantity: int = Field(100, ge=1)  # of one order, whatever the product's cap
    remember: Duration = 86400.0  # how long a closed hold still answers its idempotency key
    timeout: Duration = 2.0  # one call to Redis


class WorkerSettings(Section):
    """The background work."""

    batch: int = Field(200, ge=1)  # stream entries in one transaction
    block: Duration = 1.0  # waiting for new entries
    attempts: int = Field(5, ge=1)  # tries before an entry is a dead letter
    retry_after: Duration = 0.5  # before a parked or failed entry is tried again
    park_for: Duration = 900.0  # how long a callback may wait for its order's row
    abandoned_after: Duration = 5.0  # then another worker takes a dead one's entries
    interval: Duration = 0.5  # pause of the idle sweeper, outbox, checkout and refund loops
    sweep_batch: int = Field(200, ge=1)
    poll_after: Duration = 30.0  # first question to the provider about an unpaid order
    poll_until: Duration = 3600.0  # after expiry, then the provider is asked no more


class SessionSettings(Section):
    """Sessions and carts."""

    lifetime: Duration = 7 * 86400.0
    cart_lifetime: Duration = 7 * 86400.0
    cart_lines: int = Field(50, ge=1)


class CatalogSettings(Section):
    """The catalogue's cache in each process."""

    fresh_for: Duration = 2.0
    stock_fresh_for: Duration = 0.5
    low_stock: int = Field(20, ge=0)  # the hint says "low" from here down
    directory: Path = Path("config/catalog")  # where `seed` reads


class OutboxSettings(Section):
    """Mail and text messages."""

    attempts: int = Field(20, ge=1)  # then a message is a dead letter
    backoff: Duration = 5.0  # after the first failure, doubled after every other,
    longest: Duration = 900.0  # up to this: twenty tries take some three hours
    timeout: Duration = 30.0  # for sending one
    at_once: int = Field(16, ge=1)  # of each channel, and worker
    sender: str = Field("shop@tidegate.example", pattern=r"^[^@\s]+@[^@\s]+$")


class Settings(Section):
    """Everything a process of the shop needs to know."""

    host: str = "127.0.0.1"
    port: int = Field(8100, ge=0, le=65535)
    metrics_port: int = Field(8110, ge=0, le=65535)
    worker_metrics_port: int = Field(8111, ge=0, le=65535)
    sandbox_port: int = Field(8200, ge=0, le=65535)

    database_url: SecretStr | None = None
    replica_url: SecretStr | None = None
    stock_redis_url: SecretStr | None = None
    redis_url: SecretStr | None = None
    session_redis_url: SecretStr | None = None

    card_key: SecretStr | None = None  # kid:base64url(32 bytes), comma list, the first encrypts
    session_key_file: Path | None = None  # Ed25519 private key, PEM
    sandbox_secret: SecretStr | None = None  # whsec_...
    smtp_url: SecretStr | None = None  # smtp[+starttls|s]://user:password@host:port; else mails become files
    sms_url: SecretStr | None = None  # a webhook that sends text messages; else they become files
    sms_secret: SecretStr | None = None  # whsec_..., signs what goes there

    sandbox_url: str = "http://127.0.0.1:8200"
    public_url: str = "http://127.0.0.1:8000"  # the shop as shoppers see it
    shop_url: str = "http://127.0.0.1:8000"  # the shop as the provider reaches it
    data_dir: Path = Path(".tidegate")

    max_body: int = Field(65536, ge=1024)  # bytes
    drain_for: Duration = 8.0  # for requests in flight at SIGTERM

    database: DatabaseSettings = DatabaseSettings()
    stock: StockSettings = StockSettings()
    workers: WorkerSettings = WorkerSettings()
    sessions: SessionSettings = SessionSettings()
    catalog: CatalogSettings = CatalogSettings()
    outbox: OutboxSettings = OutboxSettings()

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
    "smtp_url": "TIDEGATE_SMTP_URL",
    "sms_url": "TIDEGATE_SMS_URL",
    "sms_secret": "TIDEGATE_SMS_SECRET",
    "sandbox_url": "TIDEGATE_SANDBOX_URL",
    "public_url": "TIDEGATE_PUBLIC_URL",
    "shop_url": "TIDEGATE_SHOP_URL",
    "data_dir": "TIDEGATE_DATA_DIR",
}


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
