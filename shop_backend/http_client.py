"""HTTP for what is asked about every order: by aiohttp, whose call costs a sixth of one by httpx."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import aiohttp

_CONNECT = 2.0  # seconds
# Seconds; less than servers commonly wait (uvicorn: 5), so that they seldom hang up just as we ask again.
_KEPT = 4.0


class NoAnswer(Exception):  # noqa: N818 - reads as what it says
    """The server can't be reached, took too long, or did not speak HTTP."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said."""

    status: int
    body: bytes


class HttpClient:
    """Calls servers over connections that are kept. Follows no redirect, keeps no cookie, asks no proxy.

    Args:
        at_once: calls under way; who comes when there are so many waits, and has its whole time left then.
        timeout: seconds for one call.
        max_answer: bytes of an answer that are read; the rest is dropped, and its connection with it.
        headers: of every call.
    """

    def __init__(
        self, *, at_once: int, timeout: float, max_answer: int, headers: Mapping[str, str] | None = None
    ) -> None:
        self._slots = asyncio.Semaphore(at_once)
        self._timeout = timeout
        self._max_answer = max_answer
        self._headers = {"accept-encoding": "identity", **(headers or {})}
        self._session: aiohttp.ClientSession | None = None  # made by the first call: it wants a running loop

    async def ask(
        self, method: str, url: str, *, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """The answer to one request, whatever its status.

        Raises:
            NoAnswer: there is none; the request may have been understood.
        """
        async with self._slots:
            try:
                async with self._opened().request(
                    method, url, data=body, headers=headers, allow_redirects=False
                ) as response:
                    return Answer(response.status, await self._beginning(response.content))
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                # No more of an error by HTTP than its name: it quotes what the server sent.
                detail = f": {error}" if isinstance(error, OSError) and str(error) else ""
                raise NoAnswer(type(error).__name__ + detail) from error

    async def close(self) -> None:
        """Close its connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_KEPT),
                cookie_jar=aiohttp.DummyCookieJar(),
                headers=self._headers,
                timeout=aiohttp.ClientTimeout(total=self._timeout, sock_connect=_CONNECT),
                auto_decompress=False,
            )
        return self._session

    async def _beginning(self, content: aiohttp.StreamReader) -> bytes:
        chunks: list[bytes] = []
        size = 0
        async for chunk in content.iter_any():
            chunks.append(chunk)
            size += len(chunk)
            if size > self._max_answer:
                break
        return b"".join(chunks)[: self._max_answer]
