"""What the supervisor must know of one process."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ops.spawn import Account, spawn


@dataclass(frozen=True, slots=True)
class Service:
    """One long-running process of the stack.

    Attributes:
        name: for the console and the log file.
        argv: program and arguments.
        ready: whether it serves; called again and again, quick, never raises.
        env: added to our own environment.
        cwd: its working directory; ours when None.
        account: whom it runs as; ourselves when None.
        stop_signal: asks it to finish.
        ready_within: seconds it may take to become ready.
        prepare: done before each start, for example removing a stale socket.
    """

    name: str
    argv: tuple[str, ...]
    ready: Callable[[], bool]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    account: Account | None = None
    stop_signal: int = signal.SIGTERM
    ready_within: float = 30.0
    prepare: Callable[[], None] = lambda: None

    def launch(self, log: Path) -> subprocess.Popen[bytes]:
        """Start it; what it says goes to the end of `log`.

        Raises:
            OpsError, OSError: as `spawn`; the log can't be opened.
        """
        self.prepare()
        with log.open("ab") as out:
            return spawn(
                self.argv,
                stdout=out,
                env={**os.environ, **self.env},
                cwd=self.cwd,
                account=self.account,
                death_signal=self.stop_signal,
            )
