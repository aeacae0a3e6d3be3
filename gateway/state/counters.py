"""Where counters stand: in a dictionary of this process, or in a table that the workers of a host share."""

from __future__ import annotations

import hashlib
import mmap
import os
import secrets
import struct
from typing import Final, Protocol

from gateway.state.algorithms import NEW, State
from gateway.state.memory_file import open_memory
from gateway.state.shared_lock import SIZE as LOCK_SIZE
from gateway.state.shared_lock import SharedLock

MAX_KEYS: Final = 80_000  # counters of one process, some 350 bytes each
SLOTS: Final = 1 << 18  # counters of a host, 64 bytes each, none of it taken before it is used
WAYS: Final = 8  # slots in which one counter may stand: finding it reads these, and no others
REMEMBERED: Final = 1 << 15  # places of counters that a worker needs not look for; then it begins anew

_SLOT: Final = struct.Struct("8q")
_BUCKET: Final = _SLOT.size * WAYS
_DIGESTS: Final = struct.Struct("q56x" * WAYS)  # of a bucket's slots
_ENDS: Final = struct.Struct("8xq48x" * WAYS)  # of the same
_DIGEST: Final = struct.Struct("<q")
_READ: Final = _SLOT.unpack_from
_WRITE: Final = _SLOT.pack_into
# What of a slot changes: all but its digest and its place.
_WRITE_BETWEEN: Final = struct.Struct("6q").pack_into
_AFTER_DIGEST: Final = 8  # bytes
# Of the digests: nobody can choose names that meet in one bucket.
_KEY: Final = slice(LOCK_SIZE, LOCK_SIZE + 16)
_RETURNED: Final = struct.Struct("=q")
_RETURNED_AT: Final = LOCK_SIZE + 16
_HEADER: Final = 4096  # bytes: the lock, the key, the mark of a return


class Counters(Protocol):
    """States by the names of their counters, in bounded memory."""

    __slots__ = ()

    @property
    def lock(self) -> SharedLock | None:
        """To be held meanwhile; None when nobody else counts here."""
        ...

    @property
    def returned(self) -> int:
        """Changes when somebody who counts here has found the shared store again."""
        ...

    @returned.setter
    def returned(self, mark: int) -> None: ...

    def get(self, name: str) -> State | None:
        """A counter's state, if it is at hand."""
        ...

    def put(self, name: str, state: State) -> None:
        """Keep a state that `get` or `find` gave, changed."""
        ...

    def find(self, name: str, now: int, until: int) -> State:
        """As `get`, but looks everywhere, and makes what isn't there.

        Args:
            name: the counter's.
            now: microseconds.
            until: what is made stays at least so long, if there is room.
        """
        ...

    def __len__(self) -> int:
        """Counters kept."""
        ...


class OwnCounters(Counters):
    """Counters of this process. The longest unused go first.

    Two generations: when the new one is full, the old one, unused since, is dropped. That costs a used
    counter one look-up, where a strict order of use would cost each request a write.
    """

    __slots__ = ("_half", "_new", "_old", "_returned")

    def __init__(self, most: int = MAX_KEYS) -> None:
        self._half = max(1, most // 2)
        self._new: dict[str, State] = {}
        self._old: dict[str, State] = {}
        self._returned = 0

    def __len__(self) -> int:
        return len(self._new) + len(self._old)

    @property
    def lock(self) -> None:
        """Nobody else counts here."""
        return None

    @property
    def returned(self) -> int:
        """See Counters."""
        return self._returned

    @returned.setter
    def returned(self, mark: int) -> None:
        self._returned = mark

    def get(self, name: str) -> State | None:
        """See Counters."""
        return self._new.get(name)

    def put(self, name: str, state: State) -> None:
        """See Counters."""
        self._new[name] = state

    def find(self, name: str, now: int, until: int) -> State:  # noqa: ARG002 - as in Counters
        """See Counters."""
        state = self._new.get(name)
        if state is None:
            if len(self._new) >= self._half:
                self._old = self._new.copy()
                self._new.clear()
            state = self._old.pop(name, NEW)
            self._new[name] = state
        return state


class _Place:
    """Where a counter was found; the slot may be another's by now."""

    __slots__ = ("at", "digest")

    def __init__(self, at: int, digest: int) -> None:
        self.at = at
        self.digest = digest


class SharedCounters(Counters):
    """Counters in memory that the workers of a host share, and that stays when one of them dies.

    A set-associative table of fixed size, as in a processor's cache. A counter that is whole again is as good
    as none, and its slot is free. When all ways are taken, the one that would be whole first makes room: the
    least of the count that can be lost. Names stand in it as digests of 64 bits under a random key, so two
    in use are taken for one with a chance of 2⁻⁶⁴ for each pair.

    Args:
        fd: a file of `shared_memory`.
        create: nobody has mapped it before.

    Raises:
        OSError: it can't be mapped, or this system has no lock for it.
    """

    def __init__(self, fd: int, *, create: bool = False) -> None:
        memory = mmap.mmap(fd, os.fstat(fd).st_size)
        self._lock = SharedLock(memory, 0, create=create)
        self._memory = memoryview(memory)  # read through it, a slot costs two thirds
        if create:
            self._memory[_KEY] = secrets.token_bytes(16)
        # Copied for each name, for a third of what it costs to begin anew.
        self._keyed = hashlib.blake2b(digest_size=_DIGEST.size, key=bytes(self._memory[_KEY]))
        self._buckets = (len(self._memory) - _HEADER) // _BUCKET
        self._places: dict[str, _Place] = {}

    def __len__(self) -> int:
        return sum(digest != 0 for digest, *_ in _SLOT.iter_unpack(self._memory[_HEADER:]))

    @property
    def lock(self) -> SharedLock:
        """See Counters."""
        return self._lock

    def get(self, name: str) -> State | None:
        """See Counters."""
        place = self._places.get(name)
        if place is None:
            return None
        state: State = _READ(self._memory, place.at)
        return state if state[0] == place.digest else None

    def put(self, name: str, state: State) -> None:  # noqa: ARG002 - as in Counters
        """See Counters."""
        at = state[7] + _AFTER_DIGEST  # a star instead of what follows would cost as much again
        _WRITE_BETWEEN(self._memory, at, state[1], state[2], state[3], state[4], state[5], state[6])

    @property
    def returned(self) -> int:
        """See Counters."""
        return int(_RETURNED.unpack_from(self._memory, _RETURNED_AT)[0])

    @returned.setter
    def returned(self, mark: int) -> None:
        _RETURNED.pack_into(self._memory, _RETURNED_AT, mark)

    def find(self, name: str, now: int, until: int) -> State:
        """See Counters."""
        place = self._places.get(name)
        digest = self._digest(name) if place is None else place.digest
        bucket = _HEADER + digest % self._buckets * _BUCKET
        if len(self._places) >= REMEMBERED:
            self._places.clear()
        digests = _DIGESTS.unpack_from(self._memory, bucket)
        if digest in digests:
            at = bucket + digests.index(digest) * _SLOT.size
            self._places[name] = _Place(at, digest)
            found: State = _READ(self._memory, at)
            return found
        ends = _ENDS.unpack_from(self._memory, bucket)
        whole = [0 if end <= now else end for end in ends]
        at = bucket + whole.index(min(whole)) * _SLOT.size
        self._places[name] = _Place(at, digest)
        state = (digest, until, 0, 0, 0, 0, 0, at)
        _WRITE(self._memory, at, *state)
        return state

    def _digest(self, name: str) -> int:
        hashing = self._keyed.copy()
        hashing.update(name.encode())
        (digest,) = _DIGEST.unpack(hashing.digest())
        return int(digest) or 1  # 0 is an empty slot


def shared_memory(slots: int = SLOTS) -> int:
    """A file for counters that the workers of this host share; it is gone with the last who has it open.

    Args:
        slots: how many counters fit; a multiple of WAYS.

    Returns:
        its descriptor; -1 where the system lacks what it takes (robust mutexes).
    """
    try:
        fd = open_memory("tidegate-limits")
    except OSError:
        return -1
    try:
        os.ftruncate(fd, _HEADER + slots * _SLOT.size)
        SharedCounters(fd, create=True)
    except OSError:
        os.close(fd)
        return -1
    return fd
