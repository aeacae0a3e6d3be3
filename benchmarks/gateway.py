"""A gateway of its own configuration, for measurements that have no peers."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.machine import PEER_CORE
from benchmarks.peers.tidegate import ROOT
from benchmarks.processes import Command, Process, free_port, tree

TOKEN = "for-this-measurement-only"  # noqa: S105 - opens nothing but what lives for a minute


class Gateway(Process):
    """A running gateway.

    Args:
        folder: its own, made here.
        workers: how many.
        trusted: proxies whose X-Forwarded-For is believed.
        settings: its configuration, as in YAML.

    Attributes:
        port: where it serves.
        admin_port: of its admin API.
        admin_url: its admin API.
    """

    def __init__(
        self, folder: Path, workers: int, *, trusted: Sequence[str] = (), **settings: object
    ) -> None:
        folder.mkdir()
        self.port, self.admin_port = free_port(), free_port()
        self.admin_url = f"http://127.0.0.1:{self.admin_port}"
        config = folder / "gateway.json"  # which is YAML too
        listen = {"host": "127.0.0.1", "port": self.port, "workers": workers, "trusted_proxies": trusted}
        whole = {"listen": listen, "admin": {"port": self.admin_port}, **settings}
        config.write_text(json.dumps(whole), encoding="utf-8")
        command = Command(
            (sys.executable, "-m", "gateway", "serve", "--config", str(config)),
            {"PYTHONPATH": str(ROOT), "TIDEGATE_ADMIN_TOKEN": TOKEN},
        )
        super().__init__(command, core=PEER_CORE, folder=folder, name="tidegate")
        try:
            # Its port is open before its workers are there.
            self.wait_until(lambda: b"gateway ready" in self.log.read_bytes())
        except BaseException:
            self.stop()
            raise

    def worker_of(self, own_port: int) -> int | None:
        """The worker process that serves a connection, by the client's port; None when it is gone."""
        inode = _inode(self.port, own_port)
        for pid in tree(self.pid) if inode else ():
            for link in Path(f"/proc/{pid}/fd").iterdir():
                try:
                    if str(link.readlink()) == f"socket:[{inode}]":
                        return pid
                except OSError:  # closed meanwhile
                    continue
        return None


def _inode(port: int, peer_port: int) -> str | None:
    """The kernel's number of the server's end of a connection over the loopback."""
    ends = f"0100007F:{port:04X}", f"0100007F:{peer_port:04X}"
    for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]:
        fields = line.split()
        if (fields[1], fields[2]) == ends:
            return fields[9]
    return None
