"""TCP ports of the loopback: is one free, who holds it, which one else."""

from __future__ import annotations

import contextlib
import random
import socket
from pathlib import Path

import psutil

from ops.errors import PortInUse

LOOPBACK = "127.0.0.1"
_FIRST = 10_000  # below are other programs' standard ports
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")
_TRIES = 100


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # remains of old connections don't count
        try:
            door.bind((LOOPBACK, port))
            door.listen(1)
        except OSError:
            return False
    return True


def require(port: int, what: str, option: str) -> None:
    """Insist on a port.

    Raises:
        PortInUse: somebody listens there; the message says who, if that can be seen.
    """
    if not is_free(port):
        raise PortInUse(f"port {port} of the {what} is in use{holder(port)}; choose another with {option}")


def choose(wanted: int | None, taken: set[int]) -> int:
    """The wanted port when it is free, else any free one; added to `taken`."""
    if wanted is not None and wanted not in taken and is_free(wanted):
        taken.add(wanted)
        return wanted
    for _ in range(_TRIES):
        # Not one that the system would give: somebody's outgoing connection may take that before we listen.
        port = random.randrange(_FIRST, _first_outgoing())  # noqa: S311 - spread, not secret
        if port not in taken and is_free(port):
            taken.add(port)
            return port
    while True:
        with socket.socket() as door:
            door.bind((LOOPBACK, 0))
            port = int(door.getsockname()[1])
        if port not in taken:
            taken.add(port)
            return port


def _first_outgoing() -> int:
    """Where the ports of outgoing connections begin."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        first = int(_RANGE.read_text(encoding="ascii").split()[0])
        if first > 2 * _FIRST:
            return first
    return 32_768  # Linux's default


def holder(port: int) -> str:
    """` by process PID (NAME)` of who listens there, as far as that can be seen."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.status == psutil.CONN_LISTEN:
                if connection.pid is None:
                    return ""
                return f" by process {connection.pid} ({psutil.Process(connection.pid).name()})"
    return ""
