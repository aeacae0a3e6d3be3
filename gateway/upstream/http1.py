"""One HTTP/1.1 connection to an upstream: one request at a time, back-pressure both ways."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Final, cast

from gateway import tcp
from gateway.errors import UpstreamError, UpstreamTimeout
from gateway.exchange import Clock
from gateway.upstream.response import ResponseReader
from gateway.walk import Waiter

# Reading pauses above this; the read under way may add up to 256 KiB, the event loop's own bound.
READ_HIGH: Final = 64 << 10  # bytes
REST_LATE: Final = 1.0  # seconds that an idle connection may outlive its time; saves a timer per request
WRITE_HIGH: Final = 64 << 10  # bytes; writers wait above this


class Connection:
    """One client connection, leased to one exchange at a time.

    To the event loop it is an `asyncio.Protocol` in all but name: what derives from that can't be compiled.

    Attributes:
        reader: the answer under way.
        leased: belongs to an exchange; else it rests in its pool, or is closed.
        closed: of no more use.
        sent: the whole request is written.
        served: answers that ended well.
        expires: when resting, until when it may be used again; on the clock.
    """

    __slots__ = (
        "_clock",
        "_deadline",
        "_drained",
        "_error",
        "_loop",
        "_on_lost",
        "_paused",
        "_timer",
        "_timer_at",
        "_transport",
        "_waiter",
        "_writable",
        "closed",
        "expires",
        "leased",
        "reader",
        "sent",
        "served",
    )

    def __init__(
        self,
        *,
        clock: Clock,
        on_lost: Callable[[Connection], None] | None = None,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._clock = clock
        self._loop = loop or asyncio.get_running_loop()
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._waiter = Waiter()  # of whoever wants header or body
        self._drained: asyncio.Future[None] | None = None  # of whoever writes
        self._writable = True
        self._paused = False
        self._error: BaseException | None = None
        self._deadline = math.inf
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = math.inf
        self.reader = ResponseReader()
        self.leased = False
        self.closed = False
        self.sent = True
        self.served = 0
        self.expires = math.inf

    # ---- a request ----

    def send(self, data: bytes, *, head_only: bool = False, whole: bool = True) -> None:
        """Begin a request; `whole` unless `write` is to bring more of its body."""
        self.reader.begin(head_only=head_only)
        self._error = None
        self.sent = whole
        if self._transport is None or self.closed:
            self._error = UpstreamError("the upstream closed the connection")
            return
        self._transport.write(data)

    def write(self, data: bytes) -> None:
        """Send a piece of the request's body; `drain` before the next."""
        if self._transport is not None and not self.closed:
            self._transport.write(data)

    async def drain(self) -> None:
        """Wait until the upstream has taken enough to be sent more, or the connection is closed."""
        while not self._writable and not self.closed:
            self._drained = self._loop.create_future()
            try:
                await self._drained
            finally:
                self._drained = None

    # ---- its answer ----

    async def head(self, deadline: float) -> None:
        """Wait until `reader` has status and headers.

        Raises:
            UpstreamError: the upstream broke off or answered garbage.
            UpstreamTimeout: there was no header by the deadline (on the clock).
        """
        while not self.reader.head_done:
            await self.coming(deadline)

    async def more(self, deadline: float) -> None:
        """Wait until the body goes on or ends.

        Raises:
            UpstreamError: the upstream broke off or sent garbage.
            UpstreamTimeout: nothing came by the deadline (on the clock).
        """
        while not self.reader.buffered and not self.reader.complete:
            await self.coming(deadline)

    def take(self) -> bytes:
        """The body bytes that came since the last call; reading goes on."""
        data = self.reader.take()
        if self._paused:
            self._resume()
        return data

    def coming(self, deadline: float) -> Waiter:
        """What to await for the next bytes of the answer, or for its end.

        Raises:
            UpstreamError: the upstream broke off or sent garbage.
        """
        if self._error is not None:
            raise self._error
        if self.closed:
            raise UpstreamError("the upstream closed the connection")
        self._deadline = deadline
        if self._timer is None or deadline < self._timer_at:
            self._arm()
        return self._waiter

    # ---- its end ----

    @property
    def reusable(self) -> bool:
        """Whether another request may follow on this connection."""
        reader = self.reader
        return reader.complete and reader.keep_alive and self.sent and not reader.stray and not self.closed

    def rest(self, expires: float) -> None:
        """Lie idle until taken up again, at most until `expires` (on the clock)."""
        self.served += 1
        self.expires = self._deadline = expires
        # An armed timer that fires a little later will do: whoever takes it up looks at `expires` first.
        if self._timer is None or self._timer_at > expires + REST_LATE:
            self._arm()
        if self._paused:
            self._resume()

    def wake(self) -> None:
        """Leave the rest for a new request."""
        self._deadline = self.expires = math.inf

    def fail(self, error: BaseException) -> None:
        """Give `error` to whoever waits for the answer, and close."""
        if self._error is None:
            self._error = error
        self.abort()

    def abort(self) -> None:
        """Close at once; what is under way fails."""
        if not self.closed:
            self.closed = True
            if self._transport is not None:
                self._transport.abort()
        self._disarm()
        self._notify()

    # ---- called by the event loop ----

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection is open."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        self._transport.set_write_buffer_limits(high=WRITE_HIGH)
        if self.closed:  # given up while it was being opened
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self.closed:
            return
        reader = self.reader
        if not self.leased or reader.complete:
            reader.stray = True  # bytes that answer no request: what follows can't be trusted
            self.abort()
            return
        try:
            reader.feed(data)
        except UpstreamError as error:
            self.fail(error)
            return
        if reader.head_done:
            if reader.buffered > READ_HIGH and not reader.complete and self._transport is not None:
                self._paused = True
                self._transport.pause_reading()
            self._deadline = math.inf  # whoever goes on waiting says until when
            self._waiter.wake()

    def eof_received(self) -> bool:
        """The upstream sends no more."""
        if not self.reader.eof() and self._error is None:
            self._error = UpstreamError("the upstream closed the connection before the end of its answer")
        self.abort()  # rather than wait until it has taken a request it won't answer
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone."""
        reader, transport = self.reader, self._transport
        if exc is not None and transport is not None and self.leased and not (self.closed or reader.complete):
            # Whoever refuses a body hangs up amid it: we fail to send the rest before we have read why.
            said = tcp.last_words(transport)
            try:
                if said:
                    reader.feed(said)
            except UpstreamError as error:
                self._error = error
        self.closed = True
        self._disarm()
        if not reader.complete and self._error is None:
            self._error = UpstreamError("the upstream broke the connection off")
            self._error.__cause__ = exc
        self._notify()
        self._transport = None
        if self._on_lost is not None:
            self._on_lost(self)

    def pause_writing(self) -> None:
        """The upstream reads slower than the client sends."""
        self._writable = False

    def resume_writing(self) -> None:
        """It caught up."""
        self._writable = True
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)

    # ---- inside ----

    def _notify(self) -> None:
        if self._drained is not None and not self._drained.done():
            self._drained.set_result(None)
        self._waiter.wake()

    def _resume(self) -> None:
        self._paused = False
        if self._transport is not None and not self.closed:
            self._transport.resume_reading()

    def _arm(self) -> None:
        # One timer outlives many requests: it looks at the deadline of the moment when it fires.
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = self._deadline
        self._timer = self._loop.call_later(max(0.001, self._deadline - self._clock()), self._tick)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
            self._timer_at = math.inf

    def _tick(self) -> None:
        self._timer = None
        self._timer_at = math.inf
        if self.closed or self._deadline == math.inf:
            return
        if self._clock() < self._deadline:
            self._arm()
        elif self.leased:
            self.fail(UpstreamTimeout("the upstream sent nothing more within its timeout"))
        else:
            self.abort()  # rested long enough
