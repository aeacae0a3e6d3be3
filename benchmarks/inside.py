"""The gateway's worker without sockets: what its own code costs, from a client's bytes to the answer's.

The event loop's transports are replaced by ones that only take bytes; all between them is what a worker runs.
"""

from __future__ import annotations

import asyncio
import os
import time
from typing import cast

import uvicorn
from uvicorn.server import ServerState

from benchmarks.upstream import SMALL
from gateway import config
from gateway.app import Gateway
from gateway.bounds import Bounds
from gateway.client import ClientConnection
from gateway.metrics import WorkerMetrics
from gateway.parts import Parts
from gateway.state.counters import SharedCounters, shared_memory
from gateway.upstream.http1 import Connection
from gateway.upstream.pool import Pool

USERS = 100
CLIENTS = 64
SETTLING = 0.5  # seconds in which memories are filled
REQUESTS = [
    b"GET /api/small HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nX-User: user-%d\r\nUser-Agent: wrk\r\n\r\n" % user
    for user in range(USERS)
]
ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Fri, 27 Nov 2026 12:00:00 GMT\r\n"
    b"Content-Type: application/json\r\nContent-Length: %d\r\nConnection: keep-alive\r\n\r\n"
) % len(SMALL) + SMALL.encode()


class Line:
    """A transport that takes what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.write = self.written.append

    def get_extra_info(self, name: str, default: object = None) -> object:
        """The peer's address; nothing else is known."""
        return ("127.0.0.1", 40000) if name == "peername" else default

    def is_closing(self) -> bool:
        """It never is."""
        return False

    def abort(self) -> None:
        """Nothing to cut off."""

    def set_write_buffer_limits(self, high: int | None = None) -> None:
        """There is no buffer."""

    def pause_reading(self) -> None:
        """Bytes come when they are brought."""

    def resume_reading(self) -> None:
        """The same."""


class Inside:
    """A worker with a configuration, and clients and upstream connections at its hands.

    Where a limit is tight, the first requests use it up, and what is measured are refusals.
    """

    def __init__(self, text: str) -> None:
        self._settings = config.load(text.encode(), "benchmark", os.environ)
        self._turn = 0
        self._clients: list[tuple[ClientConnection, Line]] = []
        self._upstreams: list[tuple[Connection, Line]] = []

    async def open(self) -> None:
        """Make the worker, and let it find its limits."""
        counters = SharedCounters(shared_memory())
        parts = Parts(1, WorkerMetrics(), counters=counters)
        gateway = Gateway(parts)
        await gateway.adopt(self._settings)
        self._lend_connections(parts)
        bounds = Bounds(self._settings.listen, gateway)
        served = uvicorn.Config(gateway, ws="none", lifespan="off", log_config=None, access_log=False)
        served.load()
        state = ServerState()
        state.default_headers = [(b"date", b"Fri, 27 Nov 2026 12:00:00 GMT")]
        for _ in range(CLIENTS):
            client = ClientConnection(bounds, served, state, {}, asyncio.get_running_loop())
            line = Line()
            client.connection_made(cast("asyncio.Transport", line))
            self._clients.append((client, line))
        until = time.monotonic() + SETTLING
        while time.monotonic() < until:
            self._ask()
            while any(not line.written for _, line in self._clients):
                await asyncio.sleep(0)
                self._answer()
            self._forget()

    def _lend_connections(self, parts: Parts) -> None:
        """Give the pools connections that lead nowhere."""
        for upstream in parts.upstreams.values():
            for server in upstream._balancer.servers:
                pool: Pool = server.pool
                for _ in range(CLIENTS):
                    connection, line = Connection(clock=time.monotonic, on_lost=pool._lost), Line()
                    connection.connection_made(cast("asyncio.Transport", line))
                    pool._total += 1
                    pool._idle[connection] = None
                    self._upstreams.append((connection, line))

    def measure(self, rounds: int) -> float:
        """Microseconds of this thread's processor time per request; each client sends one a round.

        Raises:
            RuntimeError: not every request was answered at once.
        """
        began = time.thread_time_ns()
        for _ in range(rounds):
            self._ask()
            self._answer()
        spent = time.thread_time_ns() - began
        if any(len(line.written) != rounds for _, line in self._clients):
            raise RuntimeError("not every request was answered at once")
        self._forget()
        return spent / (rounds * CLIENTS) / 1000

    def _ask(self) -> None:
        turn = self._turn
        for client, _ in self._clients:
            client.data_received(REQUESTS[turn % USERS])
            turn += 1
        self._turn = turn

    def _answer(self) -> None:
        for connection, line in self._upstreams:
            if line.written:
                line.written.clear()
                connection.data_received(ANSWER)

    def _forget(self) -> None:
        for _, line in self._clients:
            line.written.clear()
