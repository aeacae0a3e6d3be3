"""Carries pins between hosts: a Redis hash holds them, the line announces them, a poll finds what it lost."""

from __future__ import annotations

import contextlib

from redis.asyncio import Redis

from gateway.state.host_line import HostLine
from gateway.state.pins import Pin, Pins

_TTL = 90 * 86400  # seconds; renewed at each poll, so it only ends with the last gateway


class PinSync:
    """Keeps one host's pins and Redis's the same, from whichever the newest comes.

    With Redis away the host goes on with its own; on return each side takes what is newer.
    """

    def __init__(self, prefix: str, pins: Pins) -> None:
        self.channel = f"{prefix}:pins"
        self.key = f"{{{prefix}}}:pins"  # the hash; the braces keep all keys in one slot of a cluster
        self._pins = pins

    def announce(self, pin: Pin, line: HostLine) -> None:
        """Send a new pin to the other hosts at once; the merge on return carries it if they are away."""

        async def push(redis: Redis) -> None:
            await self._push(redis, [pin])

        line.send(push, "the switch holds on this host; others get it when Redis is back")

    def heard(self, said: bytes) -> None:
        """Take an announcement."""
        self._pins.merge([Pin.parse(said)])

    async def joined(self, redis: Redis) -> None:
        """Take what is newer there, give what is newer here."""
        there: dict[tuple[str, str], Pin] = {}
        for raw in (await redis.hgetall(self.key)).values():
            with contextlib.suppress(ValueError):
                pin = Pin.parse(raw)
                there[pin.kind, pin.name] = pin
        self._pins.merge(there.values())
        ours = [
            pin
            for pin in self._pins.all()
            if (known := there.get((pin.kind, pin.name))) is None or known != pin
        ]
        if ours:
            await self._push(redis, ours)
        elif there:
            await redis.expire(self.key, _TTL)

    poll = joined

    async def _push(self, redis: Redis, pins: list[Pin]) -> None:
        async with redis.pipeline(transaction=False) as pipe:
            for pin in pins:
                pipe.hset(self.key, f"{pin.kind}:{pin.name}", pin.json())
                pipe.publish(self.channel, pin.json())
            pipe.expire(self.key, _TTL)
            await pipe.execute()
