"""What `tidegate up` will run: which processes, at which ports, and what each of them is told."""

from __future__ import annotations

import functools
import http.client
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ops import ports
from ops.console import say
from ops.embedded import EmbeddedPostgres, EmbeddedRedis
from ops.errors import OpsError
from ops.logs import one_line
from ops.secrets import Secrets, load_or_make
from ops.service import Service
from ops.stores import choose_stores
from ops.supervisor import Supervisor

ROOT = Path(__file__).resolve().parent.parent
STANDARD_PORTS = {"shop": 8100, "sandbox": 8200, "shop-metrics": 8110, "worker-metrics": 8111}
DEFAULT_PORT, DEFAULT_ADMIN_PORT = 8000, 9900


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator asked for.

    Attributes:
        data: folder of the stack.
        port: the gateway's door for shoppers.
        admin_port: the gateway's door for operators.
        workers: gateway processes; None leaves it to the config.
        fresh: throw the data away first.
        config: the gateway's config file; None takes config/gateway.yaml.
        own_sessions: run a Redis of its own for sessions and carts.
    """

    data: Path
    port: int = DEFAULT_PORT
    admin_port: int = DEFAULT_ADMIN_PORT
    workers: int | None = None
    fresh: bool = False
    config: Path | None = None
    own_sessions: bool = False


@dataclass(frozen=True, slots=True)
class Plan:
    """Which processes, where, and with which environment."""

    options: Options
    data: Path
    config: Path
    secrets: Secrets
    ports: dict[str, int]
    urls: dict[str, str]
    stores: dict[str, str]
    servers: tuple[EmbeddedRedis | EmbeddedPostgres, ...]

    @classmethod
    def make(cls, options: Options, data: Path, config: Path, remembered: Mapping[str, Any]) -> Plan:
        """Choose ports and servers; makes missing secrets, starts nothing.

        Raises:
            OpsError: a server's program is missing, or a file can't be written.
        """
        taken = {options.port, options.admin_port}
        chosen = {}
        for name, standard in STANDARD_PORTS.items():
            # The same folder keeps its ports, so that payment links in it stay good; a second
            # stack on the machine stays away from the standard ones.
            fallback = standard if options.port == DEFAULT_PORT else None
            wanted = remembered.get(name, fallback)
            wanted = wanted if isinstance(wanted, int) else None
            chosen[name] = ports.choose(wanted, taken)
            if wanted is not None and wanted != chosen[name]:
                what = name.replace("-", " ")
                say(f"port {wanted} of the {what} is in use{ports.holder(wanted)}; it takes {chosen[name]}")
        try:
            keys = load_or_make(data, os.environ)
        except ValueError as error:
            raise OpsError(f"a key below {data / 'keys'} is damaged: {one_line(error)}") from error
        stores, servers = choose_stores(data, os.environ, own_sessions=options.own_sessions)
        urls = {
            "gateway": f"http://{ports.LOOPBACK}:{options.port}",
            "admin": f"http://{ports.LOOPBACK}:{options.admin_port}",
            "shop": f"http://{ports.LOOPBACK}:{chosen['shop']}",
            "sandbox": f"http://{ports.LOOPBACK}:{chosen['sandbox']}",
            "shop_metrics": f"http://{ports.LOOPBACK}:{chosen['shop-metrics']}",
            "worker_metrics": f"http://{ports.LOOPBACK}:{chosen['worker-metrics']}",
        }
        return cls(options, data, config, keys, chosen, urls, stores, servers)

    def start(self, supervisor: Supervisor) -> None:
        """Start everything in the order of its dependencies.

        Raises:
            OpsError: something did not start.
        """
        logs = self.data / "logs"
        # A mistake in the config is told before anything is started.
        supervisor.once("check", _python("gateway", "check", str(self.config)), self.gateway_environment())
        for server in self.servers:
            if isinstance(server, EmbeddedPostgres):
                server.create(logs / "initdb.log")
        if self.servers:
            supervisor.start(*(server.service() for server in self.servers))
        for server in self.servers:
            if isinstance(server, EmbeddedPostgres):
                server.create_database()
        shop_env = self.shop_environment()
        for step in ("migrate", "seed"):
            supervisor.once(step, _python("shop_backend", step), shop_env)
        supervisor.start(self._shop(shop_env), self._sandbox(shop_env))
        supervisor.start(self._worker(shop_env))
        supervisor.start(self._gateway())

    def shop_environment(self) -> dict[str, str]:
        """What the shop's processes are told; shoppers and the provider come in by the gateway."""
        inherited = os.environ.get
        return {
            **self.stores,
            "TIDEGATE_CARD_KEY": self.secrets.card_key,
            "TIDEGATE_SESSION_KEY_FILE": str(self.secrets.session_key),
            "TIDEGATE_SESSION_PUBLIC_KEY_FILE": str(self.secrets.session_public_key),
            "TIDEGATE_SANDBOX_SECRET": self.secrets.sandbox_secret,
            "TIDEGATE_SANDBOX_URL": inherited("TIDEGATE_SANDBOX_URL") or self.urls["sandbox"],
            "TIDEGATE_PUBLIC_URL": inherited("TIDEGATE_PUBLIC_URL") or self.urls["gateway"],
            "TIDEGATE_SHOP_URL": inherited("TIDEGATE_SHOP_URL") or self.urls["gateway"],
            "TIDEGATE_DATA_DIR": str(self.data),
            "PYTHONUNBUFFERED": "1",
        }

    def gateway_environment(self) -> dict[str, str]:
        """What the gateway is told: no key of the shop's but the one that verifies sessions."""
        return {
            "TIDEGATE_ADMIN_TOKEN": self.secrets.admin_token,
            "TIDEGATE_REDIS_URL": self.stores["TIDEGATE_REDIS_URL"],
            "TIDEGATE_SESSION_PUBLIC_KEY_FILE": str(self.secrets.session_public_key),
            "TIDEGATE_SHOP_SERVER": self.urls["shop"],
            "TIDEGATE_SHOP_METRICS": f"{self.urls['shop_metrics']}/metrics",
            "TIDEGATE_WORKER_METRICS": f"{self.urls['worker_metrics']}/metrics",
            "TIDEGATE_DATA_DIR": str(self.data),
            "TIDEGATE_ACCESS_LOG": os.environ.get("TIDEGATE_ACCESS_LOG", str(self.data / "logs/access.log")),
            "PYTHONUNBUFFERED": "1",
        }

    def _shop(self, env: dict[str, str]) -> Service:
        port, metrics = self.ports["shop"], self.ports["shop-metrics"]
        argv = _python("shop_backend", "serve", "--port", str(port), "--metrics-port", str(metrics))
        return _http_service("shop", argv, env, f"{self.urls['shop']}/readyz")

    def _sandbox(self, env: dict[str, str]) -> Service:
        argv = _python("shop_backend", "sandbox", "--port", str(self.ports["sandbox"]))
        # A company of its own: it shares one secret with the shop, and no store.
        shared = ("SANDBOX_SECRET", "SANDBOX_URL", "SHOP_URL", "PUBLIC_URL", "DATA_DIR")
        env = {name: value for name, value in env.items() if name.removeprefix("TIDEGATE_") in shared}
        return _http_service("sandbox", argv, env, f"{self.urls['sandbox']}/readyz")

    def _worker(self, env: dict[str, str]) -> Service:
        argv = _python("shop_backend", "worker", "--metrics-port", str(self.ports["worker-metrics"]))
        return _http_service("worker", argv, env, f"{self.urls['worker_metrics']}/metrics")

    def _gateway(self) -> Service:
        argv = _python("gateway", "serve", "--config", str(self.config), "--port", str(self.options.port))
        argv += ("--admin-port", str(self.options.admin_port))
        if self.options.workers is not None:
            argv += ("--workers", str(self.options.workers))
        return _http_service("gateway", argv, self.gateway_environment(), f"{self.urls['admin']}/readyz")


def _serves(url: str, timeout: float = 1.0) -> bool:
    """Whether a GET of the URL is answered with 200 within `timeout` seconds."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=timeout)
    try:
        connection.request("GET", parts.path or "/")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def _python(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", *words)


def _http_service(name: str, argv: tuple[str, ...], env: Mapping[str, str], probe: str) -> Service:
    return Service(name, argv, ready=functools.partial(_serves, probe), env=env, cwd=ROOT, ready_within=45.0)
