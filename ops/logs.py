"""Log files of child processes, and errors on one line."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from dataclasses import dataclass, field
from pathlib import Path

LOG_MAX = 16 << 20  # bytes of one log before it is set aside; one older piece is kept
READ_MAX = 1 << 20  # bytes of a log looked at in one go
RECORD = re.compile(r"\d{4}-\d\d-\d\d [\d:,]+ (?P<level>[A-Z]+) (?P<logger>[\w.]+): (?P<text>.*)")


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


def shorter(path: str) -> str:
    """A path as seen from the working directory when that is shorter."""
    with contextlib.suppress(ValueError, OSError):  # another drive, or the directory is gone
        return min(os.path.relpath(path), path, key=len)
    return path


@dataclass(slots=True)
class Follower:
    """What one logger writes to a growing log, from now on: its news and warnings.

    Attributes:
        log: the file; it may not exist yet, and may be rotated.
        logger: exact name of the logger.
    """

    log: Path
    logger: str
    _at: int = field(init=False)
    _rest: bytes = b""
    _listing: bool = False  # inside a record whose further lines are part of what it says

    def __post_init__(self) -> None:
        self._at = self._size()

    def _size(self) -> int:
        with contextlib.suppress(OSError):
            return self.log.stat().st_size
        return 0

    def read(self) -> list[str]:
        """The lines since the last call, without time and level; those that a `:` announces are indented."""
        size = self._size()
        if size < self._at:
            self._at, self._rest = 0, b""
        if size == self._at:
            return []
        with contextlib.suppress(OSError), self.log.open("rb") as file:
            file.seek(self._at)
            grown = file.read(READ_MAX)
            self._at += len(grown)
            *whole, self._rest = (self._rest + grown).split(b"\n")
            return [said for line in whole if (said := self._heard(line.decode("utf-8", "replace")))]
        return []

    def _heard(self, line: str) -> str | None:
        record = RECORD.fullmatch(line)
        if record is None:
            return f"  {line}" if self._listing and line.strip() else None
        ours = record["logger"] == self.logger and record["level"] != "DEBUG"
        self._listing = ours and record["text"].endswith(":")
        return record["text"].removesuffix(":") if ours else None


def rotate(log: Path, limit: int = LOG_MAX) -> None:
    """Set a grown log aside as NAME.1. Its writers append, so that they go on in the emptied file."""
    with contextlib.suppress(OSError):  # gone, or the disk is full: tried again in a while
        if log.stat().st_size > limit:
            shutil.copyfile(log, log.with_name(log.name + ".1"))
            os.truncate(log, 0)
