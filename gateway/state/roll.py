"""Which hosts share a Redis, and which of them have a switch in effect. Nothing of it is kept in Redis."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from redis.asyncio import Redis

from gateway.exchange import Clock
from gateway.state.host_line import HostLine
from gateway.state.pins import Pin

GONE = 15.0  # seconds of silence, three polls of the line; then a host is forgotten
MOST_HOSTS = 200  # who comes after them is not listed, nor answered: each answer has listeners on every host

Said = dict[str, Any]
_Key = tuple[str, str, int]  # kind and name of a switch, and when it was thrown


@dataclass(frozen=True, slots=True)
class Seen:
    """A host as it described itself last.

    Attributes:
        name: for people.
        workers: that serve.
        step: of its ladder.
        off: features.
        at: when that was, on our clock.
    """

    name: str
    workers: int
    step: int
    off: tuple[str, ...]
    at: float


class Confirmations:
    """Waits until the other hosts say that a switch holds in all their workers.

    Args:
        hosts: who is to say so.
        clock: seconds, monotonic.
    """

    def __init__(self, hosts: dict[str, str], clock: Clock) -> None:
        self._names = hosts
        self._clock = clock
        self._since = clock()
        self._after: dict[str, float] = {}
        self._all = asyncio.Event()
        if not hosts:
            self._all.set()

    def confirm(self, host: str) -> None:
        """One has said so."""
        self._after.setdefault(host, self._clock() - self._since)
        if self._names.keys() <= self._after.keys():
            self._all.set()

    async def wait(self, patience: float) -> list[tuple[str, float | None]]:
        """Each host's name and the seconds that it took; None when it did not say so in time."""
        left = patience - (self._clock() - self._since)
        if left > 0 and not self._all.is_set():
            try:
                async with asyncio.timeout(left):
                    await self._all.wait()
            except TimeoutError:
                pass
        return [(name, self._after.get(host)) for host, name in self._names.items()]


class Roll:
    """One host's list of the others, by what they say of themselves every few seconds.

    Args:
        prefix: of the channel.
        describe: what this host says of itself: name, workers, step, off.
        clock: seconds, monotonic.

    Attributes:
        on_stranger: told when a host speaks that was not known; it wants to hear of us.
    """

    def __init__(self, prefix: str, describe: Callable[[], Said], clock: Clock = time.monotonic) -> None:
        self.channel = f"{prefix}:hosts"
        self.on_stranger: Callable[[], None] = lambda: None
        self._id = secrets.token_hex(8)
        self._describe = describe
        self._clock = clock
        self._others: dict[str, Seen] = {}
        self._waiting: dict[_Key, Confirmations] = {}

    def others(self) -> list[Seen]:
        """Those that spoke lately."""
        self._forget()
        return list(self._others.values())

    # ---- say ---------------------------------------------------------------------------------

    def speak(self, line: HostLine, holds: Pin | None = None) -> None:
        """Describe this host to the others; with a pin, that it holds in all workers here."""

        async def publish(redis: Redis) -> None:
            await redis.publish(self.channel, self.words(holds))

        line.send(publish, "other hosts will not see how this one is")

    def words(self, holds: Pin | None = None) -> str:
        """How it goes over the line."""
        said = {"id": self._id, **self._describe()}
        if holds is not None:
            said["holds"] = [holds.kind, holds.name, holds.at]
        return json.dumps(said)

    def expect(self, pin: Pin) -> Confirmations:
        """Who must say that a new pin holds: every other host that is known now."""
        self._forget()
        names = {host: seen.name for host, seen in self._others.items()}
        waiting = self._waiting[pin.kind, pin.name, pin.at] = Confirmations(names, self._clock)
        return waiting

    def expect_no_more(self, pin: Pin) -> None:
        """Nobody waits for it any longer."""
        self._waiting.pop((pin.kind, pin.name, pin.at), None)

    # ---- hear --------------------------------------------------------------------------------

    def heard(self, said: bytes) -> None:
        """Take what a host says of itself.

        Raises:
            ValueError: it is nonsense.
        """
        message = json.loads(said)
        if not isinstance(message, dict) or not isinstance(host := message.get("id"), str):
            raise ValueError("no host")  # noqa: TRY004 - what the line expects
        if host == self._id:
            return
        name, workers, step, off = (message.get(key) for key in ("name", "workers", "step", "off"))
        if not (isinstance(name, str) and isinstance(workers, int) and isinstance(step, int)):
            raise ValueError("no host")  # noqa: TRY004 - the same
        if not (isinstance(off, list) and all(isinstance(feature, str) for feature in off)):
            raise ValueError("no host")
        self._forget()
        stranger = host not in self._others
        if stranger and len(self._others) >= MOST_HOSTS:
            return
        self._others[host] = Seen(name[:200], workers, step, tuple(off), self._clock())
        holds = message.get("holds")
        if isinstance(holds, list) and len(holds) == 3:
            kind, switch, at = holds
            if not isinstance(at, int):
                raise ValueError("no pin")
            if (waiting := self._waiting.get((str(kind), str(switch), at))) is not None:
                waiting.confirm(host)
        if stranger:
            self.on_stranger()

    async def joined(self, redis: Redis) -> None:
        """Say that we are here."""
        await redis.publish(self.channel, self.words())

    poll = joined

    def _forget(self) -> None:
        """Those that fell silent."""
        oldest = self._clock() - GONE
        for host in [host for host, seen in self._others.items() if seen.at < oldest]:
            del self._others[host]
