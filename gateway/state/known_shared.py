"""The same knowledge over all hosts: keys of requests that any of them has passed on stand in Redis."""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import AskError, MovedError, ReadOnlyError, RedisError

from gateway.state.known_keys import KEEP, KnownKeys
from gateway.state.redis_place import locate

_log = logging.getLogger("gateway.shut-off")
_RETRY = (0.1, 2.0)  # seconds between probes while Redis is away, first and longest
_CONNECT = 1.0  # seconds; no request waits for a connect
_MOST = 1000  # commands in one round trip
# Forget a key, unless somebody else has written it since.
_FORGET = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"

_AWAY = object()  # in place of an answer
_ELSEWHERE = (MovedError, AskError, ReadOnlyError)  # the keys are another server's by now

Command = tuple[str | bytes | int, ...]


class SharedKeys:
    """Asks the memory of this host first, then Redis.

    Those who wait share a round trip. One task owns the connection, so a caller that is cancelled never
    touches it. Without Redis, or when it does not answer in time, this host's knowledge must do.

    Args:
        here: what this host knows.
        url: of the Redis that the hosts share, see RedisUrl; None when they share none.
        timeout: seconds that a request waits for it at most.
        prefix: of the keys there.
    """

    def __init__(self, here: KnownKeys, url: str | None, *, timeout: float = 0.02, prefix: str = "") -> None:
        self._url = url
        self._timeout = timeout
        self._prefix = f"{{{prefix}}}:key:"  # the braces keep all keys in one slot of a cluster
        self._here = here
        self._me = secrets.token_hex(8).encode()
        self._queue: list[tuple[Command, asyncio.Future[Any] | None]] = []
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.up = False

    def start(self) -> None:
        """Begin, in the background."""
        if self._url is not None:
            self._task = asyncio.create_task(self._run(self._url), name="known-keys")

    async def aclose(self) -> None:
        """Stop; whoever still waits is told by this host's knowledge."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    # ---- for the policy ----------------------------------------------------------------------

    async def knows(self, key: int) -> bool:
        """Whether a request with this fingerprint was passed on by any host, and not refused since."""
        if self._here.knows(key):
            return True
        answer = await self._ask("EXISTS", self._name(key))
        return answer is not _AWAY and bool(answer)

    async def begin(self, key: int) -> bool:
        """Note that a request with this fingerprint is about to be passed on; whether it is new to all."""
        new = self._here.begin(key)
        answer = await self._ask("SET", self._name(key), self._me, "EX", int(KEEP), "NX")
        return new and bool(answer)

    def accepted(self, key: int, *, first: bool) -> None:
        """It was accepted: nobody else's refusal may make us forget it."""
        self._here.accepted(key)
        if not first:
            self._tell("SET", self._name(key), b"accepted", "EX", int(KEEP))

    def refused(self, key: int) -> None:
        """It was refused, and this worker was the first to ask: it need not be known."""
        self._here.refused(key)
        self._tell("EVAL", _FORGET, 1, self._name(key), self._me)

    # ---- inside ------------------------------------------------------------------------------

    def _name(self, key: int) -> str:
        return f"{self._prefix}{key:016x}"

    async def _ask(self, *command: str | bytes | int) -> Any:  # noqa: ANN401 - as Redis answers
        if not self.up:
            return _AWAY
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._queue.append((command, future))
        self._wake.set()
        return await future

    def _tell(self, *command: str | bytes | int) -> None:
        if self.up:
            self._queue.append((command, None))
            self._wake.set()

    async def _run(self, url: str) -> None:
        wait = _RETRY[0]
        while True:
            try:
                async with asyncio.timeout(_CONNECT):
                    server = await locate(url, self._name(0))
                async with Redis.from_url(
                    server, socket_timeout=None, socket_connect_timeout=_CONNECT, retry=None
                ) as redis:
                    async with asyncio.timeout(_CONNECT):
                        await redis.ping()
                    self.up, wait = True, _RETRY[0]
                    await self._until_it_fails(redis)
            except (RedisError, OSError) as error:
                _log.debug("the Redis that knows keys can't be reached: %s", error)
            except Exception:  # noqa: BLE001 - whatever it was, this host must not be alone for good
                _log.exception("what other hosts know of repeated requests is asked anew")
            await asyncio.sleep(wait * random.uniform(0.5, 1.5))  # noqa: S311 - spreads workers
            wait = min(wait * 2, _RETRY[1])

    async def _until_it_fails(self, redis: Redis) -> None:
        try:
            await self._serve(redis)
        except (RedisError, OSError) as error:
            _log.warning("repeated requests are known by this host only: %s", str(error) or "too slow")
        finally:
            self._give_up()

    async def _serve(self, redis: Redis) -> None:
        """Call for whoever waits, until a call fails."""
        while True:
            while not self._queue:
                self._wake.clear()
                await self._wake.wait()
            some, self._queue = self._queue[:_MOST], self._queue[_MOST:]
            try:
                async with asyncio.timeout(self._timeout), redis.pipeline(transaction=False) as pipe:
                    for command, _ in some:
                        pipe.execute_command(*command)
                    answers = await pipe.execute(raise_on_error=False)
            except BaseException:
                self._queue[:0] = some
                raise
            for (_, future), answer in zip(some, answers, strict=True):
                if isinstance(answer, _ELSEWHERE):
                    self._queue[:0] = some
                    raise answer
                if future is not None and not future.done():
                    future.set_result(_AWAY if isinstance(answer, RedisError) else answer)

    def _give_up(self) -> None:
        """Nobody waits for a connection that may be out of step."""
        self.up = False
        queue, self._queue = self._queue, []
        for _, future in queue:
            if future is not None and not future.done():
                future.set_result(_AWAY)
