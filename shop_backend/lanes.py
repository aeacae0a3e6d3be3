"""HTTP clients with one connection each.

httpx looks through its whole pool for every request and every answer: with 32 connections a request takes
twice the processor time of one on a connection of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from collections.abc import AsyncIterator
from typing import Any

import httpx


class Lanes:
    """So many requests at once, each by a client that does nothing else meanwhile; the last used goes first.

    Args:
        count: how many; who comes when all are busy waits.
        options: of each `httpx.AsyncClient`.
    """

    def __init__(self, count: int, **options: Any) -> None:  # noqa: ANN401 - httpx's own
        self._slots = asyncio.Semaphore(count)
        self._options = options
        self._free: list[httpx.AsyncClient] = []
        self._all: list[httpx.AsyncClient] = []

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[httpx.AsyncClient]:
        """A client of the caller's own, until the end of `async with`."""
        async with self._slots:
            client = self._free.pop() if self._free else self._new()
            try:
                yield client
            finally:
                self._free.append(client)

    async def close(self) -> None:
        """Close their connections."""
        for client in self._all:
            await client.aclose()

    def _new(self) -> httpx.AsyncClient:
        client = httpx.AsyncClient(
            limits=httpx.Limits(max_connections=1, max_keepalive_connections=1),
            verify=_trust(),
            **self._options,
        )
        self._all.append(client)
        return client


@functools.cache
def _trust() -> ssl.SSLContext:
    """What httpx trusts; read from disk once, not by each client."""
    return httpx.create_ssl_context()
