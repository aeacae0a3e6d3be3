"""One server of the stack's, run by a test without a supervisor."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

from ops.errors import StartFailed
from ops.logs import last_line
from ops.service import Service


def start(service: Service, log: Path, within: float = 30.0) -> subprocess.Popen[bytes]:
    """Start one service without a supervisor and wait until it serves.

    Args:
        service: what to run.
        log: file that takes its output.
        within: seconds to wait.

    Raises:
        StartFailed: it ended or was not ready in time; it has been stopped.
    """
    process = service.launch(log)
    deadline = time.monotonic() + within
    while not service.ready():
        if process.poll() is not None:
            raise StartFailed(
                f"{service.name} ended with status {process.returncode} ({last_line(log)}); log: {log}"
            )
        if time.monotonic() > deadline:
            stop(process, service)
            raise StartFailed(f"{service.name} was not ready after {within:g} s; log: {log}")
        time.sleep(0.02)
    return process


def stop(process: subprocess.Popen[bytes], service: Service, within: float = 10.0) -> None:
    """Ask a process to finish, and kill its group when it has not after `within` seconds."""
    if process.poll() is None:
        process.send_signal(service.stop_signal)
        try:
            process.wait(within)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
