"""One JSON line per request, written by a thread, so that no request ever waits on a disk."""

from __future__ import annotations

import logging
import os
import select
import sys
import threading
import time
from collections import deque
from datetime import UTC, datetime
from functools import lru_cache
from json.encoder import encode_basestring_ascii as quoted
from pathlib import Path
from typing import Final

from gateway.digits import decimal, digits, three
from gateway.exchange import Exchange

BATCH: Final = 1000  # lines per system call
POLL_SECONDS: Final = 0.1  # the longest that a line waits to be written
ROTATION_SECONDS: Final = 1.0  # between two looks at whether the file was moved away
CLOSE_SECONDS: Final = 2.0  # given to a slow disk at the end
MAX_TEXT: Final = 1024  # characters of a path or user in a line

log = logging.getLogger(__name__)


def record(
    exchange: Exchange, status: int, bytes_out: int, seconds: float, now: float | None = None
) -> bytes:
    """The line of one request, ending in a newline.

    All text is escaped to ASCII, so that nobody can forge a line. Queries, cookies and authorization
    are left out: they hold tokens.

    Args:
        exchange: the request.
        status: as answered.
        bytes_out: of the body.
        seconds: from the header to the last byte.
        now: seconds since the epoch; the clock's when left out.
    """
    if now is None:
        now = time.time()
    second = int(now)
    upstream, user, path = exchange.upstream_seconds, exchange.user, exchange.path
    return (
        b'{"time":"%b.%b+00:00","request_id":"%b","address":%b,"user":%b,%b,"path":%b'
        b',"bytes_in":%b,"bytes_out":%b,"seconds":%b,"upstream_seconds":%b}\n'
    ) % (
        _stamp(second),
        three(int((now - second) * 1000)),
        exchange.request_id,
        _text(exchange.address),
        b"null" if user is None else _text(user),
        _answered(exchange.method, exchange.route, status, exchange.outcome),
        quoted(path.partition("?")[0][:MAX_TEXT]).encode() if "?" in path else _text(path),
        digits(exchange.body_seen),
        digits(bytes_out),
        decimal(seconds),
        b"null" if upstream is None else decimal(upstream),
    )


@lru_cache(maxsize=4)
def _stamp(second: int) -> bytes:
    return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%dT%H:%M:%S").encode()


@lru_cache(maxsize=1024)
def _text(text: str) -> bytes:
    return quoted(text[:MAX_TEXT]).encode()


@lru_cache(maxsize=1024)
def _answered(method: str, route: str, status: int, outcome: str) -> bytes:
    """What is the same for many requests."""
    said = quoted(method[:MAX_TEXT]), quoted(route), status, quoted(outcome)
    return '"method":{},"route":{},"status":{},"outcome":{}'.format(*said).encode()


class AccessLog:
    """A bounded buffer and the thread that empties it into a file.

    When the disk is slow the buffer fills and further lines are dropped and counted; when it is broken
    they are dropped, counted and reported once. Rotation is noticed by itself, or announced by `reopen`.
    To be made in the process that writes: threads do not survive a fork.

    Args:
        path: the file to append to, or "-" for standard output.
        buffer: lines held while the disk is slow.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path | str, buffer: int = 10_000) -> None:
        self._path = None if str(path) == "-" else Path(path)
        self._buffer = buffer
        self._lines: deque[bytes] = deque()
        self._dropped_full = 0  # counted by those who write
        self._dropped_broken = 0  # counted by the thread
        self._wake = threading.Event()
        self._closing = False
        self._reopen = False
        self._broken = False  # reported already
        self._cut = False  # the last line in the file is not whole
        self._checked = time.monotonic()  # when rotation was last looked for
        self._fd = self._open()
        self._writer = threading.Thread(target=self._run, name="access-log", daemon=True)
        self._writer.start()

    @property
    def dropped(self) -> int:
        """Lines lost so far to a full buffer or a broken disk."""
        return self._dropped_full + self._dropped_broken

    def write(self, line: bytes) -> None:
        """Hand over a line, newline included. Never waits, never raises."""
        held = len(self._lines)
        if held >= self._buffer or self._closing:
            self._dropped_full += 1
            return
        self._lines.append(line)
        if held == self._buffer >> 1:  # a burst; otherwise the thread comes by in time
            self._wake.set()

    def reopen(self) -> None:
        """The file was rotated (SIGHUP): open it anew before the next line."""
        self._reopen = True
        self._wake.set()

    def close(self, within: float = CLOSE_SECONDS) -> None:
        """Write what is held and end; a disk that hangs longer than `within` seconds is left behind."""
        self._closing = True
        self._wake.set()
        self._writer.join(within)

    # ---- the thread --------------------------------------------------------------------------

    def _run(self) -> None:
        while True:
            closing = self._closing  # read before draining, so that nothing written before it is missed
            try:
                self._rotate()
                while self._lines:
                    self._write_batch()
            except OSError as error:
                self._fail(error)
            if closing:
                self._dropped_broken += len(self._lines)
                break
            self._wake.wait(POLL_SECONDS)
            self._wake.clear()
        self._close_file()

    def _write_batch(self) -> None:
        batch = [self._lines.popleft() for _ in range(min(BATCH, len(self._lines)))]
        lead = b"\n" if self._cut else b""  # so that what follows does not join a line cut short
        rest = memoryview(lead + b"".join(batch))
        left = len(rest)
        try:
            if self._fd < 0:
                self._fd = self._open()
            while left:
                left -= self._write_some(rest[-left:])
        except OSError:
            written = bytes(rest[: len(rest) - left])
            if written:
                self._dropped_broken += len(batch) + len(lead) - written.count(b"\n")
                self._cut = not written.endswith(b"\n")
            else:
                self._dropped_broken += len(batch)
            raise
        self._cut = self._broken = False

    def _write_some(self, data: memoryview) -> int:
        try:
            return os.write(self._fd, data)
        except BlockingIOError:  # standard output may be somebody's non-blocking pipe
            ready = select.poll()
            ready.register(self._fd, select.POLLOUT)
            if not ready.poll(1000) and self._closing:
                raise
            return 0

    def _fail(self, error: OSError) -> None:
        if not self._broken:  # once, else a full disk's log fills another disk
            log.error(
                "access log %s: %s; lines are dropped until it can be written again",
                self._path or "standard output",
                error.strerror or error,
            )
        self._broken = True
        self._close_file()

    # ---- the file ----------------------------------------------------------------------------

    def _open(self) -> int:
        if self._path is None:
            return os.dup(sys.__stdout__.fileno() if sys.__stdout__ is not None else 1)
        # One write at the file's end per batch: workers that share a file don't cut each other's lines.
        return os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def _rotate(self) -> None:
        now = time.monotonic()
        if not self._reopen and now - self._checked < ROTATION_SECONDS:
            return
        announced, self._reopen = self._reopen, False
        self._checked = now
        if self._path is None or self._fd < 0 or not (announced or self._moved(self._path)):
            return
        self._close_file()
        self._fd = self._open()
        self._cut = False

    def _moved(self, path: Path) -> bool:
        try:
            there = path.stat()
        except FileNotFoundError:
            return True
        ours = os.fstat(self._fd)
        return (there.st_dev, there.st_ino) != (ours.st_dev, ours.st_ino)

    def _close_file(self) -> None:
        fd, self._fd = self._fd, -1
        if fd >= 0:
            try:
                os.close(fd)
            except OSError as error:  # a network disk reports its losses here
                log.warning("access log %s: %s", self._path, error.strerror)
