"""One client connection: bytes in, requests to the app one by one, answers out in order; bounded and timed.

uvicorn accepts, drains and counts connections; this is what it makes of each. Section numbers are those of
RFC 9112 unless another is named.
"""

from __future__ import annotations

import asyncio
import math
from email.utils import formatdate
from typing import Any, cast

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

_LINGER = 2.0  # seconds that a client may go on sending after its last answer, so that it can read that
_LINGER_BYTES = 8 << 20
_LAST_REQUEST = 0.25  # seconds; when draining, an idle connection may still bring a request under way
_FIRST_REQUEST = 1.0  # seconds; the same for one that never brought any, and must not be closed on lightly
_PROBE = 0.02  # seconds until the second look whether a half-closed client is still there; doubles
_PROBE_MOST = 1.0


class ClientConnection(Timed, Client):
    """The server's side of one connection.

    A queue of turns holds what was read and is not yet answered, the first of them being in the app's hands.
    To the event loop it is an `asyncio.Protocol` in all but name: what derives from that can't be compiled.

    Attributes:
        bounds: what the client is held to, and who answers it.
        peer: who it is, as ASGI has it.
        turns: that queue.
        stopped: nothing that still comes is a request.
        paused: nothing is read until there is room for it.
        blocked: the client reads slower than we write.
    """

    __slots__ = (
        *("_address", "_app", "_began", "_draining", "_eof", "_intake", "_lingers", "_state"),
        *("_transport", "_writable", "blocked", "bounds", "paused", "peer", "stopped", "turns"),
    )

    def __init__(
        self,
        bounds: Bounds,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],  # noqa: ARG002 - uvicorn hands it over; there is no lifespan
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(_loop or asyncio.get_running_loop(), bounds.listen.header_timeout)
        self.bounds = bounds
        self._app: Any = config.loaded_app
        self._state = server_state
        self._transport: asyncio.Transport | None = None
        self.peer: tuple[str, int] | None = None
        self._address = ""
        # what is read
        self._intake: Intake | None = None  # most connections bring nothing that needs one
        self._began = False  # some request has
        self.paused = False
        self.stopped = False
        self._eof = False
        # what is answered
        self.turns: list[Answer] = []  # a deque would take half a kilobyte of each connection
        self.blocked = False
        self._writable: asyncio.Future[None] | None = None
        self._draining = False
        self._lingers = 0  # bytes that may still be thrown away; 0: not closing

    # ---- a connection opens, and brings bytes ------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came; it has so long to say something."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        peer = transport.get_extra_info("peername")
        if isinstance(peer, tuple):
            self._address = str(peer[0])
            self.peer = (self._address, int(peer[1]))
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
        if app is not None and not self.turns and (intake is None or not (intake.amid or intake.waits)):
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
        self.turns.append(turn)
        turn.go()

    def queue(self, turn: Turn) -> None:
        """A turn begins, or waits for those before it."""
        self._began = True
        self.turns.append(turn)
        if len(self.turns) == 1:
            turn.go(self._app, self._state.tasks)

    def over(self, answer: Answer) -> None:
        """A turn is over: the next one begins, or the connection waits, or ends."""
        self._state.total_requests += 1
        del self.turns[0]
        if self._transport is None or self._transport.is_closing():
            return
        intake = self._intake
        if not answer.complete:
            self.abort()  # nothing that is not whole may look whole
        elif not answer.keep_alive:
            self.hang_up()
        elif self.turns:
            turn = cast("Turn", self.turns[0])  # those that come whole come alone
            turn.go(self._app, self._state.tasks)
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

    def last(self, answer: Answer) -> bool:
        """Whether no request can follow the one of this answer."""
        return (self._draining or self.stopped or self._eof) and answer is self.turns[-1]

    def date(self) -> bytes:
        """The line of a Date field with the time of day, as uvicorn renews it each second."""
        headers = self._state.default_headers
        return b"date: %b\r\n" % (headers[0][1] if headers else formatdate(usegmt=True).encode())

    def abort(self) -> None:
        """Cut the connection off, without an end that could be taken for a whole answer."""
        transport = self._transport
        if transport is not None:
            for turn in tuple(self.turns):
                turn.leave()
            tcp.reset(transport)

    # ---- a connection ends -------------------------------------------------------------------

    def eof_received(self) -> bool:
        """The client sends no more. It may still read (9.6), or be gone: a probe tells."""
        self._eof = True
        if self._intake is not None:
            self._intake.eof()
        if self._lingers or not self.turns:
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
        if self.turns:
            self.turns[0].probe()
        self.loop.call_later(wait, self._look, min(2 * wait, _PROBE_MOST))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whatever the reason
        """The client left: what is done for it stops now, and its slots are free."""
        self._transport = None
        self.stopped = True
        self._state.connections.discard(self)
        self.disarm()
        if self._intake is not None:
            self._intake.drop()
        turns = tuple(self.turns)  # each may go as it is told
        if turns and isinstance(turns[0], Turn):
            turns[0].cancel(self._state.tasks)
        for turn in turns:
            turn.leave()
        self.resume_writing()

    def shutdown(self) -> None:
        """Drain: what is in flight is answered as the last, and then the connection ends."""
        self._draining = True
        in_header = self._intake is not None and self._intake.in_header
        if not self.turns and not in_header and self._transport is not None:
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
        sending = intake is not None and (intake.reading is not None or intake.waits)
        if self._eof or not (sending or self.stopped or self.turns):
            transport.close()
        else:
            self._lingers = _LINGER_BYTES
            self.read_by = now + _LINGER
            if intake is not None:
                intake.drop()
            self.turns.clear()
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
        elif not self.turns:
            self.write_by = now + self.bounds.listen.write_timeout
            transport.close()
