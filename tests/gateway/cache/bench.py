"""A cache on the bench: before an upstream that is a function, by a clock that is a number."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from email.utils import formatdate
from typing import Any

from gateway.config import RouteCache
from gateway.exchange import Exchange, Headers, Reply
from gateway.policies.cache import Cache
from gateway.policies.cache_store import Store
from tests.clock import Clock

START = 1_800_000_000.0  # seconds since 1970


async def _nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}


async def settle() -> None:
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


def request(method: str = "GET", target: str = "/x", **fields: str) -> Exchange:
    """A request; `accept_language="de"` is the field accept-language."""
    exchange = Exchange(
        method=method,
        target=target.encode(),
        path=target.partition("?")[0],
        headers=[(name.replace("_", "-").encode(), value.encode()) for name, value in fields.items()],
        host=b"shop.test",
        address="192.0.2.7",
        receive=_nothing,
        started=0.0,
    )
    exchange.route, exchange.upstream = "/x", "shop"
    return exchange


def field(reply: Reply, name: str) -> str | None:
    """A field's value, of several the last."""
    values = [value.decode() for key, value in reply.headers if key == name.encode()]
    return values[-1] if values else None


Answer = Callable[[Exchange], Awaitable[Reply]]


class Bench:
    """A cache before an upstream that answers what `answer` says."""

    def __init__(self, **settings: Any) -> None:
        self.clock = Clock()
        self.store = Store(clock=self.clock, wall=lambda: START + self.clock.now - 1000.0)
        self.counted: list[str] = []
        self.cache = Cache(RouteCache(**settings), self.store, lambda _, result: self.counted.append(result))
        self.asked: list[Headers] = []
        self.answer: Answer = self.says("cache-control: max-age=10")

    def says(self, *lines: str, status: int = 200, body: bytes | None = None) -> Answer:
        """An answer with these fields, dated now; its body counts the calls unless given."""

        async def answer(_: Exchange) -> Reply:
            headers = [(b"date", formatdate(self.store.wall(), usegmt=True).encode())]
            for line in lines:
                name, _, value = line.partition(": ")
                headers.append((name.lower().encode(), value.encode()))
            said = b"%d" % len(self.asked) if body is None else body
            return Reply(status, headers, b"" if status in {204, 304} else said)

        return answer

    async def _proceed(self, exchange: Exchange) -> Reply:
        self.asked.append(list(exchange.headers))
        return await self.answer(exchange)

    async def __call__(self, exchange: Exchange) -> Reply:
        try:
            return await self.cache(exchange, self._proceed)
        finally:
            exchange.finish()

    async def get(self, target: str = "/x", **fields: str) -> Reply:
        return await self(request(target=target, **fields))

    async def reused(self, *, after: float = 0.0, **fields: str) -> bool:
        """Whether the second of two like requests is answered without asking."""
        await self.get(**fields)
        self.clock.advance(after)
        before = len(self.asked)
        await self.get(**fields)
        return len(self.asked) == before
