"""Tidegate, as `tidegate up` starts it, with a sale of its own."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jwt
import psycopg
import yaml
from cryptography.hazmat.primitives import serialization

from benchmarks.orders import goods
from benchmarks.processes import StartError, free_port, tree_cpu_seconds
from ops import stores

ROOT = Path(__file__).resolve().parent.parent.parent
_START_SECONDS = 120.0
_STOP_SECONDS = 20.0
_DAY = 86_400  # seconds


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A folder for a stack, gone afterwards; its path is short enough for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="tg-", dir="/tmp") as place:
        folder = Path(place)
        folder.chmod(0o711)  # root's PostgreSQL runs as another account
        yield folder


class Tidegate:
    """The whole stack in a folder; stopped at the end of `with`.

    Args:
        folder: is made, and left behind.
        cards: how many keys there are to sell.
        shop: settings over those of config/shop.yaml, by section.
        environment: added to ours.
    """

    name = "tidegate"

    def __init__(
        self,
        folder: Path,
        *,
        cards: int,
        shop: Mapping[str, Mapping[str, object]] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self._data = folder / "data"
        self._console = folder / "console.log"
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(0o711)  # root's PostgreSQL runs as another account
        settings = yaml.safe_load((ROOT / "config/shop.yaml").read_text(encoding="utf-8"))
        for section, values in (shop or {}).items():
            settings.setdefault(section, {}).update(values)
        catalogue = goods.write_catalogue(folder / "catalogue", cards)
        settings.setdefault("catalog", {})["directory"] = str(catalogue)
        config = folder / "shop.yaml"
        config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        shutil.copyfile(ROOT / "config/gateway.yaml", folder / "gateway.yaml")
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("TIDEGATE_")}
        self._environment = {**inherited, "TIDEGATE_SHOP_CONFIG": str(config), **(environment or {})}
        arguments = ("--data", self._data, "--config", folder / "gateway.yaml")
        ports = ("--port", free_port(), "--admin-port", free_port())
        with self._console.open("w", encoding="utf-8") as out:
            self._up = subprocess.Popen(
                [sys.executable, "-m", "ops.cli", "up", *map(str, (*arguments, *ports))],
                env=self._environment,
                cwd=ROOT,
                stdout=out,
                stderr=subprocess.STDOUT,
            )

    def __enter__(self) -> Tidegate:
        try:
            self._wait()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it in order."""
        if self._up.poll() is None:
            self._up.send_signal(signal.SIGTERM)
            try:
                self._up.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self._up.kill()
        self._up.wait()

    @property
    def state(self) -> dict[str, Any]:
        """What stack.json says: URLs, and the process id of each service."""
        return dict(json.loads((self._data / "stack.json").read_text(encoding="utf-8")))

    @property
    def url(self) -> str:
        """The gateway, as shoppers see it."""
        return str(self.state["urls"]["gateway"])

    @property
    def environment(self) -> dict[str, str]:
        """By which commands find its stores, its provider and its secrets."""
        return {**self._environment, **stores.client_environment(self._data, {})}

    def sessions(self, count: int) -> list[str]:
        """Tokens of so many users, as the shop gives them out: shoppers are there before the sale begins."""
        key = serialization.load_pem_private_key(
            (self._data / "keys/session.pem").read_bytes(), password=None
        )
        now = int(time.time())
        return [
            jwt.encode({"sub": f"u{n:07d}", "iat": now, "exp": now + _DAY}, key, algorithm="EdDSA")  # type: ignore[arg-type]  # an Ed25519 key
            for n in range(count)
        ]

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU that each service's processes had so far."""
        return {name: tree_cpu_seconds(pid) for name, pid in self.state["pids"].items()}

    def count(self, query: str) -> int:
        """The one number that a query of its database answers."""
        with psycopg.connect(self.environment["TIDEGATE_DATABASE_URL"]) as connection:
            row = connection.execute(query.encode()).fetchone()
        return int(row[0]) if row else 0

    def audit(self, answered: Path, wait: float) -> subprocess.CompletedProcess[str]:
        """Run `tidegate audit` with the order ids that were answered 202."""
        words = ("audit", "--data", self._data, "--wait", wait, "--answered", answered)
        return subprocess.run(
            [sys.executable, "-m", "ops.cli", *map(str, words)],
            env=self.environment,
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    def _wait(self) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            said = self._console.read_text(encoding="utf-8")
            if "\nready " in said:
                return
            if self._up.poll() is not None or time.monotonic() > deadline:
                raise StartError(f"tidegate up is not ready:\n{said[-1500:]}")
            time.sleep(0.1)
