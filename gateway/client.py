"""One client connection: bytes in, requests to the app one by one, answers out in order; bounded and timed.

uvicorn accepts, drains and counts connections; this is what it makes of each. Section numbers are those of
RFC 9112 unless another is named.
"""

from __future__ import annotations

import asyncio
import math
import sys
from email.utils import formatdate
from typing import Any, Final, cast

import uvicorn
from uvicorn.server import ServerState

from gateway import tcp
from gateway.answer import Answer
from gateway.bounds import Bounds
from gateway.head import WholeRequest
from gateway.intake import Client, Intake
from gateway.timed import Timed
from gateway.turn import Turn
from gateway.whole import App, WholeTurn

# Seconds that a client may go on sending after its last answer, so that it can read that.
_LINGER: Final = 2.0
_LINGER_BYTES: Final = 8 << 20
_LAST_REQUEST: Final = 0.25  # seconds; when draining, an idle connection may still bring a request under way
# Seconds; the same for one that never brought any, and must not be closed on lightly.
_FIRST_REQUEST: Final = 1.0
_PROBE: Final = 0.02  # seconds until the second look whether a half-closed client is still there; doubles
_PROBE_MOST: Final = 1.0


class ClientConnection(Timed, Client):
    """The server's side of one connection.

    One turn at a time is in the app's hands; what was read behind it waits in the intake.
    To the event loop it is an `asyncio.Protocol` in all but name: what derives from that can't be compiled.

    Attributes:
        bounds: what the client is held to, and who answers it.
        turn: the one in the app's hands.
        stopped: nothing that still comes is a request.
        paused: nothing is read until there is room for it.
        blocked: the client reads slower than we write.
    """

    __slots__ = (
        *("_address", "_app", "_began", "_draining", "_eof", "_intake", "_lingers", "_state"),
        *("_transport", "_writable", "blocked", "bounds", "paused", "stopped", "turn"),
    )

    def __init__(
        self,
        bounds: Bounds,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],  # noqa: ARG002 - uvicorn hands it over; there is no lifespan
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        loop = _loop or asyncio.get_running_loop()
        super().__init__(loop, bounds.wheel, bounds.listen.header_timeout)
        # Compiled, attributes lie in this order. Of thousands of connections none is in a processor's cache
        # when its request comes: what each request asks of its own stands together, the rest behind it.
        self.bounds = bounds
        self._state = server_state
        self._transport: asyncio.Transport | None = None
        self._address = ""
        self._intake: Intake | None = None  # most connections bring nothing that needs one
        self.turn: Answer | None = None
        self._began = False  # some request has
        self.paused = False
        self.stopped = False
        self.blocked = False
        self._eof = False
        self._draining = False
        self._lingers = 0  # bytes that may still be thrown away; 0: not closing
        self._writable: asyncio.Future[None] | None = None
        self._app: Any = config.loaded_app

    # ---- a connection opens, and brings bytes ------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came; it has so long to say something."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self._address = sys.intern(str(peer[0]))  # behind a proxy, or a carrier's NAT, many have one
        self._state.connections.add(self)  # type: ignore[arg-type]  # uvicorn names its own classes only
        self.due(self.bounds.listen.header_timeout)
        self.arm()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self.stopped:
            if self._lingers:
                self._lingers -= len(data)
                if self._lingers <= 0:
                    self.abort()
            return
        bounds, intake = self.bounds, self._intake
        app = bounds.whole
        if app is not None and self.turn is None and (intake is None or not (intake.amid or intake.waits)):
            request = bounds.heads.read(data)
            if request is not None:
                self._serve(request, app)
                return
        if intake is None:
            intake = self._intake = Intake(self)
        intake.take(data)

    def stop(self) -> None:
        """No request comes any more, so nothing is due of the client."""
        self.stopped = True
        self.due(math.inf)

    def pause(self, *, paused: bool) -> None:
        """Read nothing for now, or go on."""
        transport = self._transport
        if paused != self.paused and transport is not None and not self._eof and not transport.is_closing():
            self.paused = paused
            if paused:
                transport.pause_reading()
            else:
                transport.resume_reading()

    # ---- turns -------------------------------------------------------------------------------

    def _serve(self, request: WholeRequest, app: App) -> None:
        """Answer a request that came whole, and alone."""
        self._began = True
        self.read_by = math.inf
        turn = WholeTurn(self, app, request, self._address)
        self.turn = turn
        turn.go()

    def begin(self, turn: Turn) -> None:
        """Answer a request that comes piece by piece; there is no other turn."""
        self._began = True
        self.turn = turn
        turn.go(self._app, self._state.tasks)

    def over(self, answer: Answer) -> None:
        """A turn is over: the next one begins, or the connection waits, or ends."""
        self._state.total_requests += 1
        self.turn = None
        if self._transport is None or self._transport.is_closing() or self._lingers:
            return
        intake = self._intake
        if not answer.complete:
            self.abort()  # nothing that is not whole may look whole
        elif not answer.keep_alive:
            self.hang_up()
        elif intake is not None and intake.behind:
            self.begin(intake.behind.pop(0))
        elif self._eof:
            self.hang_up()
        elif intake is None or not intake.amid:
            self.rest()
        if intake is not None and intake.waits:
            intake.go_on()

    def rest(self) -> None:
        """Wait for the next request, but not for ever."""
        self.due(_LAST_REQUEST if self._draining else self.bounds.listen.idle_timeout)
        if self.read_by < self.timer_at:
            self.arm()

    # ---- what a turn asks of its connection --------------------------------------------------

    def peer(self) -> tuple[str, int] | None:
        """Who the client is, as ASGI has it."""
        name = self._transport.get_extra_info("peername") if self._transport is not None else None
        return (self._address, int(name[1])) if isinstance(name, tuple) else None

    def write(self, data: bytes) -> None:
        """Send bytes."""
        if self._transport is not None:
            self._transport.write(data)

    async def drained(self) -> None:
        """Wait until the client has taken enough to be sent more, or is gone."""
        while self.blocked and self._transport is not None:
            self._writable = self.loop.create_future()
            try:
                await self._writable
            finally:
                self._writable = None

    def took(self) -> None:
        """The app took what there was of the body."""
        if self.paused and self._intake is not None:
            self._intake.go_on()

    def last(self) -> bool:
        """Whether no request can follow the one that is being answered."""
        if not (self._draining or self.stopped or self._eof):
            return False
        return self._intake is None or not self._intake.behind

    def date(self) -> bytes:
        """The line of a Date field with the time of day, as uvicorn renews it each second."""
        headers = self._state.default_headers
        return b"date: %b\r\n" % (headers[0][1] if headers else formatdate(usegmt=True).encode())

    def abort(self) -> None:
        """Cut the connection off, without an end that could be taken for a whole answer."""
        transport = self._transport
        if transport is not None:
            if self.turn is not None:
                self.turn.leave()
            tcp.reset(transport)

    # ---- a connection ends -------------------------------------------------------------------

    def eof_received(self) -> bool:
        """The client sends no more. It may still read (9.6), or be gone: a probe tells."""
        self._eof = True
        if self._intake is not None:
            self._intake.eof()
        if self._lingers or self.turn is None:
            return False
        self._look(_PROBE)
        return True

    def _look(self, wait: float) -> None:
        """See whether a half-closed client is still there: one that left resets what it is sent.

        The loop no longer reads, so it would not notice; and a client may leave later without a sign.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        if tcp.has_reset(transport):
            self.abort()
            return
        if self.turn is not None:
            self.turn.probe()
        self.loop.call_later(wait, self._look, min(2 * wait, _PROBE_MOST))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whatever the reason
        """The client left: what is done for it stops now, and its slots are free."""
        self._transport = None
        self.stopped = True
        self._state.connections.discard(self)
        self.disarm()
        if self._intake is not None:
            self._intake.drop()
        turn = self.turn
        if isinstance(turn, Turn):
            turn.cancel(self._state.tasks)
        if turn is not None:
            turn.leave()
        self.resume_writing()

    def shutdown(self) -> None:
        """Drain: what is in flight is answered as the last, and then the connection ends."""
        self._draining = True
        in_header = self._intake is not None and self._intake.in_header
        if self.turn is None and not in_header and self._transport is not None:
            grace = _LAST_REQUEST if self._began else _FIRST_REQUEST
            self.read_by = min(self.read_by, self.loop.time() + grace)
            self.arm()

    def hang_up(self) -> None:
        """Close after the last answer; a client that is still sending can read it first (9.6)."""
        transport, intake = self._transport, self._intake
        if transport is None or transport.is_closing():
            return
        now = self.loop.time()
        self.write_by = now + self.bounds.listen.write_timeout  # for a client that never reads it all
        sending = intake is not None and (intake.reading is not None or intake.waits or intake.behind)
        if self._eof or not (sending or self.stopped or self.turn is not None):
            transport.close()
        else:
            self._lingers = _LINGER_BYTES
            self.read_by = now + _LINGER
            if intake is not None:
                intake.drop()
            self.turn = None
            transport.write_eof()
            self.pause(paused=False)
        self.stopped = True
        self.arm()

    # ---- clocks ------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The client reads slower than the upstream sends; it has so long to catch up."""
        self.blocked = True
        self.write_by = self.loop.time() + self.bounds.listen.write_timeout
        self.arm()

    def resume_writing(self) -> None:
        """It caught up, or is gone."""
        self.blocked = False
        ending = self._lingers or (self._transport is not None and self._transport.is_closing())
        self.write_by = self.loop.time() + self.bounds.listen.write_timeout if ending else math.inf
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def late(self, now: float) -> None:
        """The client did not bring in time what was due."""
        transport, intake = self._transport, self._intake
        if transport is None:
            return
        if self._lingers:
            if transport.get_write_buffer_size():
                self.read_by = now + _LINGER  # it still reads, or `write_by` ends it
            else:
                transport.close()
        elif intake is not None and intake.amid:
            intake.late()
        elif self.turn is None:
            self.write_by = now + self.bounds.listen.write_timeout
            transport.close()
