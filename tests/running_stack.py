"""A running `tidegate up`, for tests that need the whole stack, and waiting without guessing."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from ops import ports
from tests.waiting import PATIENCE, wait_until

ROOT = Path(__file__).resolve().parent.parent


# `tidegate up` chooses its ports long before it listens there, from 10,000 on or the standard ones: tests
# listen below those. Of processes that test side by side each has its own.
_first = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_below = range(4_000 + _first, 8_000, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
_numbers = itertools.count(random.randrange(len(_below)))


def free_port() -> int:
    """A TCP port of the loopback that nobody holds just now, and nobody else is given for long."""
    return next(port for n in _numbers if ports.is_free(port := _below[n % len(_below)]))


@dataclass
class Stack:
    """A running `tidegate up`.

    Attributes:
        url: the gateway, as shoppers see it, without a trailing slash.
        admin_url: the admin API.
        admin_token: its bearer token.
        sandbox_url: the payment provider.
        shop_url: the shop behind the gateway.
        data_dir: its --data.
        config: the gateway's config file, a copy of this stack's own: `edit` it freely, then put it back.
        env: environment in which `tidegate` commands speak to it.
        pid: process id of `tidegate up`.
    """

    url: str
    admin_url: str
    admin_token: str
    sandbox_url: str
    shop_url: str
    data_dir: Path
    config: Path
    env: dict[str, str]
    pid: int
    process: subprocess.Popen[str]

    def state(self) -> dict[str, Any]:
        """What stack.json says now: URLs, and the pid of each service."""
        return dict(json.loads((self.data_dir / "stack.json").read_text()))

    def service_pid(self, name: str) -> int:
        """The process id of one service (shop, worker, sandbox, gateway, …) just now."""
        return int(self.state()["pids"][name])

    def edit(self, text: str) -> None:
        """Put another configuration in the file, at once: a look at half of it would be one more reload."""
        whole = self.config.with_suffix(".new")
        whole.write_text(text, encoding="utf-8")
        whole.replace(self.config)

    def tidegate(self, *words: str, timeout: float = 100.0) -> subprocess.CompletedProcess[str]:
        """Run `tidegate WORDS` against this stack."""
        return subprocess.run(
            [sys.executable, "-m", "ops.cli", *words],
            env=self.env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def stop(self, within: float = PATIENCE) -> int:
        """SIGTERM, as an operator would; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)


def patient(config: str) -> str:
    """The same configuration, but a gateway that takes no standstill of the machine for a reason to give up.

    It waits longer for Redis, and neither a late loop nor a busy processor moves its ladder.
    """
    for word, others in (
        ("timeout: 20ms", "timeout: 2s"),
        ("connect: 1s, total: 5s", "total: 5s"),
        ("signals: {loop_lag: 250ms, cpu: 1.0}", "signals: {loop_lag: off, cpu: off}"),
    ):
        assert word in config
        config = config.replace(word, others)
    return config


# A shop that takes none either: of a Redis that is slow to answer it makes no outage.
_PATIENT_SHOP = {
    "stock": {"timeout": PATIENCE},
    "catalog": {"shared_timeout": PATIENCE, "stock_timeout": PATIENCE},
    "sessions": {"timeout": PATIENCE},
}


def write_shop_config(file: Path, changes: Mapping[str, Mapping[str, Any]]) -> Path:
    """Write the shop's settings as they are shipped, but for some keys of some sections; the file."""
    settings = yaml.safe_load((ROOT / "config/shop.yaml").read_text(encoding="utf-8"))
    for section, values in changes.items():
        settings.setdefault(section, {}).update(values)
    file.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return file


def start_stack(data: Path, *words: str, env: Mapping[str, str] | None = None) -> Stack:
    """Run `tidegate up WORDS` in a folder and wait until it is ready."""
    data.mkdir(parents=True, exist_ok=True)
    data.chmod(0o711)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TIDEGATE_")}
    shop = write_shop_config(data / "shop.yaml", _PATIENT_SHOP)
    environment |= {"PYTHONUNBUFFERED": "1", "TIDEGATE_SHOP_CONFIG": str(shop), **(env or {})}
    taken: set[int] = set()
    argv = [sys.executable, "-m", "ops.cli", "up", "--data", str(data)]
    config = data / "gateway.yaml"
    if not config.exists():
        config.write_text(patient((ROOT / "config/gateway.yaml").read_text()))
    argv += [
        "--config",
        str(config),
        "--port",
        str(ports.choose(None, taken)),
        "--admin-port",
        str(ports.choose(None, taken)),
        "--workers",
        "2",
        *words,
    ]
    console = data / "console.log"
    with console.open("w") as out:
        process = subprocess.Popen(
            argv, env=environment, cwd=ROOT, text=True, stdout=out, stderr=subprocess.STDOUT
        )

    def ready() -> bool:
        if process.poll() is not None:
            pytest.fail(f"tidegate up ended with status {process.returncode}:\n{console.read_text()}")
        return re.search(r"^ready\b", console.read_text(), re.MULTILINE) is not None

    try:
        wait_until(ready, within=90, what=f"tidegate up; see {console}")
        state = json.loads((data / "stack.json").read_text())
    except BaseException:
        process.kill()
        print(console.read_text())  # noqa: T201 - pytest shows it beside the failure
        raise
    return Stack(
        url=state["urls"]["gateway"],
        admin_url=state["urls"]["admin"],
        admin_token=(data / "admin-token").read_text().strip(),
        sandbox_url=state["urls"]["sandbox"],
        shop_url=state["urls"]["shop"],
        data_dir=data,
        config=config,
        env={**environment, "TIDEGATE_DATA_DIR": str(data)},
        pid=process.pid,
        process=process,
    )
