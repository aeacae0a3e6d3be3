"""One client connection: bytes in, requests to the app one by one, answers out in order; bounded and timed.

uvicorn accepts, drains and counts connections; this is its protocol class. Section numbers are those of
RFC 9112 unless another is named.
"""

from __future__ import annotations

import asyncio
import logging
import math
import socket
from email.utils import formatdate
from typing import Any, ClassVar, cast

import uvicorn
from uvicorn.server import ServerState

from gateway.answer import Answer
from gateway.config import Listen
from gateway.errors import BadRequest, GatewayError, RequestTimeout
from gateway.exchange import Headers
from gateway.guard import REFUSAL, TARGET
from gateway.head import HeadReader, WholeRequest
from gateway.request import SLICE, Head, RequestReader
from gateway.timed import Timed
from gateway.turn import Turn
from gateway.whole import App, WholeTurn

ABORT = "tidegate.abort"  # in the scope: cuts the connection off, so that no cut body looks whole

_log = logging.getLogger("gateway")
_PIPELINED = 16  # requests that may wait; then reading pauses
_HIGH = 64 << 10  # bytes of a body that may wait for the app; then reading pauses
_LINGER = 2.0  # seconds that a client may go on sending after its last answer, so that it can read that
_LINGER_BYTES = 8 << 20
_LAST_REQUEST = 0.25  # seconds; when draining, an idle connection may still bring a request under way
_FIRST_REQUEST = 1.0  # seconds; the same for one that never brought any, and must not be closed on lightly
_PROBE = 0.02  # seconds until the second look whether a half-closed client is still there; doubles
_PROBE_MOST = 1.0
_TCP_INFO: int | None = getattr(socket, "TCP_INFO", None)  # Linux
_TCP_CLOSE = 7  # its first byte when the peer has reset the connection
_RESET = b"\1\0\0\0\0\0\0\0"  # struct linger: closing resets


class ClientConnection(Timed):
    """The server's side of one connection.

    At any time it reads nothing (`_reading` None and not `_in_header`), a header, or a body; a queue of
    turns holds what was read and is not yet answered, the first of them being in the app's hands.
    """

    listen: ClassVar[Listen]
    heads: ClassVar[HeadReader]
    whole: ClassVar[App | None] = None  # answers requests that come whole; without it ASGI takes all

    __slots__ = (
        *("_address", "_app", "_began", "_client", "_draining", "_eof", "_lingers", "_paused"),
        *("_reader", "_reading"),
        *("_state", "_stopped", "_task", "_transport", "_turns", "_unfed", "_writable", "blocked"),
    )

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, Any],  # noqa: ARG002 - uvicorn hands it over; there is no lifespan
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(_loop or asyncio.get_running_loop(), self.listen.header_timeout)
        self.blocked = False
        self._app: Any = config.loaded_app
        self._state = server_state
        self._reader: RequestReader | None = None  # most connections bring nothing that needs one
        self._began = False  # some request has
        self._transport: asyncio.Transport | None = None
        self._client: tuple[str, int] | None = None
        self._address = ""
        # what is read
        self._unfed = bytearray()  # came, but is not yet parsed
        self._paused = False
        self._reading: Turn | None = None  # whose body comes next
        self._stopped = False  # nothing that still comes is a request
        self._eof = False
        # what is answered
        self._turns: list[Turn | WholeTurn] = []  # a deque would take half a kilobyte of each connection
        self._task: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._draining = False
        self._lingers = 0  # bytes that may still be thrown away; 0: not closing

    # ---- a connection opens, and brings bytes ------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client came; it has so long to say something."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one in all but name
        peer = transport.get_extra_info("peername")
        self._client = (str(peer[0]), int(peer[1])) if isinstance(peer, tuple) else None
        self._address = self._client[0] if self._client is not None else ""
        self._state.connections.add(self)  # type: ignore[arg-type]  # uvicorn names its own classes only
        self.read_by = self.loop.time() + self.listen.header_timeout
        self.arm()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        if self._stopped:
            if self._lingers:
                self._lingers -= len(data)
                if self._lingers <= 0:
                    self.abort()
            return
        whole = self.whole
        if (
            whole
            and not (self._turns or self._reading or self._unfed)
            and (self._reader is None or not self._in_header())
        ):
            request = self.heads.read(data)
            if request is not None:
                self._serve(request, whole)
                return
        if self._unfed or len(data) > SLICE:
            self._unfed += data
            self._pump()
        else:
            self._parse(data)

    def _pump(self) -> None:
        """Parse what waits, as far as there is room for what it holds."""
        unfed = self._unfed
        while unfed and not self._stopped and not self._full():
            piece = bytes(unfed[:SLICE])
            del unfed[:SLICE]
            self._parse(piece)
        if self._stopped:
            unfed.clear()
        self._pause(paused=bool(unfed) or self._full())

    def _full(self) -> bool:
        reading = self._reading
        return len(self._turns) >= _PIPELINED or (
            reading is not None and reading.size > _HIGH and not reading.complete
        )

    def _pause(self, *, paused: bool) -> None:
        transport = self._transport
        if paused != self._paused and transport is not None and not self._eof and not transport.is_closing():
            self._paused = paused
            if paused:
                transport.pause_reading()
            else:
                transport.resume_reading()

    def _parse(self, data: bytes) -> None:
        reader = self._reader
        if reader is None:
            reader = self._reader = RequestReader(self, self.listen)
        try:
            reader.feed(data)
        except GatewayError as error:
            self._broken(error)
            return
        if reader.upgraded:
            self._stopped = True  # the guard refuses it
            return
        if self._full():
            self._pause(paused=True)
        # Also when what is parsed was read long before: behind a pipeline nobody else would look in time.
        if (self._in_header() or self._reading is not None) and self.read_by < self.timer_at:
            self.arm()

    # ---- told by the reader ------------------------------------------------------------------

    def began(self) -> None:
        """A request begins; its header has so long to arrive."""
        self._began = True
        if self._reader is not None:
            self._reader.listen = self.listen
        self.read_by = self.loop.time() + self.listen.header_timeout

    def head(self, head: Head) -> None:
        """The header is whole: a turn begins, or waits for those before it; its body has so long."""
        scope = self._scope(head.method, head.version, head.target, head.headers)
        self._reading = turn = Turn(self, scope, keep_alive=head.keep_alive, expects=head.expects)
        self.read_by = self.loop.time() + self.listen.body_timeout
        self._queue(turn)

    def piece(self, body: bytes) -> None:
        """A piece of the body."""
        if self._reading is not None:
            self._reading.feed(body)

    def ended(self) -> None:
        """The request ended where its framing says."""
        turn, self._reading = self._reading, None
        if turn is not None:
            turn.end()
        if self._turns:
            self.read_by = math.inf
        else:  # it was answered before; this was the rest of its body
            self._idle()

    def _scope(self, method: str, version: str, target: bytes, headers: Headers) -> dict[str, Any]:
        return {
            "type": "http",
            "http_version": version,
            "method": method,
            "scheme": "http",
            "client": self._client,
            "headers": headers,
            TARGET: target,
            ABORT: self.abort,
        }

    def _broken(self, error: GatewayError) -> None:
        """No further request can be read. Whose body it was fails; else a turn of its own says why."""
        self._stopped = True
        self.read_by = math.inf  # as after any other request: until it is answered nothing is due
        if self._reading is not None:
            self._reading.fail(error)
            if self._reading.complete:  # answered already; this was the rest of its body
                self._hang_up()
            return
        if self._turns and not self._turns[-1].keep_alive:
            return  # what follows a request that is the last by its own word is none (9.6)
        scope = self._scope("", "1.1", b"", []) | {REFUSAL: error}
        self._queue(Turn(self, scope, keep_alive=False, more=False))

    def _in_header(self) -> bool:
        reader = self._reader
        return reader is not None and reader.in_header and not self._stopped

    # ---- turns -------------------------------------------------------------------------------

    def _serve(self, request: WholeRequest, app: App) -> None:
        """Answer a request that came whole, and alone."""
        self._began = True
        self.read_by = math.inf
        turn = WholeTurn(self, app, request, self._address)
        self._turns.append(turn)
        turn.go()

    def _queue(self, turn: Turn) -> None:
        self._turns.append(turn)
        if len(self._turns) == 1:
            self._begin(turn)

    def _begin(self, turn: Turn) -> None:
        self._task = task = self.loop.create_task(self._run(turn))
        self._state.tasks.add(task)

    async def _run(self, turn: Turn) -> None:
        """Let the app answer, then see what comes next."""
        try:
            await self._app(turn.scope, turn.receive, turn.send)
        except Exception:  # noqa: BLE001 - whatever it is, this connection ends and the others go on
            _log.exception("the app failed on a request")
        finally:
            self._state.tasks.discard(cast("asyncio.Task[None]", self._task))
            self._task = None
            self.over(turn)

    def over(self, turn: Turn | WholeTurn) -> None:
        """A turn is over: the next one begins, or the connection waits, or ends."""
        self._state.total_requests += 1
        del self._turns[0]
        if self._transport is None or self._transport.is_closing():
            return
        if not turn.complete:
            self.abort()  # nothing that is not whole may look whole
        elif not turn.keep_alive:
            self._hang_up()
        elif self._turns:
            self._begin(cast("Turn", self._turns[0]))  # those that come whole come alone
        elif self._eof:
            self._hang_up()
        elif self._reading is None and (self._reader is None or not self._in_header()):
            self._idle()
        if self._unfed or self._paused:
            self._pump()

    def _idle(self) -> None:
        """Wait for the next request, but not for ever."""
        self.read_by = self.loop.time() + (_LAST_REQUEST if self._draining else self.listen.idle_timeout)
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
        if self._paused:
            self._pump()

    def last(self, answer: Answer) -> bool:
        """Whether no request can follow the one of this answer."""
        return (self._draining or self._stopped or self._eof) and answer is self._turns[-1]

    def date(self) -> bytes:
        """The line of a Date field with the time of day, as uvicorn renews it each second."""
        headers = self._state.default_headers
        return b"date: %b\r\n" % (headers[0][1] if headers else formatdate(usegmt=True).encode())

    def abort(self) -> None:
        """Cut the connection off, without an end that could be taken for a whole answer."""
        transport = self._transport
        if transport is not None:
            for turn in tuple(self._turns):
                turn.leave()
            sock = transport.get_extra_info("socket")
            if sock is not None and sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)  # HTTP/1.0 knows no other sign
            transport.abort()

    # ---- a connection ends -------------------------------------------------------------------

    def eof_received(self) -> bool:
        """The client sends no more. It may still read (9.6), or be gone: a probe tells."""
        self._eof = True
        if self._in_header():
            self._broken(BadRequest("the connection ended in the middle of a header"))
        if self._reading is not None:
            self._reading.leave()
        if self._lingers or not self._turns:
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
        sock = transport.get_extra_info("socket")
        if _TCP_INFO is not None and sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)[0] == _TCP_CLOSE:
            self.abort()
            return
        if self._turns:
            self._turns[0].probe()
        self.loop.call_later(wait, self._look, min(2 * wait, _PROBE_MOST))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - whatever the reason
        """The client left: what is done for it stops now, and its slots are free."""
        self._transport = None
        self._stopped = True
        self._state.connections.discard(self)
        self.disarm()
        self._unfed.clear()
        task = self._task
        if task is not None and self._turns and not self._turns[0].complete:
            task.cancel()
            self._state.tasks.discard(task)  # cancelled before its first step it never gets to do so
        for turn in tuple(self._turns):  # each may go as it is told
            turn.leave()
        self.resume_writing()

    def shutdown(self) -> None:
        """Drain: what is in flight is answered as the last, and then the connection ends."""
        self._draining = True
        if not self._turns and not self._in_header() and self._transport is not None:
            grace = _LAST_REQUEST if self._began else _FIRST_REQUEST
            self.read_by = min(self.read_by, self.loop.time() + grace)
            self.arm()

    def _hang_up(self) -> None:
        """Close after the last answer; a client that is still sending can read it first (9.6)."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        now = self.loop.time()
        self.write_by = now + self.listen.write_timeout  # for a client that never reads it all
        silent = self._reading is None and not (self._stopped or self._turns or self._unfed or self._paused)
        if self._eof or silent:
            transport.close()
        else:
            self._lingers = _LINGER_BYTES
            self.read_by = now + _LINGER
            self._unfed.clear()
            self._turns.clear()
            transport.write_eof()
            self._pause(paused=False)
        self._stopped = True
        self.arm()

    # ---- clocks ------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The client reads slower than the upstream sends; it has so long to catch up."""
        self.blocked = True
        self.write_by = self.loop.time() + self.listen.write_timeout
        self.arm()

    def resume_writing(self) -> None:
        """It caught up, or is gone."""
        self.blocked = False
        ending = self._lingers or (self._transport is not None and self._transport.is_closing())
        self.write_by = self.loop.time() + self.listen.write_timeout if ending else math.inf
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def late(self, now: float) -> None:
        """The client did not bring in time what was due."""
        transport = self._transport
        if transport is None:
            return
        if self._lingers:
            if transport.get_write_buffer_size():
                self.read_by = now + _LINGER  # it still reads, or `write_by` ends it
            else:
                transport.close()
        elif self._in_header():
            said = f"the header did not arrive within {self.listen.header_timeout:g} s"
            self._broken(RequestTimeout(said))
        elif self._reading is not None:
            if self._paused:  # we are the slow ones
                self.read_by = now + self.listen.body_timeout
            else:
                said = f"the body did not arrive within {self.listen.body_timeout:g} s"
                self._broken(RequestTimeout(said))
        elif not self._turns:
            self.write_by = now + self.listen.write_timeout
            transport.close()
