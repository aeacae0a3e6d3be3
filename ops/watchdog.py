"""Clears up after a supervisor that was killed: `python -m ops.watchdog LOCK_FD`, told by a pipe.

Each line on stdin is `+PGID` (a process group was started) or `-PGID` (it has been cleared). The end
of the pipe means that the supervisor is gone: what is still running is asked to finish, then killed.
The kernel has already told the direct children; this is for their children and for those who hang.
The inherited lock keeps the next `tidegate up` waiting until all is clear.
"""

from __future__ import annotations

import os
import signal
import sys
import time

GRACE = 5.0  # seconds between asking and killing


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _tell(groups: list[int], number: int) -> None:
    for group in reversed(groups):
        try:
            os.killpg(group, number)
        except (ProcessLookupError, PermissionError):
            continue


def clear(groups: list[int], grace: float = GRACE) -> None:
    """Stop process groups, last first: SIGTERM, then SIGKILL after `grace` seconds."""
    _tell(groups, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while any(map(_alive, groups)) and time.monotonic() < deadline:
        time.sleep(0.05)
    _tell(groups, signal.SIGKILL)


def main() -> None:
    """Follow the pipe to its end, then clear."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # only the end of the pipe ends us
    groups: list[int] = []
    for line in sys.stdin:
        group = int(line[1:])
        if line.startswith("+"):
            groups.append(group)
        elif group in groups:
            groups.remove(group)
    clear(groups)


if __name__ == "__main__":
    main()
