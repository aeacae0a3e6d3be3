"""Log files of child processes, and errors on one line."""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path

LOG_MAX = 16 << 20  # bytes of one log before it is set aside; one older piece is kept


def one_line(error: object) -> str:
    """An error's text on one line."""
    return " ".join(str(error).split())


def last_line(log: Path) -> str:
    """The last non-empty line of a log, or a word that there is none."""
    with contextlib.suppress(OSError), log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 4096))
        lines = [line for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
        if lines:
            return lines[-1].strip()[:300]
    return "it said nothing"


def rotate(log: Path, limit: int = LOG_MAX) -> None:
    """Set a grown log aside as NAME.1. Its writers append, so that they go on in the emptied file."""
    with contextlib.suppress(OSError):  # gone, or the disk is full: tried again in a while
        if log.stat().st_size > limit:
            shutil.copyfile(log, log.with_name(log.name + ".1"))
            os.truncate(log, 0)
