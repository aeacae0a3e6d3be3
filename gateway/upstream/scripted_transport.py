"""A transport without a socket: what is written is kept, what is read is what the test says."""

from __future__ import annotations

import asyncio
from typing import Protocol


class Callbacks(Protocol):
    """What an event loop tells a connection."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        ...

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        ...

    def eof_received(self) -> bool:
        """The peer sends no more; whether to keep it half open."""
        ...

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        ...


class ScriptedTransport(asyncio.Transport):
    """The fake behind `Connection` for tests at byte level.

    Attributes:
        written: all bytes written so far.
        reading: false while the protocol holds back the peer.
        aborted: the protocol closed the connection.
    """

    def __init__(self, protocol: Callbacks) -> None:
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
