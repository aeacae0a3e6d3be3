"""A bounded pool of connections to one server. Decides first, does I/O after."""

from __future__ import annotations

import asyncio
import ssl
from collections import OrderedDict
from dataclasses import dataclass
from typing import cast
from urllib.parse import urlsplit

from gateway import config
from gateway.errors import PoolExhausted, UpstreamError, UpstreamTimeout
from gateway.exchange import Clock
from gateway.upstream.http1 import Connection
from gateway.walk import in_task


def tls_context(settings: config.Tls) -> ssl.SSLContext:
    """How https servers are verified.

    Raises:
        OSError: `ca_file` can't be read or holds no certificate.
    """
    context = ssl.create_default_context(cafile=settings.ca_file)
    context.set_alpn_protocols(["http/1.1"])
    if not settings.verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a server listens, and how it is reached.

    Attributes:
        authority: for the Host field of our own requests.
        server_name: the name that its certificate must carry.
        connect_timeout: seconds.
    """

    host: str
    port: int
    authority: str
    connect_timeout: float
    clock: Clock
    tls: ssl.SSLContext | None = None
    server_name: str | None = None

    @classmethod
    def parse(
        cls, url: str, settings: config.Upstream, *, clock: Clock, tls: ssl.SSLContext | None
    ) -> Endpoint:
        """The endpoint of one of `settings.servers`; `tls` serves those with https."""
        parts = urlsplit(url)
        secure = parts.scheme == "https"
        host = parts.hostname or ""
        return cls(
            host=host,
            port=parts.port or (443 if secure else 80),
            authority=parts.netloc,
            connect_timeout=settings.timeout.connect,
            clock=clock,
            tls=tls if secure else None,
            server_name=(settings.tls.server_name or host) if secure else None,
        )

    async def connect(self, connection: Connection, deadline: float) -> None:
        """Open `connection`.

        Raises:
            UpstreamError: refused, unreachable, or its certificate is not to be trusted.
            UpstreamTimeout: not within the connect timeout, or by the deadline (on the clock).
        """
        await in_task()
        allowed = min(self.connect_timeout, deadline - self.clock())
        protocol = cast("asyncio.Protocol", connection)
        try:
            async with asyncio.timeout(max(0.0, allowed)):
                await asyncio.get_running_loop().create_connection(
                    lambda: protocol, self.host, self.port, ssl=self.tls, server_hostname=self.server_name
                )
        except TimeoutError as error:
            connection.abort()
            raise UpstreamTimeout("the upstream did not accept a connection in time") from error
        except (OSError, UnicodeError) as error:
            connection.abort()
            raise UpstreamError("the upstream refused the connection") from error
        except BaseException:
            connection.abort()
            raise


class Pool:
    """Connections to one server: at most so many, the last used first, waiters in order of arrival.

    Every connection, and every permit to open one, is in exactly one hand: an exchange's, a waiter's or the
    idle set's. So idle connections and waiters never exist at the same time.
    """

    def __init__(self, endpoint: Endpoint, *, size: int, keep_alive: float) -> None:
        self._endpoint = endpoint
        self._clock = endpoint.clock
        self._size = size
        self._keep_alive = keep_alive  # seconds; 0: every connection serves once
        self._total = 0  # leased, idle and being opened
        self._idle: dict[Connection, None] = {}  # last in, first out: the rest may expire
        self._waiters: OrderedDict[asyncio.Future[Connection | None], None] = OrderedDict()
        self._closing = False

    # ---- figures ----

    @property
    def idle(self) -> int:
        """Connections at rest."""
        return len(self._idle)

    @property
    def in_use(self) -> int:
        """Connections leased or being opened."""
        return self._total - len(self._idle)

    @property
    def load(self) -> int:
        """Exchanges that hold a connection or wait for one."""
        return self._total - len(self._idle) + len(self._waiters)

    @property
    def full(self) -> bool:
        """Whether the next exchange has to wait."""
        return self._total >= self._size and not self._idle

    # ---- lease and return ----

    def take(self) -> Connection | None:
        """An idle connection, if there is one."""
        while self._idle:
            connection, _ = self._idle.popitem()
            if not connection.closed and connection.expires > self._clock():
                connection.leased = True
                connection.wake()
                return connection
            self._total -= 1
            connection.abort()
        return None

    async def acquire(self, deadline: float, *, fresh: bool = False) -> Connection:
        """A connection, idle or newly opened; `fresh` when idle ones are not to be trusted.

        Raises:
            PoolExhausted: all stayed busy until the deadline (on the clock).
            UpstreamError: a new one could not be opened.
            UpstreamTimeout: not in time.
        """
        if fresh:
            self._retire_one()
        else:
            connection = self.take()
            if connection is not None:
                return connection
        if self._total < self._size:
            self._total += 1
        else:
            connection = await self._wait(deadline)
            if connection is not None:
                if not connection.closed:
                    return connection
                connection.leased = False  # closed on the way to us; its place is ours
            granted = self._clock()
            try:
                return await self._open(deadline)
            except UpstreamTimeout as error:
                if deadline - granted < self._endpoint.connect_timeout:  # our queue left it too little time
                    raise _exhausted() from error
                raise
        return await self._open(deadline)

    def release(self, connection: Connection) -> None:
        """Take a leased connection back: to a waiter, to rest, or to be closed. Safe to call again."""
        if not connection.leased:
            return
        if not connection.reusable or self._closing or self._keep_alive <= 0:
            connection.leased = False
            connection.abort()
            self._permit_freed()
            return
        connection.rest(self._clock() + self._keep_alive)
        waiter = self._next_waiter()
        if waiter is not None:
            connection.wake()
            waiter.set_result(connection)
        else:
            connection.leased = False
            self._idle[connection] = None

    def close(self) -> None:
        """Close what is idle, and from now on whatever comes back. Exchanges under way go on."""
        self._closing = True
        while self._idle:
            connection, _ = self._idle.popitem()
            self._total -= 1
            connection.abort()

    # ---- inside ----

    async def _wait(self, deadline: float) -> Connection | None:
        """A connection handed over, or None: the permit to open one."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[Connection | None] = loop.create_future()
        self._waiters[waiter] = None
        timer = loop.call_later(max(0.0, deadline - self._clock()), self._expire, waiter)
        try:
            return await waiter
        except asyncio.CancelledError:
            if waiter.done() and not waiter.cancelled() and waiter.exception() is None:
                # Cancelled between the hand-over and waking up: pass it on.
                granted = waiter.result()
                if granted is None:
                    self._permit_freed()
                else:
                    self.release(granted)
            raise
        finally:
            timer.cancel()
            self._waiters.pop(waiter, None)

    @staticmethod
    def _expire(waiter: asyncio.Future[Connection | None]) -> None:
        if not waiter.done():
            waiter.set_exception(_exhausted())

    async def _open(self, deadline: float) -> Connection:
        connection = Connection(clock=self._clock, on_lost=self._lost)
        try:
            await self._endpoint.connect(connection, deadline)
        except BaseException:
            self._permit_freed()
            raise
        connection.leased = True
        return connection

    def _retire_one(self) -> None:
        """Make room by closing the idle connection that rested longest, when the pool is full."""
        if self._total >= self._size and self._idle:
            connection = next(iter(self._idle))
            del self._idle[connection]
            self._total -= 1
            connection.abort()

    def _permit_freed(self) -> None:
        waiter = self._next_waiter()
        if waiter is not None:
            waiter.set_result(None)
        else:
            self._total -= 1

    def _next_waiter(self) -> asyncio.Future[Connection | None] | None:
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            if not waiter.done():
                return waiter
        return None

    def _lost(self, connection: Connection) -> None:
        """A connection is gone; leased ones are counted off when they come back."""
        if connection in self._idle:
            del self._idle[connection]
            self._total -= 1


def _exhausted() -> PoolExhausted:
    return PoolExhausted("every connection to the upstream is busy; come back shortly", retry_after=1.0)
