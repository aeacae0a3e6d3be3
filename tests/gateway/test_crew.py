"""The workers of a host: no place among them stays empty."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Any

from gateway.channel import Channel, Message
from gateway.crew import Crew
from gateway.forks import Child, Forks
from gateway.totals import Totals


class Hired(Forks):
    """Workers whose part the test plays: it has their ends of the lines."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[socket.socket] = []

    async def make(self, fds: Sequence[int]) -> Child:
        self.lines.append(socket.socket(fileno=os.dup(fds[1])))
        child = Child(os.getpid())
        child.tell(0)  # has ended, so nobody kills it
        return child


async def test_what_nobody_foresaw_leaves_no_place_empty(until: Any, caplog: Any) -> None:
    """What a worker says breaks something in the master: that is logged, and another takes its place."""

    def stumble(_: Message) -> bool:
        raise KeyError("what nobody foresaw")

    forks = Hired()
    with socket.socket() as listener:
        start = {"type": "start", "version": 1, "serial": 1}
        crew = Crew(listener, 1, forks, lambda: start, Totals(), -3.0, ())
        crew.on_shut = stumble
        crew.start()
        await until(lambda: crew.members)
        worker = await Channel.over(forks.lines[0])
        worker.send({"type": "shut", "shut": {}})

        await until(lambda: len(forks.lines) == 2 and crew.members)

        assert await worker.receive() == start | {"part": 0}
        assert await worker.receive() is None  # it is let go
        await crew.stop()
        worker.close()
        forks.lines[1].close()
    assert "KeyError" in caplog.text
