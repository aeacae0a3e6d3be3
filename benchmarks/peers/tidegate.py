"""Tidegate itself, with every protection on: limits local, or shared through Redis."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from benchmarks.peers.peer import HERE, Peer
from benchmarks.processes import Command
from benchmarks.site import Rate, Site, write
from gateway.compiled import VARIABLE, built

ROOT = HERE.parent.parent


class Tidegate(Peer):
    """One worker; limits, breaker, concurrency, ladder, metrics and access log on."""

    name: ClassVar[str] = "tidegate"
    many_routes: ClassVar[bool] = True

    @override
    def program(self) -> Path | None:
        return Path(sys.executable)

    @override
    def prepare(self, say: Callable[[str], None]) -> None:
        new_build(say)

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


def new_build(say: Callable[[str], None]) -> bool:
    """Build ours as the image has it, unless that is done or TIDEGATE_COMPILED=0 wants the sources.

    Returns:
        Whether it was built just now; if it can't be, `say` is told why.
    """
    if built() or os.environ.get(VARIABLE) == "0":
        return False
    say("building tidegate as the image has it (once, a minute or two) ...")
    done = subprocess.run(
        (sys.executable, "-m", "gateway", "compile"), cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        say(f"it is measured from its sources: {done.stderr.strip()}")
    return not done.returncode


def _notation(rate: Rate) -> str:
    return f"{rate.count}/{rate.seconds} seconds"


def _decoys(count: int) -> list[str]:
    """Routes before ours, that no request of the load matches."""
    return [
        f'  - {{match: "/api/area{number}/{{id}}", upstream: shop, limits: [global, user]}}'
        for number in range(count)
    ]
