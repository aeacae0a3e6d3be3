"""Processes we start: pinned to a core, measured over /proc, stopped by their own id."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from ops import ports

_TICKS = os.sysconf("SC_CLK_TCK")  # per second
_STOP_SECONDS = 5.0  # between SIGTERM and SIGKILL
_START_SECONDS = 20.0
_given: set[int] = set()  # ports


class StartError(Exception):
    """A process didn't come up; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Command:
    """What to run; `environment` is added to ours."""

    arguments: Sequence[str]
    environment: Mapping[str, str]


class Process:
    """A server on one core, with its output in a log file; stops at the end of `with`."""

    def __init__(self, command: Command, *, core: int, folder: Path, name: str) -> None:
        self.name = name
        self.log = folder / "output.log"
        with self.log.open("ab") as output:
            self._child = subprocess.Popen(
                ["taskset", "-c", str(core), *command.arguments],
                env={**os.environ, **command.environment},
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,  # so that what it starts can be stopped with it
            )
        self.pid = self._child.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def wait_until(self, ready: Callable[[], bool], *, within: float = _START_SECONDS) -> None:
        """Wait until it answers.

        Raises:
            StartError: it ended, or `within` seconds passed.
        """
        deadline = time.monotonic() + within
        while not ready():
            code = self._child.poll()
            if code is not None:
                raise StartError(f"{self.name} ended with exit code {code} while starting:\n{self._tail()}")
            if time.monotonic() > deadline:
                raise StartError(f"{self.name} wasn't ready within {within:g} s:\n{self._tail()}")
            time.sleep(0.02)

    def stop(self) -> None:
        """End it and all it started: asked first, then killed. Safe to call again."""
        if self._child.poll() is None:
            self._child.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(_STOP_SECONDS)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # its own group: `start_new_session`
        self._child.wait()

    def signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self._child.poll() is None:
            self._child.send_signal(number)

    def cpu_seconds(self) -> float:
        """User and system time of the whole tree so far."""
        return tree_cpu_seconds(self.pid)

    def user_and_system(self) -> tuple[float, float]:
        """The two apart, in seconds, without children that have ended."""
        stats = [fields for pid in tree(self.pid) if (fields := _stat(pid))]
        user, system = (sum(int(fields[place]) for fields in stats) / _TICKS for place in (11, 12))
        return user, system

    def memory_bytes(self) -> int:
        """Memory of the whole tree, pages shared within it counted once (PSS)."""
        return tree_memory_bytes(self.pid)

    def _tail(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")[-1500:]


def tree(root: int) -> list[int]:
    """A process and all its descendants, those that just left aside."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found = [root]
    for pid in found:  # grows while it is walked
        found.extend(children.get(pid, ()))
    return found


def tree_cpu_seconds(root: int) -> float:
    """User and system time so far of a process and all its descendants."""
    return sum(_cpu_seconds(pid) for pid in tree(root))


def tree_memory_bytes(root: int) -> int:
    """Memory of a process and all its descendants, pages shared within it counted once (PSS)."""
    return sum(memory_bytes(pid) for pid in tree(root))


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name, from the state on; empty when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return []
    return text.rpartition(")")[2].split()  # the name may hold blanks and brackets


def _cpu_seconds(pid: int) -> float:
    fields = _stat(pid)
    # utime, stime and those of children already waited for: 11th to 14th after the name
    return sum(int(field) for field in fields[11:15]) / _TICKS if fields else 0.0


def memory_bytes(pid: int) -> int:
    """Memory of one process, shared pages by its share in them (PSS); 0 when it is gone."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("Pss:"))


def free_port() -> int:
    """A TCP port of the loopback that nobody holds just now, and that was not given out here before."""
    return ports.choose(None, _given)


def accepts(port: int) -> bool:
    """Whether something listens on a port of the loopback."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0
