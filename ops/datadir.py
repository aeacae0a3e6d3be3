"""The folder that holds one stack: its lock, its state file, and a safe way to empty it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ops.errors import AlreadyRunning, OpsError
from ops.secrets import write_private

MARK = ".tidegate"  # an empty file: this folder is ours, `--fresh` may empty it
STATE = "stack.json"
KEPT_BY_FRESH = {MARK, "lock", "admin-token", "keys"}  # data goes, identities stay
ROOM = 256 << 20  # bytes that must be free to start
HANDOVER = 15.0  # seconds that a killed stack's watchdog may take


def prepare(data: Path) -> None:
    """Make the folder and see that it can be used.

    Raises:
        OpsError: it can't be written, or its disk is full.
    """
    try:
        data.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            data.chmod(0o711)  # PostgreSQL's own account walks through to its folder
        (data / MARK).touch()
        free = shutil.disk_usage(data).free
    except OSError as error:
        raise OpsError(f"cannot write in {data}: {error.strerror}; choose another --data") from error
    if free < ROOM:
        raise OpsError(
            f"the disk of {data} is full: {free >> 20} MiB free, {ROOM >> 20} MiB needed; "
            "make room or choose another --data"
        )


@contextlib.contextmanager
def locked(data: Path) -> Iterator[int]:
    """Hold the folder alone; yields the lock's descriptor.

    A stack that was killed is still being cleared up for some seconds: that is waited for.

    Raises:
        AlreadyRunning: another `tidegate up` runs here.
    """
    descriptor = os.open(data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + HANDOVER
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                holder = os.pread(descriptor, 32, 0).strip()
                if (holder.isdigit() and _runs(int(holder))) or time.monotonic() > deadline:
                    raise AlreadyRunning(
                        f"a stack already runs in {data} (process {holder.decode() or 'unknown'}); "
                        "stop it first or choose another --data"
                    ) from None
                time.sleep(0.05)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield descriptor
    finally:
        os.close(descriptor)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        if Path("/proc/self").exists():
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 0)
            return True
        return False
    return state != "Z"


def absent(data: Path) -> list[Path]:
    """What `prepare` and `locked` will make that is not there yet, innermost first."""
    return [path for path in (data / "lock", data / MARK, data, *data.parents) if not os.path.lexists(path)]


def remove(made: Iterable[Path]) -> None:
    """Take away what was made for nothing; folders that hold something stay."""
    for path in made:
        with contextlib.suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()


def empty(data: Path) -> None:
    """Throw the data of a folder of ours away; keys and the admin token stay."""
    for entry in data.iterdir():
        if entry.name in KEPT_BY_FRESH:
            continue
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def is_ours(data: Path) -> bool:
    """Whether the folder is new, empty, or was made by a `tidegate up`."""
    return not data.exists() or (data / MARK).exists() or not any(data.iterdir())


def write_state(data: Path, state: dict[str, Any]) -> None:
    """Replace stack.json."""
    write_private(data / STATE, json.dumps(state, indent=2) + "\n")


def read_state(data: Path) -> dict[str, Any]:
    """What stack.json says; empty when there is none or it is damaged."""
    with contextlib.suppress(OSError, ValueError):
        state = json.loads((data / STATE).read_text(encoding="utf-8"))
        if isinstance(state, dict):
            return state
    return {}
