"""Finds the server that keeps a key, in one Redis, in a cluster, or behind sentinels."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from redis.asyncio import Redis
from redis.exceptions import AskError, MovedError, RedisError, TryAgainError

from gateway.redis_url import RedisUrl

PATIENCE = 1.0  # seconds for any one step
STAGGER = 0.1  # seconds after which the next seed is asked too (as in RFC 8305): one may hang
HOPS = 5  # servers that may send us on to another


class NoServerError(RedisError):
    """None of the servers named could say who keeps the key."""


async def locate(url: str, key: str) -> str:
    """The plain URL of the server that keeps a key and may be written to.

    Args:
        url: as a configuration names it, see RedisUrl.
        key: a cluster keeps each in one place, by its slot.

    Raises:
        RedisError, OSError: nobody could be asked.
    """
    place = RedisUrl.parse(url)

    async def ask(seed: str) -> str:
        return await _follow(place, await _master(place, seed) if place.kind == "sentinel" else seed, key)

    return await first_to_know(place.seeds, ask)


async def first_to_know(seeds: Sequence[str], ask: Callable[[str], Awaitable[str]]) -> str:
    """The first answer of any; each later one is asked when those before it failed, or hang."""
    problem: Exception | None = None
    left = list(seeds)
    asked: set[asyncio.Future[str]] = set()
    try:
        while left or asked:
            if left:
                asked.add(asyncio.ensure_future(ask(left.pop(0))))
            done, asked = await asyncio.wait(
                asked, timeout=STAGGER if left else None, return_when=asyncio.FIRST_COMPLETED
            )
            for one in done:
                try:
                    return one.result()
                except (RedisError, OSError) as error:
                    problem = error
    finally:
        for one in asked:
            one.cancel()
        await asyncio.gather(*asked, return_exceptions=True)
    raise problem or NoServerError("the URL names no server")


async def _master(place: RedisUrl, sentinel: str) -> str:
    async with _client(sentinel) as asked:
        found = await asked.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", place.name)  # type: ignore[no-untyped-call]  # redis-py's gap
    if not isinstance(found, list) or len(found) != 2:
        raise NoServerError(f"the sentinels know no {place.name!r}")
    host, port = found
    server = place.at(host.decode(), int(port))
    async with _client(server) as asked:
        role = await asked.execute_command("ROLE")  # type: ignore[no-untyped-call]  # redis-py's gap
    if role[0] != b"master":
        raise NoServerError(f"{place.name!r} is between two masters")
    return server


async def _follow(place: RedisUrl, server: str, key: str) -> str:
    """The server, or the one it names instead."""
    for _ in range(HOPS):
        try:
            async with _client(server) as asked:
                await asked.execute_command("EXISTS", key)  # type: ignore[no-untyped-call]  # redis-py's gap
        except MovedError as moved:
            server = place.at(moved.host, moved.port)
        except (AskError, TryAgainError):  # on its way to another; this one is still to be asked first
            return server
        else:
            return server
    raise NoServerError("the cluster's nodes send us from one to the other")


def _client(url: str) -> Redis:
    return Redis.from_url(
        url, socket_timeout=PATIENCE, socket_connect_timeout=PATIENCE, retry=None, protocol=2
    )
