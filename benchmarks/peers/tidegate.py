"""Tidegate itself, with every protection on: limits local, or shared through Redis."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from benchmarks.peers.peer import HERE, Peer
from benchmarks.processes import Command
from benchmarks.site import Rate, Site, write
from gateway.compiled import built

ROOT = HERE.parent.parent


class Tidegate(Peer):
    """One worker; limits, breaker, concurrency, ladder, metrics and access log on."""

    name: ClassVar[str] = "tidegate"
    many_routes: ClassVar[bool] = True

    @override
    def program(self) -> Path | None:
        return Path(sys.executable)

    @override
    def version(self) -> str:
        done = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty"],
            capture_output=True,
            text=True,
            check=False,
        )
        return f"{done.stdout.strip() or 'unknown'}, {'compiled' if built() else 'interpreted'}"

    @override
    def command(self, site: Site) -> Command:
        redis = f"redis: {{url: unix://{site.redis}, timeout: 20ms}}" if self.uses_redis else ""
        config = write(
            site,
            HERE / "tidegate.yaml",
            overall=_notation(site.overall),
            user=_notation(site.user),
            redis=redis,
            more_routes="\n".join(_decoys(site.routes - 3)),
        )
        return Command(
            (
                *(self.installed(), "-m", "gateway", "serve", "--config", str(config)),
                *("--port", str(site.port), "--admin-port", str(site.admin_port), "--workers", "1"),
            ),
            {"PYTHONPATH": str(ROOT)},
        )


class TidegateRedis(Tidegate):
    """The same with limits shared in Redis."""

    name: ClassVar[str] = "tidegate+redis"
    uses_redis: ClassVar[bool] = True


def _notation(rate: Rate) -> str:
    return f"{rate.count}/{rate.seconds} seconds"


def _decoys(count: int) -> list[str]:
    """Routes before ours, that no request of the load matches."""
    return [
        f'  - {{match: "/api/area{number}/{{id}}", upstream: shop, limits: [global, user]}}'
        for number in range(count)
    ]
