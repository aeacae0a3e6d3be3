"""Workers as the master has them: forked by a process of their own, waited for, killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import Sequence

from gateway.channel import Channel
from gateway.fork_server import ask

_LEAVE = 1.0  # seconds that the fork server may take to leave


class Child:
    """A process that the fork server has made.

    Attributes:
        pid: its process id.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self._told: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()

    @property
    def returncode(self) -> int | None:
        """Its exit code, or minus the signal that ended it; None while it runs, or when nobody can tell."""
        return self._told.result() if self._told.done() else None

    async def wait(self) -> int | None:
        """Wait until it has ended; how, as `returncode`. None if its fork server is gone."""
        return await asyncio.shield(self._told)

    def kill(self) -> None:
        """SIGKILL, if it still runs."""
        if self.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def tell(self, code: int | None) -> None:
        """How it ended; None when the fork server is gone and will not say."""
        if not self._told.done():
            self._told.set_result(code)


class Forks:
    """Makes workers by a fork server; should that die, by another one.

    Args:
        server: process id of one that runs, and the line to it; one is started when it is needed if left out.
    """

    def __init__(self, server: tuple[int, socket.socket] | None = None) -> None:
        self._server = server
        self._reading: asyncio.Task[None] | None = None
        self._asked: deque[asyncio.Future[Child]] = deque()
        self._children: dict[int, Child] = {}

    @property
    def living(self) -> set[Child]:
        """Those that have not ended, as far as the server that made them has said."""
        return set(self._children.values())

    async def make(self, fds: Sequence[int]) -> Child:
        """A new worker that has these descriptors; -1 stands for one that it goes without.

        Raises:
            OSError: the system has no memory, process or descriptor left.
        """
        if self._server is None:
            self._server = _spawn()
        pid, line = self._server
        if self._reading is None:
            self._reading = asyncio.create_task(self._read(pid, line), name="forks")
        born: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        try:
            ask(line, fds)
        except ConnectionError:
            await asyncio.shield(self._reading)  # it has just died; whoever asks next asks another
            raise
        self._asked.append(born)
        return await born

    async def aclose(self) -> None:
        """Let the server go; it leaves after the last worker."""
        if self._server is None or self._reading is None:
            self.close()
            return
        pid, line = self._server
        reading = self._reading
        line.shutdown(socket.SHUT_WR)
        await asyncio.wait([reading], timeout=_LEAVE)
        if not reading.done():
            os.kill(pid, signal.SIGKILL)
        await reading

    def close(self) -> None:
        """Let a server go that was never asked."""
        if self._server is not None:
            pid, line = self._server
            self._server = None
            line.close()
            os.waitpid(pid, 0)

    async def _read(self, pid: int, line: socket.socket) -> None:
        """Hear what the server says, to its end."""
        line.setblocking(False)
        channel = await Channel.over(line)
        while (message := await channel.receive()) is not None:
            if "ended" in message:
                self._children.pop(message["ended"]).tell(message["code"])
                continue
            born = self._asked.popleft()
            if "unborn" in message:
                number = message["unborn"]
                if not born.done():
                    born.set_exception(OSError(number, os.strerror(number)))
                continue
            child = self._children[message["born"]] = Child(message["born"])
            if not born.done():
                born.set_result(child)
        channel.close()
        os.waitpid(pid, 0)  # noqa: ASYNC222 - it has hung up: it is at its end
        self._server = self._reading = None
        for born in self._asked:
            if not born.done():
                born.set_exception(OSError("the fork server is gone"))
        self._asked.clear()
        for child in self._children.values():
            child.tell(None)
        self._children.clear()


def _spawn() -> tuple[int, socket.socket]:
    """A fork server as a program of its own: the master has a loop and threads by now, and can't be forked.

    Raises:
        OSError: it can't be started.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.set_inheritable(True)
        try:
            pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-m", "gateway", "workers", str(theirs.fileno())],
                os.environ,
                file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
            )
        except OSError:
            ours.close()
            raise
    return pid, ours
