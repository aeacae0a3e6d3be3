"""Bodies on their way: the client's to the upstream, the upstream's to the client."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

from gateway.errors import UpstreamError
from gateway.exchange import Clock, Exchange
from gateway.request_body import mismatch, pieces
from gateway.upstream.http1 import Connection
from gateway.upstream.pool import Pool


class Upload:
    """Streams a request's body while its answer is awaited: what was not read ahead of it.

    Attributes:
        waits_for_client: the client, not the upstream, is the slow one.
        wrote_at: when the last piece so far went to the upstream, on the clock.
    """

    __slots__ = ("_clock", "_connection", "_exchange", "_task", "waits_for_client", "wrote_at")

    def __init__(self, connection: Connection, exchange: Exchange, clock: Clock) -> None:
        self._connection = connection
        self._exchange = exchange
        self._clock = clock
        self.waits_for_client = False
        self.wrote_at = clock()
        self._task = asyncio.create_task(self._run())

    def stop(self) -> None:
        """The answer is there, or nobody wants it any more."""
        self._task.cancel()

    async def _run(self) -> None:
        connection, length = self._connection, self._exchange.content_length
        try:
            async with aclosing(pieces(self._exchange)) as coming:
                self.waits_for_client = True
                async for piece in coming:
                    self.waits_for_client = False
                    if length is None:
                        connection.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                    elif self._exchange.body_seen <= length:
                        connection.write(piece)
                    else:
                        break
                    self.wrote_at = self._clock()
                    await connection.drain()
                    if connection.closed:
                        return  # the answer, or its absence, says why
                    self.waits_for_client = True
            self.waits_for_client = False
            if length is None:
                connection.write(b"0\r\n\r\n")
            elif self._exchange.body_seen != length:
                connection.fail(mismatch(self._exchange))
            self.wrote_at = self._clock()
            connection.sent = True
        except Exception as error:  # noqa: BLE001 - whoever waits for the answer raises it
            connection.fail(error)


class BodyStream:
    """The rest of an answer, piece by piece as it comes; holds its connection until the end or `aclose`."""

    __slots__ = ("_clock", "_connection", "_exchange", "_idle", "_pool", "_upload")

    def __init__(
        self,
        connection: Connection,
        pool: Pool,
        exchange: Exchange,
        upload: Upload | None,
        *,
        idle: float,
        clock: Clock,
    ) -> None:
        self._connection: Connection | None = connection
        self._pool = pool
        self._exchange = exchange
        self._upload = upload
        self._idle = idle  # seconds that may pass between two pieces
        self._clock = clock

    def __aiter__(self) -> BodyStream:
        return self

    async def __anext__(self) -> bytes:
        """The bytes that came since the last call.

        Raises:
            UpstreamError: the upstream broke off; what came before must not look whole.
            UpstreamTimeout: nothing came for too long.
        """
        connection = self._connection
        if connection is None:
            raise StopAsyncIteration
        reader = connection.reader
        if not reader.buffered and not reader.complete:
            try:
                await connection.more(self._clock() + self._idle)
            except UpstreamError:
                self._exchange.broke_off = True
                self._leave()
                raise
            except BaseException:
                self._leave()
                raise
        data = connection.take()
        if reader.complete:
            self._leave()  # before the client has taken the last piece: the connection is free
            if not data:
                raise StopAsyncIteration
        return data

    async def aclose(self) -> None:
        """Give the connection back if the answer is complete, else close it. Safe to call again."""
        self._leave()

    def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if self._upload is not None:
            self._upload.stop()
        self._pool.release(connection)  # closes it unless the answer is complete
