"""The trail of changes: who changed what, when, why and with what effect; and who was refused."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import time
from collections import deque
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

from gateway.exchange import Clock

REMEMBERED = 1000  # entries of each file that are shown
MAX_FILE = 1 << 20  # bytes; then it is moved aside
KEPT_FILES = 4  # moved aside, besides the one that is written
BURST, PER_SECOND = 50.0, 1.0  # refusals that are recorded; more are counted only, lest a flood fill the disk
_log = logging.getLogger("gateway.trail")


@dataclass(frozen=True, slots=True)
class Entry:
    """One change, or one attempt.

    Attributes:
        at: when, milliseconds since 1970.
        kind: "feature", "step", "breaker", "limit", "shut-off", "config", "session" or "request".
        name: of what was changed, where there are several.
        old: what it was before.
        value: what it is since, or was asked to be.
        by: who, and from where.
        role: "viewer" or "operator"; empty when nobody known.
        reason: why.
        until: when it ends by itself, seconds since 1970, or None.
        result: "done", "refused", or "heard" from another host.
        status: what was answered; 0 when nobody was.
        detail: why it was refused, or what else there is to say.
        applied: workers in which it holds.
        workers: of how many.
        ms: after how many milliseconds.
        left_out: refusals before this one that were too many to be recorded.
    """

    at: int
    kind: str
    name: str = ""
    old: str = ""
    value: str = ""
    by: str = ""
    role: str = ""
    reason: str = ""
    until: float | None = None
    result: Literal["done", "refused", "heard"] = "done"
    status: int = 200
    detail: str = ""
    applied: int | None = None
    workers: int | None = None
    ms: float | None = None
    left_out: int = 0

    def sent_by(self, who: str, role: str) -> Entry:
        """The same, by them."""
        return replace(self, by=who, role=role)

    def with_effect(self, applied: int, workers: int, seconds: float) -> Entry:
        """The same, with what came of it."""
        return replace(self, applied=applied, workers=workers, ms=round(seconds * 1000, 1))

    def told(self) -> dict[str, Any]:
        """As JSON has it; `asdict`, which copies what can't change, takes fifteen times as long."""
        return {name: getattr(self, name) for name in _NAMES}


_NAMES = tuple(one.name for one in fields(Entry))


@dataclass(slots=True)
class _Book:
    """One kind of entries: the newest in memory, all that fit in files."""

    path: Path | None
    entries: deque[Entry] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    waiting: list[Entry] = field(default_factory=list)  # to be written

    def load(self) -> None:
        if self.path is None:
            return
        for path in (_aside(self.path, 1), self.path):
            with contextlib.suppress(FileNotFoundError):
                for line in path.read_bytes().splitlines():
                    with contextlib.suppress(ValueError, TypeError):  # cut short by a crash, or by hand
                        told: dict[str, Any] = json.loads(line)
                        self.entries.append(Entry(**{k: v for k, v in told.items() if k in _NAMES}))

    def write(self, entries: list[Entry]) -> None:
        """Append, and have it on the disk.

        Raises:
            OSError: it can't be written.
        """
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        lines = b"".join(json.dumps(entry.told()).encode() + b"\n" for entry in entries)
        descriptor = os.open(self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                lines = b"\n" + lines  # a crash cut the last line short; only that one is lost
            os.write(descriptor, lines)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if size + len(lines) > MAX_FILE:
            for number in range(KEPT_FILES, 0, -1):
                with contextlib.suppress(FileNotFoundError):
                    before = _aside(self.path, number - 1) if number > 1 else self.path
                    before.replace(_aside(self.path, number))


def _aside(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}.{number}")


class Trail:
    """Keeps changes and refusals apart, so that a flood of refusals pushes no change out.

    Args:
        beside: a file whose name theirs begin with; None keeps them in memory only.
        clock: seconds since 1970.
    """

    def __init__(self, beside: Path | None, clock: Clock = time.time) -> None:
        self._clock = clock
        self._done = _Book(beside and beside.with_suffix(".trail.jsonl"))
        self._refused = _Book(beside and beside.with_suffix(".refused.jsonl"))
        self._writing = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._tokens, self._refilled = BURST, clock()
        self._left_out = 0
        self.serial = 0  # grows with every entry
        for book in (self._done, self._refused):
            try:
                book.load()
            except OSError as error:
                _log.warning("%s can't be read (%s); the trail begins anew", book.path, error)

    @property
    def changes(self) -> list[Entry]:
        """What was changed, the newest first."""
        return list(reversed(self._done.entries))

    @property
    def refusals(self) -> list[Entry]:
        """Who was refused what, the newest first."""
        return list(reversed(self._refused.entries))

    def now(self) -> int:
        """Milliseconds since 1970, as entries have it."""
        return int(self._clock() * 1000)

    def done(self, entry: Entry) -> None:
        """Record a change; `written` tells when it is on the disk."""
        self._add(self._done, entry)

    def refused(self, entry: Entry) -> None:
        """Record an attempt, unless there are too many."""
        now = self._clock()
        self._tokens = min(BURST, self._tokens + max(0.0, now - self._refilled) * PER_SECOND)
        self._refilled = now
        if self._tokens < 1:
            self._left_out += 1
            return
        self._tokens -= 1
        if self._left_out:
            entry = replace(entry, left_out=self._left_out)
            self._left_out = 0
        self._add(self._refused, entry)

    async def written(self) -> None:
        """Wait until all that was recorded is on the disk; a broken one is told of, and stops nobody."""
        await asyncio.shield(self._begin())  # who waits may leave; what is being written must not

    def _begin(self) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(self._write(), name="trail")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _write(self) -> None:
        async with self._writing:
            for book in (self._done, self._refused):
                entries, book.waiting = book.waiting, []
                if not entries:
                    continue
                try:
                    await asyncio.to_thread(book.write, entries)
                except OSError as error:
                    _log.error(
                        "%s can't be written (%s): %d entries are lost", book.path, error, len(entries)
                    )

    def _add(self, book: _Book, entry: Entry) -> None:
        book.entries.append(entry)
        book.waiting.append(entry)
        self.serial += 1
        with contextlib.suppress(RuntimeError):  # no loop yet: the first that waits writes it
            self._begin()
