"""What hosts tell each other of their upstreams: trips of breakers, shut-offs, and shut-offs ended."""

from __future__ import annotations

import json
import logging
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from redis.asyncio import Redis

from gateway.state.host_line import HostLine

_log = logging.getLogger("gateway.hosts")
_LONGEST = 60.0  # seconds; what is said to last longer is not believed
_CATCH_UP = 1000  # shut-offs that a host takes over when it joins, those that last longest

Said = Mapping[str, Any]


class News:
    """One host's ear and mouth.

    A trip is a hint, and gone when nobody hears it. Shut-offs that hold stand in Redis too, each for its
    time, for hosts that join later.

    Attributes:
        on_trip: told of a breaker that another host has opened: upstream, route, seconds.
        on_shut: told of a shut-off that another host has heard of.
        on_unshut: told which shut-offs an operator has ended elsewhere: ids, or None for all.
    """

    def __init__(self, prefix: str) -> None:
        self.channel = f"{prefix}:news"
        # A sorted set of ids, by when they end in Redis's milliseconds; the braces keep all keys in one slot.
        self._index = f"{{{prefix}}}:shut-offs"
        self._host = secrets.token_hex(8)
        self.on_trip: Callable[[Said], None] = lambda _: None
        self.on_shut: Callable[[Said], None] = lambda _: None
        self.on_unshut: Callable[[set[str] | None], None] = lambda _: None

    # ---- say ---------------------------------------------------------------------------------

    def tripped(self, trip: Said, line: HostLine) -> None:
        """A breaker of ours has opened by itself."""

        async def publish(redis: Redis) -> None:
            await redis.publish(self.channel, self.words("trip", trip))

        line.send(publish, "other hosts will find out by themselves that a breaker is open here")

    def shut(self, shut_id: str, seconds: float, shut: Said, line: HostLine) -> None:
        """An upstream of ours has shut something off for so long."""
        lasts = int(min(seconds, _LONGEST) * 1000)
        if lasts <= 0:
            return

        async def publish(redis: Redis) -> None:
            now = await _now(redis)
            async with redis.pipeline(transaction=False) as pipe:
                pipe.set(self._key(shut_id), json.dumps(shut), px=lasts)
                pipe.zremrangebyscore(self._index, "-inf", now)
                pipe.zadd(self._index, {shut_id: now + lasts})
                pipe.pexpire(self._index, int(_LONGEST * 1000))
                pipe.publish(self.channel, self.words("shut", shut))
                await pipe.execute()

        line.send(publish, "other hosts will hear from the upstream themselves what is shut off")

    def unshut(self, ids: set[str] | None, line: HostLine) -> None:
        """An operator has ended shut-offs, all or these."""

        async def publish(redis: Redis) -> None:
            held: Any = await redis.zrange(self._index, 0, -1) if ids is None else ()
            gone = [name.decode() for name in held] if ids is None else list(ids)
            async with redis.pipeline(transaction=False) as pipe:
                if gone:
                    pipe.delete(*map(self._key, gone))
                    pipe.zrem(self._index, *gone)
                pipe.publish(self.channel, self.words("unshut", None if ids is None else sorted(ids)))
                await pipe.execute()

        line.send(publish, "shut-offs are ended on this host only")

    def words(self, kind: str, what: object) -> str:
        """How it goes over the line."""
        return json.dumps({"from": self._host, "kind": kind, "what": what})

    def _key(self, shut_id: str) -> str:
        return f"{self._index}:{shut_id}"

    # ---- hear --------------------------------------------------------------------------------

    def heard(self, said: bytes) -> None:
        """Take news of another host.

        Raises:
            ValueError: it is none.
        """
        message = json.loads(said)
        if not isinstance(message, dict):
            raise ValueError("no news")  # noqa: TRY004 - what callers expect
        if message.get("from") == self._host:
            return
        kind, what = message.get("kind"), message.get("what")
        if kind == "trip" and isinstance(what, dict):
            self.on_trip(what)
        elif kind == "shut" and isinstance(what, dict):
            self.on_shut(what)
        elif kind == "unshut" and (what is None or isinstance(what, list)):
            self.on_unshut(None if what is None else {str(name) for name in what})
        else:
            raise ValueError("no news of a kind that we know")

    async def joined(self, redis: Redis) -> None:
        """Take over the shut-offs that hold."""
        now = await _now(redis)
        held: Any = await redis.zrevrangebyscore(
            self._index, "+inf", f"({now}", start=0, num=_CATCH_UP, withscores=True
        )
        if not held:
            return
        said: Any = await redis.mget([self._key(name.decode()) for name, _ in held])
        for raw, (_, until) in zip(said, held, strict=True):
            if raw is None:
                continue
            try:
                self.on_shut({**json.loads(raw), "seconds": (until - now) / 1000})
            except (ValueError, TypeError):
                _log.warning("a shut-off in Redis is nonsense, ignored")

    async def poll(self, _: Redis) -> None:
        """Nothing: what was lost is said again by the upstream."""


async def _now(redis: Redis) -> int:
    """Redis's clock, milliseconds."""
    time: Any = await redis.time()  # its stub names no pair
    seconds, micros = time
    return int(seconds) * 1000 + int(micros) // 1000
