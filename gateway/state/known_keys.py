"""Fingerprints of the requests that this host has passed on, in memory that its workers share.

Kept so that a repeated request (same Idempotency-Key) can be told from a new one, whichever worker it comes
to. Each worker writes a part of its own and reads all, so nothing needs a lock: a fingerprint is one aligned
word, and stands there before the request is passed on. In a file it outlives every process of the gateway.
(Counters of limits are another table: they need its lock, are of no use after a restart, and must not make
room for keys.)
"""

from __future__ import annotations

import logging
import mmap
import os
import struct
import time
from pathlib import Path

from gateway.exchange import Clock
from gateway.state.memory_file import open_memory

_log = logging.getLogger("gateway")
KEEP = 3600.0  # seconds for which a key is known
SETS = 1 << 16  # of a part; a fingerprint has its place in one of them
WAYS = 8  # places of a set, so half a million keys for each worker
_SET = struct.Struct(f"@{WAYS}Q{WAYS}I")  # the marks, then when each was made, seconds since 1970
PART = SETS * _SET.size  # bytes; pages that hold nothing cost nothing
_DONE = 1  # lowest bit of a mark: some upstream has accepted a request with this key


def open_table(path: Path | None, parts: int) -> int:
    """A file descriptor of a table with so many parts at least; workers inherit it.

    Args:
        path: where it outlives the gateway; None keeps it in memory only.
        parts: one for each worker.

    Raises:
        OSError: it can't be made there.
    """
    number = open_memory("tidegate-keys", path)
    try:
        size = max(os.fstat(number).st_size // PART, parts) * PART
        os.ftruncate(number, size)
        if path is not None:
            os.posix_fallocate(number, 0, size)  # a full disk is found here, and not by SIGBUS in a worker
    except OSError:
        os.close(number)
        raise
    return number


def open_beside(state_file: Path | None, workers: int) -> int:
    """The table, in a file beside the switches so that both outlive a restart; in memory where that fails."""
    try:
        return open_table(state_file and state_file.with_suffix(".keys"), workers)
    except OSError as error:
        _log.warning("%s can't be written (%s); repeats are not known over a restart", state_file, error)
        return open_table(None, workers)


class KnownKeys:
    """One worker's view of the table.

    Args:
        number: the table's file descriptor; None makes a table of this process's own.
        part: which part this worker writes.
        clock: seconds since 1970.
    """

    def __init__(self, number: int | None = None, part: int = 0, clock: Clock = time.time) -> None:
        size = PART if number is None else os.fstat(number).st_size
        self._memory = mmap.mmap(-1 if number is None else number, size)
        self._words = memoryview(self._memory).cast("Q")
        self._stamps = memoryview(self._memory).cast("I")
        self._parts = range(0, size, PART)
        self._own = part * PART
        self._clock = clock

    def knows(self, key: int) -> bool:
        """Whether a request with this fingerprint was passed on, and not refused since."""
        offset, fresh = key % SETS * _SET.size, self._clock() - KEEP
        mark = key << 1
        for part in self._parts:
            found = _SET.unpack_from(self._memory, part + offset)
            for way in range(WAYS):
                if found[way] | _DONE == mark | _DONE and found[WAYS + way] > fresh:
                    return True
        return False

    def begin(self, key: int) -> bool:
        """Note that a request with this fingerprint is about to be passed on; whether that is new."""
        if self.knows(key):
            return False
        self._write(key, done=False)
        return True

    def accepted(self, key: int) -> None:
        """It was accepted: nobody else's refusal may make us forget it."""
        self._write(key, done=True)

    def refused(self, key: int) -> None:
        """It was refused, and this worker was the first to ask: it need not be known."""
        place = self._find(key)
        if place is not None and not self._words[place] & _DONE:
            self._words[place] = 0

    def close(self) -> None:
        """Let go of the memory."""
        self._words.release()
        self._stamps.release()
        self._memory.close()

    def _find(self, key: int) -> int | None:
        """Which word of our part holds it."""
        first = (self._own + key % SETS * _SET.size) // 8
        for place in range(first, first + WAYS):
            if self._words[place] | _DONE == key << 1 | _DONE:
                return place
        return None

    def _write(self, key: int, *, done: bool) -> None:
        first = (self._own + key % SETS * _SET.size) // 8
        stamps = (first + WAYS) * 2
        place = self._find(key)
        if place is None:
            # An empty place, else the oldest: what is forgotten so was asked half a million keys ago.
            way = min(range(WAYS), key=lambda way: self._words[first + way] and self._stamps[stamps + way])
        else:
            way = place - first
        # The stamp first: a mark with the stamp of what stood there before might look out of date.
        self._stamps[stamps + way] = int(self._clock())
        self._words[first + way] = key << 1 | done
