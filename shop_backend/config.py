"""The shop's settings: defaults, then config/shop.yaml, then the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, SecretStr, ValidationError

from shop_backend.errors import SetupError
from shop_backend.sections import (
    CatalogSettings,
    DatabaseSettings,
    Duration,
    OutboxSettings,
    Section,
    SessionSettings,
    StockSettings,
    WorkerSettings,
)


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
