"""The floor: uvicorn answering by itself, with no work done at all."""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from benchmarks.peers.peer import HERE, Peer
from benchmarks.processes import Command
from benchmarks.site import Site


class BareUvicorn(Peer):
    """What an answer costs before any gateway."""

    name: ClassVar[str] = "uvicorn-bare"
    lacks: ClassVar[str] = "everything: answers by itself"
    proxies: ClassVar[bool] = False
    limits: ClassVar[bool] = False

    @override
    def program(self) -> Path | None:
        return Path(sys.executable)

    @override
    def version(self) -> str:
        return f"uvicorn {version('uvicorn')}, httptools {version('httptools')}, uvloop {version('uvloop')}"

    @override
    def command(self, site: Site) -> Command:
        return Command(
            (
                *(self.installed(), "-m", "uvicorn", "benchmarks.peers.bare_app:answer"),
                *("--port", str(site.port), "--http", "httptools", "--loop", "uvloop", "--lifespan", "off"),
                *("--no-access-log", "--no-server-header", "--no-date-header", "--log-level", "warning"),
                *("--timeout-keep-alive", "75", "--ws", "none", "--no-proxy-headers"),
            ),
            {"PYTHONPATH": str(HERE.parent.parent)},
        )
