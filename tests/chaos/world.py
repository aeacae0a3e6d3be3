"""The stack under chaos: `tidegate up` on ports of its own, and every handle that faults need."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import struct
import subprocess
import sys
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from ops import stores as ops_stores
from tests.chaos import catalog, stores
from tests.chaos.proxy import Proxy
from tests.chaos.schedule import CLOCKS
from tests.running_stack import ROOT, Stack, start_stack, write_shop_config
from tests.waiting import wait_until

# Sales are short here, so everything that takes minutes takes seconds.
SHOP: dict[str, dict[str, Any]] = {
    "stock": {"hold_for": "8s"},
    "workers": {"poll_after": "2s", "park_for": "20s"},
}
HOLD_FOR = 8.0  # seconds


@dataclass
class World:
    """A running stack.

    Attributes:
        stack: `tidegate up`.
        folder: everything this run writes.
        proxies: before each Redis, when the run is wired.
        secret: what the provider's callbacks are signed with.
        environment: by which commands find the stack's stores and the provider.
    """

    stack: Stack
    folder: Path
    proxies: dict[str, Proxy]
    secret: str
    environment: dict[str, str]

    def pid(self, name: str) -> int | None:
        """The process id of a service or of a gateway worker; None while it does not run."""
        if name == "gateway-worker":
            master = self.pid("gateway")
            with contextlib.suppress(psutil.Error):
                servers = psutil.Process(master).children() if master else []
                children = [worker for fork_server in servers for worker in fork_server.children()]
                return min((child.pid for child in children), default=None)
            return None
        pids = self.stack.state()["pids"]
        if self.proxies:
            with contextlib.suppress(OSError, ValueError):
                pids |= json.loads((self.folder / "stores" / "pids.json").read_text(encoding="utf-8"))
        pid = pids.get(name)
        return pid if isinstance(pid, int) and psutil.pid_exists(pid) else None

    def store_url(self, name: str) -> str:
        """A Redis itself, whatever stands before it."""
        folder = self.folder / "stores" if self.proxies else self.stack.data_dir / "run"
        return f"unix://{folder / name}.sock"

    def store_data(self, name: str) -> Path:
        """The disk of a Redis."""
        return (self.folder / "stores" if self.proxies else self.stack.data_dir) / name

    def set_clock(self, host: str, wrong: float) -> None:
        """Let a host's clock be wrong by so many seconds."""
        # In place: the processes have this very file mapped.
        with (self.folder / "clock" / host).open("r+b") as file:
            file.write(struct.pack("d", wrong))


@contextlib.asynccontextmanager
async def running(folder: Path, *, wired: bool) -> AsyncIterator[World]:
    """A stack with a small catalogue, short holds and clocks that can jump; stopped at the end."""
    environment = _prepare(folder)
    async with contextlib.AsyncExitStack() as cleanup:
        proxies: dict[str, Proxy] = {}
        if wired:
            proxies = await cleanup.enter_async_context(_stores_apart(folder / "stores"))
            environment |= {
                "TIDEGATE_STOCK_REDIS_URL": f"redis://127.0.0.1:{proxies['redis-durable'].port}/0",
                "TIDEGATE_REDIS_URL": f"redis://127.0.0.1:{proxies['redis-volatile'].port}/0",
                "TIDEGATE_SESSION_REDIS_URL": f"redis://127.0.0.1:{proxies['redis-volatile'].port}/1",
            }
        (folder / "data").mkdir()
        shutil.copyfile(ROOT / "config/gateway.yaml", folder / "data/gateway.yaml")  # as it is shipped
        stack = await asyncio.to_thread(start_stack, folder / "data", env=environment)
        cleanup.push_async_callback(asyncio.to_thread, stack.stop, 30.0)
        known = ops_stores.client_environment(stack.data_dir, environment)
        yield World(stack, folder, proxies, known["TIDEGATE_SANDBOX_SECRET"], known)


def _prepare(folder: Path) -> dict[str, str]:
    """Write what the stack is configured by; the environment that names it."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)  # root's PostgreSQL runs as another account
    clocks = folder / "clock"
    clocks.mkdir()
    for host in CLOCKS:
        (clocks / host).write_bytes(struct.pack("d", 0.0))
    goods = {"catalog": {"directory": str(catalog.write(folder / "catalog"))}}
    return {
        "PYTHONPATH": str(ROOT / "tests/chaos/clock"),
        "TIDEGATE_CHAOS_CLOCK": str(clocks),
        "TIDEGATE_SHOP_CONFIG": str(write_shop_config(folder / "shop.yaml", SHOP | goods)),
    }


@contextlib.asynccontextmanager
async def _stores_apart(folder: Path) -> AsyncIterator[dict[str, Proxy]]:
    process = await asyncio.to_thread(_start_stores, folder)
    proxies = {f"redis-{server.kind}": Proxy(server.socket) for server in stores.servers(folder)}
    try:
        for proxy in proxies.values():
            await proxy.open()
        yield proxies
    finally:
        for proxy in proxies.values():
            await proxy.close()
        process.terminate()
        await asyncio.to_thread(process.wait, 15)


def _start_stores(folder: Path) -> subprocess.Popen[bytes]:
    folder.mkdir()
    log = folder / "console.log"
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.chaos.stores", str(folder)],
            cwd=ROOT,
            stdout=out,
            stderr=subprocess.STDOUT,
        )

    def ready() -> bool:
        assert process.poll() is None, log.read_text(encoding="utf-8")
        return "ready" in log.read_text(encoding="utf-8")

    wait_until(ready, within=30, what=f"the stores; see {log}")
    return process
