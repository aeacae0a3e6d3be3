"""A backend of known capacity: `python -m benchmarks.overload.backend PORT SLOTS SERVICE [DEGRADING]`.

It works on SLOTS requests at once and keeps the others in a queue without end, first come first served. As
most backends, it does not notice that a client has left: it works for the dead. Times are kept by a clock of
its own (each request's end is worked out when it comes), so a late timer costs no capacity.

With DEGRADING above 0 it becomes slower the more it holds, as a database does whose queries get into each
other's way: the contention of Gunther's Universal Scalability Law. A request takes 1 + DEGRADING × (held -
SLOTS) times as long when more than SLOTS are held, up to WORST.
"""

from __future__ import annotations

import asyncio
import heapq
import random
import sys
from typing import TYPE_CHECKING

import uvloop
from typing_extensions import override

if TYPE_CHECKING:
    from asyncio import Transport

WORST = 8.0  # times the service time, however much is held
_BODY = b'{"items":[' + b'{"sku":"card","price":999},' * 8 + b"{}]}"
_ANSWER = (
    b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(_BODY)
) + _BODY


class Capacity:
    """When a request that comes now will be done.

    Args:
        slots: requests worked on at once.
        service: seconds for each on average, between half and one and a half of that.
        degrading: what each request held beyond `slots` adds, in service times.
    """

    def __init__(self, slots: int, service: float, degrading: float = 0.0) -> None:
        self.held = 0
        self._slots, self._service, self._degrading = slots, service, degrading
        self._free = [0.0] * slots  # when each slot will be free; a heap
        self._rng = random.Random(5)

    def take(self, now: float) -> float:
        """Take a request in; returns when it will be done."""
        self.held += 1
        slower = min(WORST, 1 + self._degrading * max(0, self.held - self._slots))
        begins = max(now, self._free[0])
        ends = begins + self._service * slower * self._rng.uniform(0.5, 1.5)
        heapq.heapreplace(self._free, ends)
        return ends

    def give(self) -> None:
        """A request is done."""
        self.held -= 1


class _Line(asyncio.Protocol):
    """One connection: a request, its answer, the next one."""

    def __init__(self, capacity: Capacity) -> None:
        self._capacity = capacity
        self._loop = asyncio.get_running_loop()
        self._seen = b""
        self._transport: Transport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # of a TCP server

    @override
    def data_received(self, data: bytes) -> None:
        self._seen += data
        while (end := self._seen.find(b"\r\n\r\n")) >= 0:  # none of our requests has a body
            self._seen = self._seen[end + 4 :]
            self._loop.call_at(self._capacity.take(self._loop.time()), self._answer)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None

    def _answer(self) -> None:
        self._capacity.give()
        if self._transport is not None:
            self._transport.write(_ANSWER)


async def _serve(port: int, capacity: Capacity) -> None:
    server = await asyncio.get_running_loop().create_server(
        lambda: _Line(capacity), "127.0.0.1", port, backlog=8192
    )
    await server.serve_forever()


def main(port: str, slots: str, service: str, degrading: str = "0") -> None:
    """Serve until killed."""
    uvloop.run(_serve(int(port), Capacity(int(slots), float(service), float(degrading))))


if __name__ == "__main__":
    main(*sys.argv[1:])
