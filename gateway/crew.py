"""The workers of this host: started, spoken to, replaced when they die, drained at the end."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import socket
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

from gateway.channel import Channel, Message
from gateway.config import Mistake
from gateway.effect import Effect
from gateway.forks import Child, Forks
from gateway.pressure import Pressures, highest
from gateway.totals import Totals

_log = logging.getLogger("gateway")
_BACKOFF = (0.1, 5.0)  # seconds before a worker that dies young is replaced, first and longest
_YOUNG = 10.0  # seconds
_ANSWER = 3.0  # seconds that a worker, which may be as busy as its machine, may take to answer the master


@dataclass(slots=True)
class Member:
    """One worker process."""

    id: int
    process: Child
    channel: Channel
    born: float
    ready: bool = False
    serial: int = -1  # of the switches that it serves by
    version: int = -1  # of the configuration that it serves by
    offered: int = -1  # of the newest that it was given
    refused: int = -1  # of the newest that it could not have, for these mistakes
    mistakes: list[Mistake] = field(default_factory=list)
    failure: str | None = None  # why it could not even start
    pressures: Pressures = field(default_factory=dict)
    scraped: int = 0  # number of the newest scrape that it has answered

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return asyncio.get_running_loop().time() - self.born


class Crew:
    """Keeps so many workers on one listening socket.

    Args:
        listener: bound and listening; the workers accept from it.
        size: how many.
        forks: makes them; let go at the end.
        greet: the start message for a new worker: configuration and switches as they are, with their numbers.
        totals: where their metrics are summed.
        drain: seconds that requests in flight may take at the end.
        shared: descriptors of the memory that the workers share, handed to each in this order; -1 for what
            they go without.
    """

    def __init__(
        self,
        listener: socket.socket,
        size: int,
        forks: Forks,
        greet: Callable[[], Message],
        totals: Totals,
        drain: float,
        shared: tuple[int, ...],
    ) -> None:
        self.members: dict[int, Member] = {}
        self.drain = drain
        self.failure: str | None = None  # why a worker could not even start
        self.on_shut: Callable[[Message], bool] = lambda _: True  # whether a shut-off is news
        self.on_trip: Callable[[Message], None] = lambda _: None  # told of each breaker that opens by itself
        self.on_ready: Callable[[Channel], None] = lambda _: None  # told of each worker that begins to serve
        self._listener = listener
        self._shared = shared
        self._size = size
        self._forks = forks
        self._greet = greet
        self._totals = totals
        self._ids = itertools.count(1)
        self.restarts = 0
        self._stopping = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._heard = asyncio.Condition()
        self._scrapes = itertools.count(1)

    @property
    def ready(self) -> int:
        """Workers serving now."""
        return sum(member.ready for member in self.members.values())

    @property
    def size(self) -> int:
        """Workers there should be."""
        return self._size

    def start(self) -> None:
        """Start them all, in the background."""
        self._tasks = [asyncio.create_task(self._keep(n), name=f"crew-{n}") for n in range(self._size)]

    def tell(self, message: Message) -> None:
        """Send a message to every worker."""
        for member in self.members.values():
            member.channel.send(message)

    def offer(self, text: str, version: int, but: Collection[int] = ()) -> None:
        """Give a configuration to every worker that has not got it, except some, to serve by it if it can."""
        for member in self.members.values():
            if member.offered != version and member.id not in but:
                member.offered = version
                member.channel.send({"type": "config", "config": text, "version": version})

    def refused(self, version: int) -> list[Member]:
        """The workers that could not have a configuration."""
        return [member for member in self.members.values() if member.refused == version]

    async def effect(
        self, holds: Callable[[Member], bool], refuses: Callable[[Member], bool] = lambda _: False
    ) -> Effect:
        """Wait until something holds for every worker, or until the time is over.

        Args:
            holds: whether it does so for a worker.
            refuses: whether it never will; that worker is not waited for.
        """
        clock = asyncio.get_running_loop().time
        since = clock()
        confirmed: dict[int, float] = {}

        def all_hold() -> bool:
            now = clock()
            for number, member in self.members.items():
                if number not in confirmed and holds(member):
                    confirmed[number] = now - since
            return all(n in confirmed or refuses(member) for n, member in self.members.items())

        async with self._heard:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_ANSWER):
                    await self._heard.wait_for(all_hold)
        each = tuple((member.process.pid, confirmed.get(n)) for n, member in self.members.items())
        return Effect(each, clock() - since)

    async def scrape(self) -> None:
        """Have every worker's newest numbers in the totals, or its last ones if it is too busy."""
        number = next(self._scrapes)  # an answer to another's question may be older than ours
        asked = {member.id for member in self.members.values() if member.ready}
        for one in asked:
            self.members[one].channel.send({"type": "scrape", "number": number})
        await self.effect(lambda member: member.id not in asked or member.scraped >= number)
        self._totals.own.gauge("tidegate_workers", self.ready)

    def pressures(self) -> dict[str, float]:
        """Each signal of pressure, as the most pressed worker has it."""
        return highest(member.pressures for member in self.members.values())

    async def stop(self) -> None:
        """Drain them all; those that take too long are killed."""
        self._stopping.set()
        self.tell({"type": "drain"})
        # A keeper ends with its worker, also with one that is being born; but it may have let others go.
        ends: list[asyncio.Task[Any]] = [asyncio.create_task(child.wait()) for child in self._forks.living]
        ends += self._tasks
        if ends:
            await asyncio.wait(ends, timeout=self.drain + 3)
        late = {member.process for member in self.members.values()} | self._forks.living
        for process in late:
            _log.warning("worker %d did not end in time; killed", process.pid)
            process.kill()
        for task in ends:
            task.cancel()
        await asyncio.gather(*ends, return_exceptions=True)
        await self._forks.aclose()

    # ---- one place in the crew ---------------------------------------------------------------

    async def _keep(self, place: int) -> None:
        """Keep one place filled."""
        loop = asyncio.get_running_loop()
        wait = _BACKOFF[0]
        while not self._stopping.is_set():
            born = loop.time()
            try:
                end = await self._one(place, born)
            except Exception:  # noqa: BLE001 - whatever it was, the place must not stay empty
                _log.exception("a worker could not be looked after; starting another")
                end = None
            if self._stopping.is_set():
                return
            self.restarts += 1
            self._totals.own.count("tidegate_worker_restarts_total")
            wait = _BACKOFF[0] if loop.time() - born > _YOUNG else min(wait * 2, _BACKOFF[1])
            if end is not None:
                _log.error("a worker died (%s); starting another in %.1f s", end, wait)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(wait):
                    await self._stopping.wait()

    async def _one(self, place: int, born: float) -> str | None:
        """The life of one worker; returns how it ended, or None when there was none to be had."""
        try:
            process, channel = await self._spawn()
        except OSError as error:
            _log.error("no worker can be started (%s); trying again", error)
            return None
        if self._stopping.is_set():
            channel.close()  # it leaves before it has begun
            await process.wait()
            return None
        member = Member(next(self._ids), process, channel, born)
        self.members[member.id] = member
        start = self._greet()
        member.version = member.offered = start["version"]
        member.serial = start["serial"]
        channel.send(start | {"part": place})
        try:
            while (message := await channel.receive()) is not None:
                self._hear(member, message)
                await self._tell_waiting()
        finally:
            del self.members[member.id]
            self._totals.retire(member.id)
            channel.close()
        await self._tell_waiting()
        code = await process.wait()
        return member.failure or f"exit code {'unknown' if code is None else code}"

    async def _tell_waiting(self) -> None:
        """Let those who wait for the workers look again."""
        async with self._heard:
            self._heard.notify_all()

    async def _spawn(self) -> tuple[Child, Channel]:
        """A new process, and our end of the line to it.

        Raises:
            OSError: the system has no memory, process or descriptor left.
        """
        ours, theirs = socket.socketpair()
        try:
            ours.setblocking(False)
            process = await self._forks.make((self._listener.fileno(), theirs.fileno(), *self._shared))
            return process, await Channel.over(ours)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()

    def _hear(self, member: Member, message: Message) -> None:
        kind = message["type"]
        if kind == "report":
            member.pressures = message["pressures"]
        elif kind == "metrics":
            self._totals.update(member.id, message["snapshot"])
            if message["number"] is not None:
                member.scraped = message["number"]
        elif kind == "switched":
            member.serial = message["serial"]
        elif kind == "applied":
            if message["mistakes"]:
                member.refused = message["version"]
                member.mistakes = [Mistake(*one) for one in message["mistakes"]]
                if member.refused == self._greet()["version"]:  # too late to be heard by who offered it
                    said = "; ".join(one.render("config") for one in member.mistakes)
                    kept = member.process.pid, member.version
                    _log.error("worker %d keeps configuration %d: %s", *kept, said)
            else:
                member.version = message["version"]
        elif kind == "ready":
            member.ready = True
            now = self._greet()  # some of it may have changed while the worker started
            if member.offered < now["version"]:
                member.offered = now["version"]
                member.channel.send(now | {"type": "config"})
            if member.serial != now["serial"]:
                member.channel.send(now | {"type": "switches"})
            self.on_ready(member.channel)
        elif kind == "failed":
            self.failure = member.failure = message["error"]
        elif kind == "trip":
            self.on_trip(message)
            self._pass_on(member, message)
        elif kind in {"probing", "well"} or (kind == "shut" and self.on_shut(message["shut"])):
            self._pass_on(member, message)

    def _pass_on(self, member: Member, message: Message) -> None:
        """To all but who said it."""
        for other in self.members.values():
            if other is not member:
                other.channel.send(message)
