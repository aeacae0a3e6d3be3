"""Carries pins between hosts: a Redis hash holds them, pub/sub announces them, a poll finds what it lost."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.state.pins import Pin, Pins

_log = logging.getLogger("gateway.pins")
_POLL = 5.0  # seconds; pub/sub is lossy
_RETRY = (0.2, 2.0)  # seconds, first and longest
_PATIENCE = 1.0  # seconds for any one command; no request waits on these
_TTL = 90 * 86400  # seconds; renewed at each poll, so it only ends with the last gateway


class PinSync:
    """Keeps one host's pins and Redis's the same, from whichever the newest comes.

    With Redis away the host goes on with its own; on return each side takes what is newer.
    """

    def __init__(self, url: str, prefix: str, pins: Pins) -> None:
        self._url = url
        self._pins = pins
        self._key = f"{prefix}:pins"
        self._redis: Redis | None = None
        self._task: asyncio.Task[None] | None = None
        self._announcing: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Begin, in the background."""
        self._task = asyncio.create_task(self._run(), name="pin-sync")

    async def aclose(self) -> None:
        """Stop, and hang up."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def announce(self, pin: Pin) -> None:
        """Send a new pin to the other hosts at once, without making the operator wait."""
        task = asyncio.create_task(self._announce(pin))
        self._announcing.add(task)
        task.add_done_callback(self._announcing.discard)

    async def _announce(self, pin: Pin) -> None:
        if self._redis is None:
            return  # the merge on return carries it
        try:
            await self._push(self._redis, [pin])
        except (RedisError, OSError) as error:
            _log.warning("the switch holds on this host; others get it when Redis is back (%s)", error)

    async def _push(self, redis: Redis, pins: list[Pin]) -> None:
        async with redis.pipeline(transaction=False) as pipe:
            for pin in pins:
                pipe.hset(self._key, f"{pin.kind}:{pin.name}", pin.json())
                pipe.publish(self._key, pin.json())
            pipe.expire(self._key, _TTL)
            await pipe.execute()

    async def _merge(self, redis: Redis) -> None:
        """Take what is newer there, give what is newer here."""
        there: dict[tuple[str, str], Pin] = {}
        for raw in (await redis.hgetall(self._key)).values():
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
            await redis.expire(self._key, _TTL)

    async def _run(self) -> None:
        wait = _RETRY[0]
        while True:
            redis = Redis.from_url(
                self._url, socket_timeout=_PATIENCE, socket_connect_timeout=_PATIENCE, retry=None
            )
            try:
                async with redis, redis.pubsub(ignore_subscribe_messages=True) as channel:
                    await channel.subscribe(self._key)
                    self._redis = redis
                    while True:
                        await self._merge(redis)
                        wait = _RETRY[0]
                        await self._listen(channel)
            except (RedisError, OSError) as error:
                _log.debug("pins are not shared: %s", error)
            finally:
                self._redis = None
            await asyncio.sleep(wait * random.uniform(0.5, 1))  # noqa: S311 - spreads hosts, keeps no secret
            wait = min(wait * 2, _RETRY[1])

    async def _listen(self, channel: object) -> None:
        """Take announcements until the next poll is due."""
        loop = asyncio.get_running_loop()
        due = loop.time() + _POLL
        while (left := due - loop.time()) > 0:
            message = await channel.get_message(timeout=min(left, _PATIENCE / 2))  # type: ignore[attr-defined]  # redis has no public type for it
            if message is not None:
                with contextlib.suppress(ValueError):
                    self._pins.merge([Pin.parse(message["data"])])
