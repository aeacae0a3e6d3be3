"""What a client sends that is not one whole request: read piece by piece, as far as there is room for it.

Section numbers are those of RFC 9112 unless another is named.
"""

from __future__ import annotations

import math
from typing import Any, Final, Protocol

from gateway.answer import Answer, Wire
from gateway.bounds import Bounds
from gateway.errors import BadRequest, GatewayError, RequestTimeout
from gateway.exchange import Headers
from gateway.guard import REFUSAL, TARGET
from gateway.request import SLICE, Head, RequestReader
from gateway.turn import Turn

ABORT: Final = "tidegate.abort"  # in the scope: cuts the connection off, so that no cut body looks whole

_PIPELINED: Final = 16  # requests that may wait; then reading pauses
_HIGH: Final = 64 << 10  # bytes of a body that may wait for the app; then reading pauses


class Client(Wire, Protocol):
    """The connection on which it comes.

    Attributes:
        bounds: what it is held to.
        turn: the one in the app's hands.
        stopped: nothing that still comes is a request.
        paused: the client is not read from until there is room.
    """

    __slots__ = ()
    bounds: Bounds
    turn: Answer | None
    stopped: bool
    paused: bool

    def due(self, seconds: float) -> None:
        """The client has so long to bring what comes next."""
        ...

    def arm(self) -> None:
        """Have it looked at in time."""
        ...

    def peer(self) -> tuple[str, int] | None:
        """Who the client is, as ASGI has it."""
        ...

    def begin(self, turn: Turn) -> None:
        """A turn begins; there is no other."""
        ...

    def rest(self) -> None:
        """Nothing is under way any more."""
        ...

    def pause(self, *, paused: bool) -> None:
        """Read nothing for now, or go on."""
        ...

    def stop(self) -> None:
        """No request comes any more."""
        ...

    def hang_up(self) -> None:
        """Close, now that all is answered."""
        ...


class Intake:
    """Reads the requests of one connection; each becomes a turn as soon as its header is there.

    At any time it reads nothing, a header, or a body.

    Attributes:
        reading: the turn whose body comes next.
        behind: turns that wait until those before them are over, the next one first.
    """

    __slots__ = ("_client", "_reader", "_unfed", "behind", "reading")

    def __init__(self, client: Client) -> None:
        self._client = client
        self._reader = RequestReader(self, client.bounds.listen)
        self._unfed = bytearray()  # came, but is not yet parsed
        self.reading: Turn | None = None
        self.behind: list[Turn] = []

    @property
    def in_header(self) -> bool:
        """Whether a header has begun and is not whole."""
        return self._reader.in_header and not self._client.stopped

    @property
    def amid(self) -> bool:
        """Whether a request has begun and has not ended."""
        return self.reading is not None or self.in_header

    @property
    def waits(self) -> bool:
        """Whether there is more than has been read."""
        return bool(self._unfed) or self._client.paused

    # ---- bytes -------------------------------------------------------------------------------

    def take(self, data: bytes) -> None:
        """Bytes came."""
        if self._unfed or len(data) > SLICE:
            self._unfed += data
            self.go_on()
        else:
            self._parse(data)

    def go_on(self) -> None:
        """Parse what waits, as far as there is room for what it holds."""
        client, unfed = self._client, self._unfed
        while unfed and not client.stopped and not self._full():
            piece = bytes(unfed[:SLICE])
            del unfed[:SLICE]
            self._parse(piece)
        if client.stopped:
            unfed.clear()
        client.pause(paused=bool(unfed) or self._full())

    def drop(self) -> None:
        """Forget what waits."""
        self._unfed.clear()
        self.behind.clear()

    def _full(self) -> bool:
        reading = self.reading
        return 1 + len(self.behind) >= _PIPELINED or (
            reading is not None and reading.size > _HIGH and not reading.complete
        )

    def _parse(self, data: bytes) -> None:
        client, reader = self._client, self._reader
        try:
            reader.feed(data)
        except GatewayError as error:
            self.broken(error)
            return
        if reader.upgraded:
            client.stop()  # the guard refuses it
            return
        if self._full():
            client.pause(paused=True)
        # Also when what is parsed was read long before: behind a pipeline nobody else would look in time.
        if self.amid:
            client.arm()

    # ---- told by the reader ------------------------------------------------------------------

    def began(self) -> None:
        """A request begins; its header has so long to arrive."""
        listen = self._reader.listen = self._client.bounds.listen
        self._client.due(listen.header_timeout)

    def head(self, head: Head) -> None:
        """The header is whole: a turn begins, or waits for those before it; its body has so long."""
        client = self._client
        scope = self._scope(head.method, head.version, head.target, head.headers)
        self.reading = turn = Turn(client, scope, keep_alive=head.keep_alive, expects=head.expects)
        client.due(client.bounds.listen.body_timeout)
        self._queue(turn)

    def piece(self, body: bytes) -> None:
        """A piece of the body."""
        if self.reading is not None:
            self.reading.feed(body)

    def ended(self) -> None:
        """The request ended where its framing says."""
        turn, self.reading = self.reading, None
        if turn is not None:
            turn.end()
        if self._client.turn is not None:
            self._client.due(math.inf)
        else:  # it was answered before; this was the rest of its body
            self._client.rest()

    def _queue(self, turn: Turn) -> None:
        if self._client.turn is None:
            self._client.begin(turn)
        else:
            self.behind.append(turn)

    def _scope(self, method: str, version: str, target: bytes, headers: Headers) -> dict[str, Any]:
        return {
            "type": "http",
            "http_version": version,
            "method": method,
            "scheme": "http",
            "client": self._client.peer(),
            "headers": headers,
            TARGET: target,
            ABORT: self._client.abort,
        }

    # ---- it goes wrong -----------------------------------------------------------------------

    def broken(self, error: GatewayError) -> None:
        """No further request can be read. Whose body it was fails; else a turn of its own says why."""
        client, reading = self._client, self.reading
        client.stop()
        if reading is not None:
            reading.fail(error)
            if reading.complete:  # answered already; this was the rest of its body
                client.hang_up()
            return
        last = self.behind[-1] if self.behind else client.turn
        if last is not None and not last.keep_alive:
            return  # what follows a request that is the last by its own word is none (9.6)
        scope = self._scope("", "1.1", b"", []) | {REFUSAL: error}
        self._queue(Turn(client, scope, keep_alive=False, more=False))

    def eof(self) -> None:
        """The client sends no more."""
        if self.in_header:
            self.broken(BadRequest("the connection ended in the middle of a header"))
        if self.reading is not None and self.reading.error is None:  # else it is still to be told why
            self.reading.leave()

    def late(self) -> None:
        """What is under way did not come in time."""
        client = self._client
        listen = client.bounds.listen
        within = listen.header_timeout if self.in_header else listen.body_timeout
        if client.paused:  # we are the slow ones
            client.due(within)
        else:
            what = "header" if self.in_header else "body"
            self.broken(RequestTimeout(f"the {what} did not arrive within {within:g} s"))
