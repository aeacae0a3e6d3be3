"""A lock in shared memory that outlives its holder: who dies holding it leaves it to the next."""

from __future__ import annotations

import ctypes
import errno
import mmap
import time

SIZE = 128  # bytes set aside; glibc's mutex takes 40 to 48, musl's 40
PATIENCE = 0.1  # seconds; a holder needs 5 µs, but the kernel may take its core away for some slices

_SHARED = 1  # PTHREAD_PROCESS_SHARED, in glibc and musl
_ROBUST = 1  # PTHREAD_MUTEX_ROBUST, in both


class _Timespec(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


class SharedLock:
    """A robust process-shared mutex (POSIX.1-2008, pthread_mutexattr_setrobust).

    Uncontended it costs no system call. A worker that is killed in its critical section is noticed by the
    kernel, and the next one gets the lock; one that is stopped there holds the others up for `PATIENCE` once,
    after which they don't wait again until the lock was free.

    Args:
        memory: where it lives; every process maps the same.
        at: offset of its `SIZE` bytes, a multiple of 64.
        create: make it; done once, before anybody else maps it.

    Raises:
        OSError: this system has no such lock.

    Attributes:
        attempt: takes it if nobody has it; returns 0, or what `acquire` wants to know. To be given `address`,
            as `release` is: straight into C they cost half of what methods would.
        release: gives it back.
        stuck: the last one to wait had to give up.
    """

    __slots__ = ("_anchor", "_timed", "_whole_again", "address", "attempt", "release", "stuck")

    def __init__(self, memory: mmap.mmap, at: int, *, create: bool = False) -> None:
        # PyDLL keeps the interpreter's own lock: these two never wait. The one that may wait lets go of it.
        quick, slow = ctypes.PyDLL(None), ctypes.CDLL(None)
        self._anchor = ctypes.c_char.from_buffer(memory, at)  # keeps the mapping where it is
        self.address = ctypes.c_void_p(ctypes.addressof(self._anchor))
        self.stuck = False
        try:
            self.attempt = quick.pthread_mutex_trylock
            self.release = quick.pthread_mutex_unlock
            self._whole_again = quick.pthread_mutex_consistent
            self._timed = slow.pthread_mutex_timedlock
            if create:
                self._create(quick)
        except AttributeError as error:
            raise OSError(errno.ENOSYS, f"no robust mutex here: {error}") from None

    def _create(self, pthread: ctypes.PyDLL) -> None:
        attributes = ctypes.create_string_buffer(64)
        for code in (
            pthread.pthread_mutexattr_init(attributes),
            pthread.pthread_mutexattr_setpshared(attributes, _SHARED),
            pthread.pthread_mutexattr_setrobust(attributes, _ROBUST),
            pthread.pthread_mutex_init(self.address, attributes),
        ):
            if code:
                raise OSError(code, "no process-shared robust mutex here")

    def acquire(self, code: int) -> bool:
        """Take it, within `PATIENCE`, after an attempt that returned `code`; False: another holds it."""
        if code == errno.EBUSY and not self.stuck:
            whole, part = divmod(time.time() + PATIENCE, 1.0)
            code = self._timed(self.address, ctypes.byref(_Timespec(int(whole), int(part * 1e9))))
        if code == errno.EOWNERDEAD:
            # Counters are written one at a time: at most the dead one's last request is half counted.
            self._whole_again(self.address)
        elif code:
            self.stuck = True
            return False
        self.stuck = False
        return True
