"""The workers of a host: no place among them stays empty, each is heard, and none is left at the end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from gateway import crew as crew_module
from gateway.channel import Channel, Message
from gateway.config import Mistake
from gateway.crew import Crew
from gateway.forks import Child, Forks
from gateway.totals import Totals
from tests.waiting import PATIENCE

START = {"type": "start", "version": 1, "serial": 1}


class Played(Child):
    """A process that ends when the test says so, or is killed."""

    def __init__(self) -> None:
        super().__init__(os.getpid())
        self.killed = False

    def kill(self) -> None:
        self.killed = True
        self.tell(-9)


class Hired(Forks):
    """Workers whose part the test plays: it has their ends of the lines.

    Attributes:
        lines: those.
        children: the processes.
        births: how many may be born; the next waits for its permit.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[socket.socket] = []
        self.children: list[Played] = []
        self.births = asyncio.Semaphore(1000)

    @property
    def living(self) -> set[Child]:
        return {child for child in self.children if child.returncode is None}

    async def make(self, fds: Sequence[int]) -> Child:
        self.lines.append(socket.socket(fileno=os.dup(fds[1])))
        await self.births.acquire()
        self.children.append(Played())
        return self.children[-1]


@contextlib.asynccontextmanager
async def hired(forks: Hired, size: int = 1, totals: Totals | None = None) -> AsyncIterator[Crew]:
    """A crew of them, stopped without patience at the end."""
    with socket.socket() as listener:
        crew = Crew(listener, size, forks, lambda: START, totals or Totals(), 0.0, ())
        crew.start()
        try:
            yield crew
        finally:
            crew.drain = -3.0
            await crew.stop()
            for line in forks.lines:
                line.close()


async def goes_on(task: asyncio.Task[None]) -> bool:
    """Whether it is under way still, once all that could go on has had its turns."""
    for _ in range(20):
        await asyncio.sleep(0)
    return not task.done()


async def test_what_nobody_foresaw_leaves_no_place_empty(until: Any, caplog: Any) -> None:
    """What a worker says breaks something in the master: that is logged, and another takes its place."""

    def stumble(_: Message) -> bool:
        raise KeyError("what nobody foresaw")

    forks = Hired()
    async with hired(forks) as crew:
        crew.on_shut = stumble
        await until(lambda: crew.members)
        worker = await Channel.over(forks.lines[0])
        forks.children[0].tell(1)
        worker.send({"type": "shut", "shut": {}})

        await until(lambda: len(forks.lines) == 2 and crew.members)

        assert await worker.receive() == START | {"part": 0}
        assert await worker.receive() is None  # it is let go
        worker.close()
    assert "KeyError" in caplog.text


# ---- its numbers -----------------------------------------------------------------------------


async def serving(crew: Crew, forks: Hired, until: Any) -> list[Channel]:
    """The workers' ends of the lines, once the master has heard that they serve."""
    await until(lambda: len(crew.members) == crew.size)
    workers = [await Channel.over(line) for line in forks.lines]
    for worker in workers:
        assert (await worker.receive() or {})["type"] == "start"
        worker.send({"type": "ready"})
    await until(lambda: crew.ready == crew.size)
    return workers


def numbers(question: Message | None, served: int) -> Message:
    """A worker's answer to a scrape."""
    assert question is not None
    counters = [("tidegate_requests_total", [], served)]
    return question | {
        "type": "metrics",
        "snapshot": {"counters": counters, "histograms": [], "gauges": [], "details": {}},
    }


async def figures(crew: Crew, totals: Totals) -> float:
    """Requests served, as a scrape finds them."""
    await crew.scrape()
    return totals.read().counters["tidegate_requests_total"][()]


async def test_a_scrape_is_answered_by_its_own_answer(until: Any) -> None:
    """Of two under way the second does not take what the worker had said before it was asked."""
    forks, totals = Hired(), Totals()
    async with hired(forks, 1, totals) as crew:
        (worker,) = await serving(crew, forks, until)
        first = asyncio.create_task(figures(crew, totals))
        before = numbers(await worker.receive(), served=1)
        second = asyncio.create_task(figures(crew, totals))
        after = numbers(await worker.receive(), served=2)

        worker.send(before)
        assert await first == 1
        worker.send(after)
        assert await second == 2
        worker.close()


async def test_a_scrape_does_not_wait_for_a_worker_that_is_gone(
    until: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It dies when it has been asked: those that live have answered, so there is nothing to wait for."""
    monkeypatch.setattr(crew_module, "_ANSWER", 100 * PATIENCE)
    forks, totals = Hired(), Totals()
    async with hired(forks, 2, totals) as crew:
        lives, dies = await serving(crew, forks, until)
        asking = asyncio.create_task(figures(crew, totals))
        lives.send(numbers(await lives.receive(), served=1))
        await dies.receive()
        forks.children[1].tell(-9)
        dies.close()

        async with asyncio.timeout(PATIENCE):
            assert await asking == 1
        lives.close()


# ---- its configuration -----------------------------------------------------------------------


async def test_who_can_not_have_a_configuration_is_not_waited_for(
    until: Any, monkeypatch: pytest.MonkeyPatch, caplog: Any
) -> None:
    """It serves by what it had; that is logged when nobody waits for its word any more."""
    monkeypatch.setattr(crew_module, "_ANSWER", 100 * PATIENCE)
    forks = Hired()
    async with hired(forks, 2) as crew:
        takes, refuses = await serving(crew, forks, until)
        crew.offer("text", 2)
        asking = asyncio.create_task(crew.effect(lambda one: one.version == 2, lambda one: one.refused == 2))
        for worker in (takes, refuses):
            assert await worker.receive() == {"type": "config", "config": "text", "version": 2}
        takes.send({"type": "applied", "version": 2, "mistakes": []})
        refuses.send({"type": "applied", "version": 2, "mistakes": [[7, "access_log.file", "no room"]]})
        async with asyncio.timeout(PATIENCE):
            effect = await asking

        assert (effect.applied, effect.workers) == (1, 2)
        assert [(one.version, one.mistakes) for one in crew.refused(2)] == [
            (1, [Mistake(7, "access_log.file", "no room")])
        ]
        refuses.send({"type": "applied", "version": 1, "mistakes": [[7, "access_log.file", "no room"]]})
        await until(lambda: "keeps configuration 1: config:7: access_log.file: no room" in caplog.text)
        takes.close()
        refuses.close()


# ---- its end ---------------------------------------------------------------------------------


async def test_who_is_born_at_the_end_leaves_before_it_begins(until: Any) -> None:
    """A worker that is being made while the others drain is let go, and the crew waits for that, too."""
    forks = Hired()
    forks.births = asyncio.Semaphore(1)
    async with hired(forks, 2) as crew:
        crew.drain = PATIENCE
        await until(lambda: crew.members and len(forks.lines) == 2)
        old, young = [await Channel.over(line) for line in forks.lines]
        stopping = asyncio.create_task(crew.stop())
        assert (await old.receive() or {})["type"] == "start"
        assert await old.receive() == {"type": "drain"}
        forks.births.release()

        assert await young.receive() is None

        forks.children[0].tell(0)
        old.close()
        await until(lambda: not crew.members)
        assert await goes_on(stopping)
        forks.children[1].tell(1)
        await stopping
        assert not any(child.killed for child in forks.children)
        young.close()


async def test_who_was_let_go_has_its_time(until: Any) -> None:
    """A worker that was replaced because what it said broke something may still have requests in flight."""

    def stumble(_: Message) -> bool:
        raise KeyError("what nobody foresaw")

    forks = Hired()
    async with hired(forks) as crew:
        crew.on_shut, crew.drain = stumble, PATIENCE
        await until(lambda: crew.members)
        worker = await Channel.over(forks.lines[0])
        worker.send({"type": "shut", "shut": {}})
        await until(lambda: len(forks.lines) == 2 and crew.members)
        stopping = asyncio.create_task(crew.stop())
        forks.children[1].tell(0)
        forks.lines[1].shutdown(socket.SHUT_RDWR)

        await until(lambda: not crew.members)
        assert await goes_on(stopping)
        forks.children[0].tell(0)
        await stopping
        assert not any(child.killed for child in forks.children)
        worker.close()


async def test_who_hangs_up_and_does_not_end_is_killed(until: Any, caplog: Any) -> None:
    """It is no member any more, and yet no process may be left."""
    forks = Hired()
    async with hired(forks) as crew:
        await until(lambda: crew.members)
        worker = await Channel.over(forks.lines[0])
        worker.close()
        await until(lambda: not crew.members)

    assert forks.children[0].killed
    assert "did not end in time" in caplog.text
