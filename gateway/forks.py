"""Workers as the master has them: forked by a process of their own, waited for, killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import subprocess
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
    """Makes workers by a fork server, which is started when it is needed, and again should it die."""

    def __init__(self) -> None:
        self._line: socket.socket | None = None  # ours, to the server
        self._server: subprocess.Popen[bytes] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._asked: deque[asyncio.Future[Child]] = deque()
        self._children: dict[int, Child] = {}

    async def make(self, fds: Sequence[int]) -> Child:
        """A new worker that has these descriptors; -1 stands for one that it goes without.

        Raises:
            OSError: the system has no memory, process or descriptor left.
        """
        if self._line is None:
            self._start()
        assert self._line is not None  # noqa: S101 - just made
        assert self._reading is not None  # noqa: S101 - the same
        born: asyncio.Future[Child] = asyncio.get_running_loop().create_future()
        try:
            ask(self._line, fds)
        except ConnectionError:
            await asyncio.shield(self._reading)  # it has just died; whoever asks next asks another
            raise
        self._asked.append(born)
        return await born

    async def aclose(self) -> None:
        """Let the server go; it leaves after the last worker."""
        if self._line is None or self._server is None or self._reading is None:
            return
        self._line.shutdown(socket.SHUT_WR)
        await asyncio.wait([self._reading], timeout=_LEAVE)
        self._server.kill()
        await self._reading

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            self._server = subprocess.Popen(
                [sys.executable, "-m", "gateway", "workers", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._line = ours
        self._reading = asyncio.create_task(self._read(ours, self._server), name="forks")

    async def _read(self, line: socket.socket, server: subprocess.Popen[bytes]) -> None:
        """Hear what the server says, to its end."""
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
        self._line = None
        server.wait()
        for born in self._asked:
            if not born.done():
                born.set_exception(OSError("the fork server is gone"))
        self._asked.clear()
        for child in self._children.values():
            child.tell(None)
        self._children.clear()
