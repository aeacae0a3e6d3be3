"""What stands before the backend: Tidegate, Envoy, nginx, nothing."""

from __future__ import annotations

import getpass
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from benchmarks.peers.envoy import Envoy
from benchmarks.peers.nginx import Nginx
from benchmarks.peers.peer import Peer
from benchmarks.peers.tidegate import ROOT, Tidegate
from benchmarks.processes import Command
from benchmarks.site import Site, write

_HERE = Path(__file__).parent
_TOLD = 0.95  # of the capacity, for who must be told a rate


@dataclass(frozen=True, slots=True)
class Dwell:
    """How long pressure must last for Tidegate's ladder to climb a step, or to come down one; seconds."""

    climb: int = 2
    descend: int = 4


class Gate(Peer):
    """A peer before a backend of some capacity, requests a second."""

    capacity: float = 0.0


class TidegateGate(Tidegate, Gate):
    """Nothing told but bounds; three priorities; a ladder whose last step serves the critical only."""

    dwell: ClassVar[Dwell] = Dwell()

    @override
    def command(self, site: Site) -> Command:
        config = write(site, _HERE / "tidegate.yaml", climb=self.dwell.climb, descend=self.dwell.descend)
        arguments = ("-m", "gateway", "serve", "--config", str(config), "--port", str(site.port))
        return Command(
            (self.installed(), *arguments, "--admin-port", str(site.admin_port), "--workers", "1"),
            {"PYTHONPATH": str(ROOT), "TIDEGATE_ADMIN_TOKEN": "benchmark"},
        )


class EnvoyGate(Envoy, Gate):
    """Adaptive concurrency on."""

    lacks: ClassVar[str] = "priorities, fallbacks, fairness; nothing waits"

    @override
    def command(self, site: Site) -> Command:
        config = write(site, _HERE / "envoy.yaml")
        return Command(
            (
                *(self.installed(), "--config-path", str(config), "--concurrency", "1"),
                *("--disable-hot-restart", "--log-level", "warning"),
            ),
            {},
        )


class NginxGate(Nginx, Gate):
    """limit_req: one limit for all."""

    lacks: ClassVar[str] = "finding the limit (it is told 95 % of the capacity); priorities"
    zone: ClassVar[str] = "rest"
    critical: ClassVar[float] = 0.0

    @override
    def command(self, site: Site) -> Command:
        config = write(
            site,
            _HERE / "nginx.conf",
            account=getpass.getuser(),
            zone=self.zone,
            rest=round((_TOLD - self.critical) * self.capacity),
            critical=max(1, round(self.critical * self.capacity)),
            burst=round(self.capacity / 10),
        )
        return Command((self.installed(), "-p", str(site.folder), "-e", "error.log", "-c", str(config)), {})


class SplitNginxGate(NginxGate):
    """limit_req: half of the capacity kept for the critical, whether they come or not."""

    name: ClassVar[str] = "nginx-split"
    lacks: ClassVar[str] = "finding the limit; what is kept for the critical is kept from the others always"
    zone: ClassVar[str] = "critical"
    critical: ClassVar[float] = 0.55


class Bare(Gate):
    """The backend itself."""

    name: ClassVar[str] = "bare"
    lacks: ClassVar[str] = "everything"

    @override
    def program(self) -> Path | None:
        return Path("/")

    @override
    def version(self) -> str:
        return "–"

    @override
    def command(self, site: Site) -> Command:
        raise NotImplementedError("the backend is started for every gate anyway")


GATES: tuple[type[Gate], ...] = (TidegateGate, EnvoyGate, NginxGate, SplitNginxGate, Bare)
