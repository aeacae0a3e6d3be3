"""What this host and the others that share its Redis tell each other, and what follows from it here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from gateway.channel import Channel, Message
from gateway.config import Redis
from gateway.policies.shut_offs import ShutOff, ShutOffs
from gateway.state.host_line import HostLine
from gateway.state.news import News, Said
from gateway.state.pin_sync import PinSync
from gateway.state.pins import Pin, Pins
from gateway.state.roll import Roll, Seen

PATIENCE = 0.5  # seconds that an operator waits for other hosts' word
_log = logging.getLogger("gateway.hosts")


class Hosts:
    """Passes switches, trips and shut-offs between the hosts; without Redis this one is alone.

    Args:
        pins: the switches of this host.
        shut_offs: what its workers hold.
        tell: says something to every worker.
        describe: what this host says of itself; see Roll.
    """

    def __init__(
        self,
        pins: Pins,
        shut_offs: ShutOffs,
        tell: Callable[[Message], None],
        describe: Callable[[], dict[str, Any]],
    ) -> None:
        self._pins = pins
        self._describe = describe
        self._shut_offs = shut_offs
        self._tell = tell
        self._line: HostLine | None = None
        self._pin_sync: PinSync | None = None
        self._news: News | None = None
        self._roll: Roll | None = None
        self._changing = asyncio.Lock()

    def start(self, redis: Redis | None) -> None:
        """Join the others, in the background."""
        if redis is None:
            return
        self._pin_sync = PinSync(redis.prefix, self._pins)
        self._news = news = News(redis.prefix)
        news.on_trip, news.on_shut, news.on_unshut = self.heard_trip, self.heard_shut, self.heard_unshut
        self._roll = roll = Roll(redis.prefix, self._describe)
        roll.on_stranger = self.speak
        self._line = HostLine(redis.url, self._pin_sync.key, [self._pin_sync, news, roll])
        self._line.start()

    async def restart(self, redis: Callable[[], Redis | None]) -> None:
        """Join those that share another Redis.

        Args:
            redis: which one, asked once nothing stands in the way: another edit may have been quicker.
        """
        async with self._changing:
            await self._leave()
            self._pin_sync = self._news = self._roll = None
            self.start(redis())

    async def aclose(self) -> None:
        """Hang up."""
        async with self._changing:
            await self._leave()

    async def _leave(self) -> None:
        line, self._line = self._line, None
        if line is not None:
            await line.aclose()

    def others(self) -> list[Seen]:
        """The gateways that share our Redis, as far as they were heard of."""
        return self._roll.others() if self._roll is not None else []

    def speak(self, holds: Pin | None = None) -> None:
        """Tell the others how this host is; with a pin of theirs, that it holds in all workers here."""
        if self._line is not None and self._roll is not None:
            self._roll.speak(self._line, holds)

    # ---- said here ---------------------------------------------------------------------------

    async def pinned(self, pin: Pin) -> list[tuple[str, float | None]]:
        """An operator has thrown a switch; returns the other hosts, and after how many seconds it held there.

        None stands for a host that did not say so in time. With the line down nobody is waited for.
        """
        line, roll = self._line, self._roll
        if line is None or roll is None or self._pin_sync is None:
            return []
        waiting = roll.expect(pin)
        try:
            self._pin_sync.announce(pin, line)
            return await waiting.wait(PATIENCE if line.up else 0.0)
        finally:
            roll.expect_no_more(pin)

    def tripped(self, trip: Message) -> None:
        """A breaker of a worker has opened by itself."""
        if self._line is not None and self._news is not None:
            said = {key: trip[key] for key in ("upstream", "route", "seconds")}
            self._news.tripped(said, self._line)

    def worker_shut(self, said: Message) -> bool:
        """A worker heard the upstream shut something off; whether the others don't know it yet."""
        held = ShutOff.from_json(said, self._shut_offs.clock())
        if not self._shut_offs.add(held):
            return False
        if self._line is not None and self._news is not None:
            told = held.to_json(self._shut_offs.clock())
            self._news.shut(held.id, told["seconds"], told, self._line)
        return True

    def greet(self, worker: Channel) -> None:
        """Tell a new worker what is shut off."""
        now = self._shut_offs.clock()
        for held in self._shut_offs.all():
            worker.send({"type": "shut", "shut": held.to_json(now)})

    def unshut(self, ids: set[str] | None, *, by: str) -> int:
        """An operator ends shut-offs, all of them or these; says how many."""
        cleared = self._shut_offs.clear(ids)
        _log.warning("shut-offs: %d cleared by %s", cleared, by)
        if self._line is not None and self._news is not None:
            self._news.unshut(ids, self._line)
        self._tell({"type": "unshut", "ids": None if ids is None else sorted(ids)})
        return cleared

    # ---- heard from others -------------------------------------------------------------------

    def heard_trip(self, said: Said) -> None:
        """Another host has opened a breaker; raises ValueError when it is nonsense."""
        upstream, route, seconds = said.get("upstream"), said.get("route"), said.get("seconds")
        if not (isinstance(upstream, str) and isinstance(route, str) and isinstance(seconds, int | float)):
            raise ValueError("no trip")  # noqa: TRY004 - what the line expects
        _log.warning("another host has opened the breaker of %s", f"{upstream} {route}".rstrip())
        self._tell({"type": "trip", "upstream": upstream, "route": route, "seconds": seconds, "doubt": True})

    def heard_shut(self, said: Said) -> None:
        """Another host's upstream has shut something off; raises ValueError when it is nonsense."""
        held = ShutOff.from_json(said, self._shut_offs.clock())
        if self._shut_offs.add(held):
            _log.info("%s with %s=%s is shut off, another host says", *held.key)
            self._tell({"type": "shut", "shut": held.to_json(self._shut_offs.clock())})

    def heard_unshut(self, ids: set[str] | None) -> None:
        """An operator has ended shut-offs elsewhere."""
        if self._shut_offs.clear(ids):
            _log.warning("shut-offs cleared by an operator of another host")
        self._tell({"type": "unshut", "ids": None if ids is None else sorted(ids)})
