"""A process that has imported what a worker needs, and forks one when asked, in milliseconds.

It has no loop, no thread, no connection and no configuration, so its forks are as clean as new processes, and
share its memory. What is imported here is imported once, not by each worker and each that replaces one.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_MOST = 8  # descriptors of one request: each has a bit of a byte


def ask(line: socket.socket, fds: Sequence[int]) -> None:
    """Ask the fork server at the other end for a worker with these descriptors; -1 for what it goes without.

    Raises:
        OSError: it is gone.
    """
    given = sum(1 << place for place, fd in enumerate(fds) if fd >= 0)
    socket.send_fds(line, [bytes((len(fds), given))], [fd for fd in fds if fd >= 0])


def serve(line: socket.socket) -> tuple[int, ...] | None:
    """Fork a worker for each request, say how each ends, and leave when the master and they are gone.

    Says on the line, one JSON object a line: {"born": pid} or {"unborn": errno} for each request in turn;
    {"ended": pid, "code": exit code, or minus the number of the signal that ended it}.

    Returns:
        in each worker the descriptors of its request; None in the server, at the end.
    """
    # A terminal's signals reach the whole group, a service manager's too; only the master may act on them.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    gc.collect()
    gc.freeze()  # a look for cycles would write to what is shared, and so copy it
    workers: set[int] = set()
    with contextlib.ExitStack() as ours:
        selector = ours.enter_context(selectors.DefaultSelector())
        died, tell = (ours.enter_context(end) for end in socket.socketpair())
        died.setblocking(False)
        tell.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)  # only with a handler is the descriptor told
        signal.set_wakeup_fd(tell.fileno(), warn_on_full_buffer=False)
        selector.register(died, selectors.EVENT_READ)
        selector.register(line, selectors.EVENT_READ)
        while workers or line in selector.get_map():
            ready = {key.fileobj for key, _ in selector.select()}
            if died in ready:
                died.recv(4096)
                _bury(workers, line)
            if line in ready:
                asked, fds, _, _ = socket.recv_fds(line, 2, _MOST)
                if not asked:
                    selector.unregister(line)
                    continue
                if _forked(workers, line):
                    line.close()
                    return _places(asked, fds)
                for fd in fds:
                    os.close(fd)
    return None


def _forked(workers: set[int], line: socket.socket) -> bool:
    """Fork; whether this is the new worker, made a process like any other."""
    try:
        pid = os.fork()
    except OSError as error:
        _say(line, {"unborn": error.errno})
        return False
    if pid:
        workers.add(pid)
        _say(line, {"born": pid})
        return False
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    with contextlib.suppress(OSError):  # its name in ps and top, where there is such a file
        Path("/proc/self/comm").write_text("tidegate-worker", encoding="ascii")
    return True


def _places(asked: bytes, fds: Sequence[int]) -> tuple[int, ...]:
    many, given = asked
    left = iter(fds)
    return tuple(next(left) if given >> place & 1 else -1 for place in range(many))


def _bury(workers: set[int], line: socket.socket) -> None:
    """Say how those workers that have ended did."""
    for pid in tuple(workers):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            workers.discard(pid)
            _say(line, {"ended": pid, "code": os.waitstatus_to_exitcode(status)})


def _say(line: socket.socket, message: Mapping[str, Any]) -> None:
    with contextlib.suppress(OSError):  # the master may be gone
        line.sendall(json.dumps(message).encode() + b"\n")
