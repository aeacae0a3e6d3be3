"""HAProxy of the distribution."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from benchmarks.peers.peer import HERE, Peer, on_path, says
from benchmarks.processes import Command
from benchmarks.site import Site, write


class HAProxy(Peer):
    """Stick tables for all and for each user, servers marked down on errors, access log."""

    name: ClassVar[str] = "haproxy"
    lacks: ClassVar[str] = "breaker per server only (observe layer7)"

    @override
    def program(self) -> Path | None:
        return on_path("haproxy")

    @override
    def version(self) -> str:
        return says(self.installed(), "-v").split()[2]

    @override
    def command(self, site: Site) -> Command:
        config = write(site, HERE / "haproxy.cfg")
        # Its log goes to standard output, and so into the file that Process opened.
        return Command((self.installed(), "-db", "-f", str(config)), {})
