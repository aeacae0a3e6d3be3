"""A gateway of a test's own, which it may stop and kill; nothing stands behind it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import yaml

from tests.waiting import PATIENCE, wait_until

TOKEN = "a-token-for-tests"


class LoneGateway:
    """`python -m gateway serve`, run from a test that has no event loop.

    Args:
        folder: takes its configuration and its log.
        port: of the admin API, so that a second run is found where the first was.
        keys: replace those of the configuration.
    """

    def __init__(self, folder: Path, port: int, **keys: Any) -> None:
        self._log = folder / "gateway.log"
        self._config = folder / "gateway.yaml"
        config = {
            "listen": {"port": 0, "workers": 1},
            "admin": {"port": port},
            "upstreams": {"shop": {"servers": ["http://127.0.0.1:9"]}},
            "features": {"recommendations": {"fallback": {"json": {"items": []}}}},
            "limits": {"all": {"rate": "100/second", "per": "global"}},
            "routes": [{"match": "/**", "upstream": "shop", "feature": "recommendations", "limits": ["all"]}],
        } | keys
        self._config.write_text(yaml.safe_dump(config))
        self.port = port
        self.admin_url = f"http://127.0.0.1:{port}"
        self.url = ""
        self.start()

    def start(self) -> None:
        """Run it, and wait until it serves."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TIDEGATE_")}
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "gateway", "serve", "--config", str(self._config)],
                env={**environment, "TIDEGATE_ADMIN_TOKEN": TOKEN},
                stdout=log,
                stderr=subprocess.STDOUT,
            )

        def ready() -> re.Match[str] | None:
            assert self.process.poll() is None, self._log.read_text()
            return re.search(r"^gateway ready: (\S+)", self._log.read_text(), re.MULTILINE)

        self.url = str(wait_until(ready, what=f"the gateway is ready; see {self._log}")[1])

    def edit(self, **keys: Any) -> None:
        """Replace keys of its configuration, at once."""
        whole = self._config.with_suffix(".new")
        whole.write_text(yaml.safe_dump({**yaml.safe_load(self._config.read_text()), **keys}))
        whole.replace(self._config)

    def signal(self, number: signal.Signals) -> None:
        """Send its master a signal."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Let nothing of it be left, at once."""
        if self.process.poll() is not None:
            return
        everyone = psutil.Process(self.process.pid).children(recursive=True)
        self.process.kill()
        self.process.wait(PATIENCE)
        for one in everyone:
            if one.is_running():
                one.kill()
        psutil.wait_procs(everyone, PATIENCE)
