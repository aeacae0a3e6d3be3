"""The machine a measurement ran on: without it a figure says nothing."""

from __future__ import annotations

import os
import platform
import sys
import sysconfig
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LOAD_CORE = 0  # wrk, the upstream and Redis
PEER_CORE = 1  # the gateway under test, alone


class MachineError(Exception):
    """This machine can't take the measurement; the message says what it lacks."""


def require_two_cores() -> None:
    """Check that load and gateway can be kept apart.

    Raises:
        MachineError: fewer than two cores may be used.
    """
    usable = os.sched_getaffinity(0)
    if not {LOAD_CORE, PEER_CORE} <= usable:
        raise MachineError(
            f"cores {LOAD_CORE} and {PEER_CORE} are needed, these may be used: {sorted(usable)}; "
            "run on a machine (or in a container) with at least two"
        )


def load_average() -> float:
    """Runnable processes over the last minute; ours included."""
    return os.getloadavg()[0]


def describe() -> dict[str, Any]:
    """Cores, kernel, processor, Python and date."""
    return {
        "cores": os.cpu_count(),
        "cpu": _field("/proc/cpuinfo", "model name"),
        "memory": _field("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "system": _field("/etc/os-release", "PRETTY_NAME", separator="=").strip('"'),
        "python": f"{platform.python_version()} ({_build()})",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _build() -> str:
    """How the interpreter was compiled: profile-guided optimisation saves a request up to a fifth."""
    flags = sysconfig.get_config_var("CONFIG_ARGS") or ""
    return (
        "profiled build" if "--enable-optimizations" in flags or sys.base_prefix == "/usr" else "plain build"
    )


def _field(path: str, name: str, *, separator: str = ":") -> str:
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except OSError:
        return "unknown"
    found = (line.partition(separator)[2].strip() for line in lines if line.startswith(name))
    return next(found, "unknown")
