"""A Redis server that a test may freeze, kill and start again."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from ops import embedded
from tests import unsupervised


class OwnRedis:
    """A Redis server that a test may freeze, kill and start again."""

    def __init__(self, folder: Path) -> None:
        self._server = embedded.EmbeddedRedis("volatile", folder / "data", folder)
        self._log = folder / "redis.log"
        self.url = self._server.url()
        self.start()

    def start(self) -> None:
        self._service = self._server.service()
        self._process = unsupervised.start(self._service, self._log)

    def stop(self) -> None:
        self.thaw()
        unsupervised.stop(self._process, self._service)

    def freeze(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGCONT)
