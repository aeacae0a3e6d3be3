"""A transport without a socket: what is written is kept, what is read is what the test says."""

from __future__ import annotations

import asyncio


class ScriptedTransport(asyncio.Transport):
    """The fake behind `Connection` for tests at byte level.

    Attributes:
        written: all bytes written so far.
        reading: false while the protocol holds back the peer.
        aborted: the protocol closed the connection.
    """

    def __init__(self, protocol: asyncio.Protocol) -> None:
        super().__init__()
        self._protocol = protocol
        self.written = b""
        self.reading = True
        self.aborted = False
        protocol.connection_made(self)

    # ---- the test's side ----

    def receive(self, data: bytes) -> None:
        """The peer sent `data`."""
        self._protocol.data_received(data)

    def end(self, error: Exception | None = None) -> None:
        """The peer closed its side, or the connection broke with `error`."""
        if error is None:
            self._protocol.eof_received()
        self._protocol.connection_lost(error)

    # ---- the protocol's side ----

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Keep what would be sent."""
        self.written += bytes(data)

    def pause_reading(self) -> None:
        """Hold the peer back."""
        self.reading = False

    def resume_reading(self) -> None:
        """Let the peer go on."""
        self.reading = True

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Nothing is ever buffered."""

    def is_closing(self) -> bool:
        """Whether it was aborted."""
        return self.aborted

    def abort(self) -> None:
        """Close at once."""
        self.aborted = True
