"""A process that has imported what a worker needs, and forks one when asked, in milliseconds.

It has no loop, no thread, no connection and no configuration, so its forks are as clean as new processes, and
share its memory. It is forked itself by the master, as the first thing: what master and workers need is
imported once, not by each of them and by each worker that replaces one.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

_MOST = 8  # descriptors of one request: each has a bit of a byte


def start(work: Callable[..., int]) -> tuple[int, socket.socket]:
    """Fork a server; its process id, and the line to it. To be called before there is a loop or a thread.

    Each of its workers does `work` with its descriptors, and exits as that says.

    Raises:
        OSError: the system has no memory, process or descriptor left.
    """
    gc.freeze()  # a look for cycles would write to what is shared, and so copy it
    ours, theirs = socket.socketpair()
    with theirs:
        try:
            pid = os.fork()
        except OSError:
            ours.close()
            raise
        if pid == 0:
            ours.close()
            with Path(os.devnull).open("rb") as nothing:
                os.dup2(nothing.fileno(), 0)
            sys.exit(serve(theirs, work))
    return pid, ours


def ask(line: socket.socket, fds: Sequence[int]) -> None:
    """Ask the fork server at the other end for a worker with these descriptors; -1 for what it goes without.

    Raises:
        OSError: it is gone.
    """
    given = sum(1 << place for place, fd in enumerate(fds) if fd >= 0)
    socket.send_fds(line, [bytes((len(fds), given))], [fd for fd in fds if fd >= 0])


def serve(line: socket.socket, work: Callable[..., int]) -> int:
    """Fork a worker for each request, say how each ends, and leave when the master and they are gone.

    Says on the line, one JSON object a line: {"born": pid} or {"unborn": errno} for each request in turn;
    {"ended": pid, "code": exit code, or minus the number of the signal that ended it}.

    Returns:
        the exit code: of a worker what `work` says of its descriptors, of the server 0.
    """
    _name("tidegate-forks")
    # A terminal's signals reach the whole group, a service manager's too; only the master may act on them.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
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
                    break
                for fd in fds:
                    os.close(fd)
        else:
            return 0
    return work(*_places(asked, fds))


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
    _name("tidegate-worker")
    return True


def _name(name: str) -> None:
    """How ps and top call this process, where that can be said; up to 15 characters."""
    with contextlib.suppress(OSError):
        Path("/proc/self/comm").write_text(name, encoding="ascii")


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
