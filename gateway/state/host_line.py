"""The line between hosts: one connection to the shared Redis, what is said on it, and who listens."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import random
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.state.redis_place import locate

_log = logging.getLogger("gateway.hosts")
_POLL = 5.0  # seconds; pub/sub is lossy
_RETRY = (0.2, 2.0)  # seconds, first and longest
_PATIENCE = 1.0  # seconds for any one command; no request waits on these
_CHECK = 1.0  # seconds between looks at a silent server: one that froze says nothing
_AGAIN = 5.0  # seconds within which what failed, or found the line just lost, is said to the next server

Work = Callable[["Redis"], Awaitable[None]]


class Subject(Protocol):
    """Something that hosts tell each other, on a channel of its own."""

    channel: str

    def heard(self, said: bytes) -> None:
        """Another host, or this one, has said something; raises ValueError when it is nonsense."""
        ...

    async def joined(self, redis: Redis) -> None:
        """The line is there, perhaps again: catch up."""
        ...

    async def poll(self, redis: Redis) -> None:
        """Every few seconds: look for what was lost on the way."""
        ...


class HostLine:
    """Keeps the line up. With Redis away each host goes on by itself.

    Args:
        url: of the Redis that the hosts share, see RedisUrl.
        key: one of those that subjects keep there; a cluster keeps it, and all in its slot, on one node.
        subjects: what is spoken of.
    """

    def __init__(self, url: str, key: str, subjects: list[Subject]) -> None:
        self._url = url
        self._key = key
        self._subjects = {subject.channel.encode(): subject for subject in subjects}
        self._redis: Redis | None = None
        self._joined = asyncio.Event()
        self._lost = -math.inf  # when the line was up last, on the loop's clock
        self._hold = asyncio.timeout(None)  # ends when the server is found to be of no use any more
        self._task: asyncio.Task[None] | None = None
        self._sending: set[asyncio.Task[None]] = set()

    @property
    def up(self) -> bool:
        """Whether others can hear us."""
        return self._redis is not None

    def start(self) -> None:
        """Begin, in the background."""
        self._task = asyncio.create_task(self._run(), name="host-line")

    async def aclose(self) -> None:
        """Stop, and hang up."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def send(self, work: Work, otherwise: str) -> None:
        """Say something without making anybody wait; while Redis is away it is not said.

        When the server has died or handed its keys over, it is said to the one that has them now: once more,
        or for the first time if that is being looked for.

        Args:
            work: the commands that say it.
            otherwise: for the log, what it means that they failed.
        """
        task = asyncio.create_task(self._send(work, otherwise))
        self._sending.add(task)
        task.add_done_callback(self._sending.discard)

    async def _send(self, work: Work, otherwise: str) -> None:
        redis = self._redis
        if redis is not None:
            try:
                await work(redis)
            except (RedisError, OSError) as error:
                _log.debug("to be said again: %s", error)
                self._hang_up(redis)
            else:
                return
        elif asyncio.get_running_loop().time() > self._lost + _AGAIN:
            return
        try:
            async with asyncio.timeout(_AGAIN):
                await self._joined.wait()
            if self._redis is not None:
                await work(self._redis)
        except (RedisError, OSError) as error:
            _log.warning("%s (%s)", otherwise, str(error) or "Redis is away")

    def _hang_up(self, redis: Redis) -> None:
        """Look for another server, unless that has begun."""
        if self._redis is redis:
            self._down()
            self._hold.reschedule(self._lost)

    def _down(self) -> None:
        if self._redis is not None:
            self._redis = None
            self._lost = asyncio.get_running_loop().time()
        self._joined.clear()

    async def _run(self) -> None:
        wait = _RETRY[0]
        away = False  # and that is said already
        while True:
            joined = False
            try:
                async with (
                    asyncio.timeout(None) as self._hold,
                    await self._connect() as redis,
                    redis.pubsub(ignore_subscribe_messages=True) as pubsub,
                ):
                    await pubsub.subscribe(*self._subjects)
                    self._redis = redis
                    for subject in self._subjects.values():
                        await subject.joined(redis)
                    self._joined.set()
                    joined = True
                    if away:
                        _log.info("Redis is back: switches are shared with other hosts")
                    wait, away = _RETRY[0], False
                    while True:
                        await self._listen(redis, pubsub)
                        for subject in self._subjects.values():
                            await subject.poll(redis)
            except (RedisError, OSError) as error:
                if not (joined or away):  # one that is lost is most often back at once
                    away = True
                    what = "Redis can't be reached; limits and switches are of this host alone"
                    _log.warning("%s: %s", what, str(error) or "no answer")
            except Exception:  # noqa: BLE001 - whatever it was, this host must not be alone for good
                _log.exception("the line to other hosts failed; it is taken up anew")
            finally:
                self._down()
            await asyncio.sleep(wait * random.uniform(0.5, 1))  # noqa: S311 - spreads hosts, keeps no secret
            wait = min(wait * 2, _RETRY[1])

    async def _connect(self) -> Redis:
        return Redis.from_url(
            await locate(self._url, self._key),
            socket_timeout=_PATIENCE,
            socket_connect_timeout=_PATIENCE,
            retry=None,
        )

    async def _listen(self, redis: Redis, pubsub: Any) -> None:  # noqa: ANN401 - redis has no public type for it
        """Hear what is said until the next poll is due."""
        loop = asyncio.get_running_loop()
        due = loop.time() + _POLL
        check = loop.time() + _CHECK
        while (left := due - loop.time()) > 0:
            message = await pubsub.get_message(timeout=min(left, _PATIENCE / 2))
            if message is not None:
                try:
                    self._subjects[message["channel"]].heard(message["data"])
                except ValueError:
                    _log.warning("nonsense on %s, ignored", message["channel"].decode())
            if loop.time() >= check:
                await redis.ping()
                check = loop.time() + _CHECK
