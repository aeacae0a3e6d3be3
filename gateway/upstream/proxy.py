"""The way to an upstream: pick a server, send the request, hand on the answer, retry what may be."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable
from typing import Any, Final

from gateway import config
from gateway.errors import PoolExhausted, RequestTimeout, UpstreamError, UpstreamTimeout
from gateway.exchange import Clock, Exchange, Header, Reply
from gateway.upstream.balance import Balancer, Server
from gateway.upstream.body import BodyStream, Upload
from gateway.upstream.forward import request_head
from gateway.upstream.health import keep_probing
from gateway.upstream.http1 import READ_HIGH, Connection
from gateway.upstream.pool import Endpoint, Pool, tls_context
from gateway.upstream.retries import RetryBudget

# RFC 9110, 9.2.2; TRACE is refused.
_IDEMPOTENT: Final = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_CHALLENGES: Final = frozenset({401, 407})


def _binds(headers: Header) -> bool:
    """Whether a challenge asks for what is proven once for a whole connection, against RFC 9110, 11.4 or not.

    On a connection that others share, they would be taken for whoever proves it.
    """
    return any(
        name in {b"www-authenticate", b"proxy-authenticate"}
        and value.lstrip()[:4].lower() in {b"ntlm", b"nego"}
        for name, value in headers
    )


class _Unanswered(Exception):  # noqa: N818 - no error yet: send() decides whether it becomes one
    """Not one byte of an answer came.

    Attributes:
        error: what to raise when it is not retried.
        race: the server closed an idle connection just as we wrote; nobody's fault.
    """

    def __init__(self, error: UpstreamError, *, race: bool) -> None:
        super().__init__(error)
        self.error = error
        self.race = race


class Upstream:
    """A service behind the gate, on one or more servers.

    Used as the last Handler of a route's chain. Must be started and closed on the loop it serves.
    """

    def __init__(self, name: str, settings: config.Upstream, *, clock: Clock = time.monotonic) -> None:
        self.name = name
        self._settings = settings
        self._clock = clock
        self._total = settings.timeout.total
        secure = any(url.startswith("https:") for url in settings.servers)
        tls = tls_context(settings.tls) if secure else None
        servers = []
        for url in settings.servers:
            endpoint = Endpoint.parse(url, settings, clock=clock, tls=tls)
            pool = Pool(endpoint, size=settings.max_connections, keep_alive=settings.keep_alive)
            servers.append(Server(url, endpoint, pool))
        self._balancer = Balancer(servers, clock=clock)
        self._budget = RetryBudget(settings.retries.budget, clock=clock)
        self._probes: list[asyncio.Task[None]] = []

    # ---- life ----

    async def start(self) -> None:
        """Begin to probe the servers, if the settings ask for it."""
        health = self._settings.health
        if health is None or self._probes:
            return
        for server in self._balancer.servers:
            probing = keep_probing(server.endpoint, server.health, health, self._balancer.refresh)
            self._probes.append(asyncio.create_task(probing, name=f"probe {self.name} {server.url}"))

    async def aclose(self) -> None:
        """Stop probing and close what is idle. Exchanges under way end in peace, then their connections."""
        probes, self._probes = self._probes, []
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)
        for server in self._balancer.servers:
            server.pool.close()

    def servers(self) -> list[dict[str, Any]]:
        """What an operator wants to know of each server."""
        now = self._clock()
        return [
            {
                "url": server.url,
                "healthy": self._balancer.well(server),
                "seconds_left": max(0.0, server.health.ejected_until - now),  # of its ejection
                "failures": server.health.failures,  # in a row
                "in_flight": server.pool.load,  # connections, and who waits for one
                "idle": server.pool.idle,
            }
            for server in self._balancer.servers
        ]

    # ---- one exchange ----

    def __call__(self, exchange: Exchange) -> Awaitable[Reply]:
        """Send with the upstream's own timeout."""
        return self.send(exchange, self._clock() + self._total)

    def send(self, exchange: Exchange, deadline: float) -> Awaitable[Reply]:
        """Forward a request, and hand on its answer as soon as the header is there.

        Args:
            exchange: the request; gets `upstream_seconds`, the time to the header.
            deadline: for the header, on the clock.

        Raises:
            UpstreamError: the upstream refused, broke off before its header, or answered garbage.
            UpstreamTimeout: no header by the deadline.
            PoolExhausted: every connection stayed busy; no fault of the upstream's.
            RequestTimeout: the client did not send its body by the deadline.
            ClientGone: the client left while its body was being read.
            PayloadTooLarge, BadRequest: the body is too large, or not as long as announced.
        """
        comes = exchange.has_body and exchange.receive is not None
        return self._try(exchange, None if comes else exchange.whole or b"", deadline)

    async def _try(self, exchange: Exchange, body: bytes | None, deadline: float) -> Reply:
        """Ask one server, and if that brought nothing, where it may be, another one."""
        now = self._clock()
        head = request_head(exchange, deadline - now)
        self._budget.request(now)
        server = self._balancer.pick()
        try:
            return await self._attempt(server, exchange, head, body, deadline, now, fresh=False)
        except _Unanswered as unanswered:
            first = unanswered
        if exchange.has_body or exchange.method not in _IDEMPOTENT or self._clock() >= deadline:
            raise first.error
        if not first.race:
            if not self._budget.try_retry():
                raise first.error
            server = self._balancer.pick(avoid=server)
        try:
            return await self._attempt(server, exchange, head, body, deadline, self._clock(), fresh=True)
        except _Unanswered as second:
            raise second.error from first.error

    async def _attempt(
        self,
        server: Server,
        exchange: Exchange,
        head: bytes,
        body: bytes | None,
        deadline: float,
        began: float,
        *,
        fresh: bool,
    ) -> Reply:
        """Ask one server once, now that it `began`; `body` is None when it has to be streamed."""
        pool = server.pool
        queued, sent = False, began
        connection = None if fresh else pool.take()
        if connection is None:
            queued = pool.full
            try:
                connection = await pool.acquire(deadline, fresh=fresh)
            except UpstreamError as error:
                self._balancer.failed(server)
                raise _Unanswered(error, race=False) from error
            sent = self._clock()
        upload: Upload | None = None
        try:
            head_only = exchange.method == "HEAD"
            if body is None:
                connection.send(head, head_only=head_only, whole=False)
                upload = Upload(connection, exchange, self._clock)
            else:
                connection.send(head + body if body else head, head_only=head_only)
            reader = connection.reader
            while not reader.head_done:
                await connection.coming(deadline)
            asked = sent if upload is None else upload.wrote_at  # how long a client sends is not its doing
            exchange.upstream_seconds = self._clock() - asked
            if not reader.buffered and not reader.complete and 0 < (reader.length or 0) <= READ_HIGH:
                # Most servers send header and body as two segments: await the second, to answer in one.
                # Should it break off instead, the stream says so: after the header, that is no 502.
                with contextlib.suppress(UpstreamError):
                    await connection.more(self._clock() + self._total)
        except UpstreamTimeout:
            self._drop(server, connection, upload)
            if upload is not None and upload.waits_for_client:
                raise RequestTimeout("the request's body did not arrive in time") from None
            if queued and sent - began > deadline - sent:  # most of its time was lost in our own queue
                detail = "waited too long for a connection to the upstream; come back shortly"
                raise PoolExhausted(detail, retry_after=1.0) from None
            self._balancer.failed(server)
            raise
        except UpstreamError as error:
            answered, race = connection.reader.answered, connection.served > 0
            self._drop(server, connection, upload)
            if answered:
                self._balancer.failed(server)
                raise
            if not race:
                self._balancer.failed(server)
            raise _Unanswered(error, race=race) from error
        except BaseException:  # the client's doing, or a cancellation
            self._drop(server, connection, upload)
            raise
        return self._reply(server, exchange, connection, upload)

    def _reply(
        self, server: Server, exchange: Exchange, connection: Connection, upload: Upload | None
    ) -> Reply:
        reader = connection.reader
        status, headers = reader.status, reader.headers
        if status in _CHALLENGES and _binds(headers):
            reader.keep_alive = False
        if status < 500:
            self._balancer.succeeded(server)
        else:
            self._balancer.failed(server)
        if not reader.complete:
            stream = BodyStream(
                connection, server.pool, exchange, upload, idle=self._total, clock=self._clock
            )
            return Reply(status, headers, stream=stream)
        whole = connection.take()
        if upload is not None:
            upload.stop()
        server.pool.release(connection)
        if reader.length is None and exchange.method != "HEAD" and status not in {204, 304}:
            headers = [*headers, (b"content-length", b"%d" % len(whole))]
        return Reply(status, headers, whole)

    @staticmethod
    def _drop(server: Server, connection: Connection, upload: Upload | None) -> None:
        if upload is not None:
            upload.stop()
        connection.abort()
        server.pool.release(connection)
