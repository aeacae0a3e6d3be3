"""What this host and the others that share its Redis tell each other, and what follows from it here."""

from __future__ import annotations

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

_log = logging.getLogger("gateway.hosts")


class Hosts:
    """Passes switches, trips and shut-offs between the hosts; without Redis this one is alone.

    Args:
        pins: the switches of this host.
        shut_offs: what its workers hold.
        tell: says something to every worker.
    """

    def __init__(self, pins: Pins, shut_offs: ShutOffs, tell: Callable[[Message], None]) -> None:
        self._pins = pins
        self._shut_offs = shut_offs
        self._tell = tell
        self._line: HostLine | None = None
        self._pin_sync: PinSync | None = None
        self._news: News | None = None

    def start(self, redis: Redis | None) -> None:
        """Join the others, in the background."""
        if redis is None:
            return
        self._pin_sync = PinSync(redis.prefix, self._pins)
        self._news = news = News(redis.prefix)
        news.on_trip, news.on_shut, news.on_unshut = self.heard_trip, self.heard_shut, self.heard_unshut
        self._line = HostLine(redis.url, self._pin_sync.key, [self._pin_sync, news])
        self._line.start()

    async def restart(self, redis: Redis | None) -> None:
        """Join those that share another Redis."""
        await self.aclose()
        self.start(redis)

    async def aclose(self) -> None:
        """Hang up."""
        line, self._line = self._line, None
        if line is not None:
            await line.aclose()

    def shown(self) -> list[Any]:
        """The gateways that share our Redis, as far as known."""
        return []

    # ---- said here ---------------------------------------------------------------------------

    def pinned(self, pin: Pin) -> None:
        """An operator has thrown a switch."""
        if self._line is not None and self._pin_sync is not None:
            self._pin_sync.announce(pin, self._line)

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
