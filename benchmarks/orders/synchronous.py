"""The check-then-update, synchronous-callback design, running: PostgreSQL, its shop, and the sandbox."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import httpx
import psycopg
from psycopg.rows import dict_row

from benchmarks.orders.ours import ROOT
from benchmarks.orders.synchronous_shop import fill
from benchmarks.processes import accepts, free_port, tree_cpu_seconds
from ops.embedded import EmbeddedPostgres
from ops.secrets import load_or_make
from ops.service import Service
from ops.supervisor import Supervisor


class Synchronous:
    """The whole of it in a folder; stopped at the end of `with`.

    Args:
        folder: is made, and left behind.
        cards: how many keys there are to sell.
        smtp_port: of the mail server on the loopback.
    """

    name = "synchronous"

    def __init__(self, folder: Path, *, cards: int, smtp_port: int) -> None:
        folder.mkdir(parents=True)
        folder.chmod(0o711)  # root's PostgreSQL runs as another account
        self._cards = cards
        self._pids: dict[str, int] = {}
        self._cleanup = contextlib.ExitStack()
        self._postgres = EmbeddedPostgres(folder / "postgres", folder)
        self._logs = folder / "logs"
        self._logs.mkdir()
        shop, sandbox = free_port(), free_port()
        self.url, sandbox_url = f"http://127.0.0.1:{shop}", f"http://127.0.0.1:{sandbox}"
        secret = load_or_make(folder, {}).sandbox_secret
        self._shop = Service(
            "shop",
            (sys.executable, "-m", "benchmarks.orders.synchronous_shop", str(shop)),
            ready=lambda: accepts(shop),
            cwd=ROOT,
            env={
                "DATABASE_URL": self._postgres.url(),
                "SANDBOX_URL": sandbox_url,
                "SANDBOX_SECRET": secret,
                "SHOP_URL": self.url,
                "SMTP_PORT": str(smtp_port),
            },
        )
        self._sandbox = Service(
            "sandbox",
            (sys.executable, "-m", "shop_backend", "sandbox", "--port", str(sandbox)),
            ready=lambda: accepts(sandbox),
            cwd=ROOT,
            env={
                "TIDEGATE_SANDBOX_SECRET": secret,
                "TIDEGATE_SANDBOX_URL": sandbox_url,
                "TIDEGATE_SHOP_URL": self.url,
                "TIDEGATE_PUBLIC_URL": self.url,
                "TIDEGATE_DATA_DIR": str(folder),
            },
        )

    def __enter__(self) -> Synchronous:
        supervisor = Supervisor(self._logs, lambda _: None, self._pids.update)
        with contextlib.ExitStack() as cleanup:
            cleanup.enter_context(supervisor)
            self._postgres.create(self._logs / "initdb.log")
            supervisor.start(self._postgres.service())
            self._postgres.create_database()
            fill(self._postgres.url(), self._cards)
            supervisor.start(self._shop, self._sandbox)
            self._cleanup = cleanup.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._cleanup.close()

    def sessions(self, count: int) -> list[str]:
        """Users; their names are believed."""
        return [f"u{n:07d}" for n in range(count)]

    def cpu(self) -> dict[str, float]:
        """Seconds of CPU that each service's processes had so far."""
        return {name: tree_cpu_seconds(pid) for name, pid in self._pids.items()}

    def callbacks(self) -> dict[int, int]:
        """Callbacks received, by second of the monotonic clock."""
        answer = httpx.get(f"{self.url}/callbacks", timeout=60.0, trust_env=False)
        return {int(second): count for second, count in answer.json().items()}

    def books(self) -> dict[str, Any]:
        """What its tables say afterwards.

        `orders` accepted, `stock_fell` by how much, `delivered` cards handed out, `twice` cards that went
        to more than one delivery.
        """
        with psycopg.connect(self._postgres.url(), row_factory=dict_row) as connection:
            row = connection.execute(
                "SELECT (SELECT count(*) FROM orders) AS orders,"
                " %s - (SELECT stock FROM products) AS stock_fell,"
                " (SELECT count(*) FROM deliveries) AS delivered,"
                " (SELECT count(*) FROM (SELECT FROM deliveries GROUP BY card_id HAVING count(*) > 1) AS x)"
                " AS twice",
                (self._cards,),
            ).fetchone()
        return row or {}
