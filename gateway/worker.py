"""One worker: serves shoppers on the shared socket, does what the master says, and leaves when it is gone."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import socket
from typing import Any

import uvicorn

from gateway import config, trial
from gateway.app import Gateway
from gateway.bounds import Bounds
from gateway.channel import Channel, Message
from gateway.loop_lag import LoopLag
from gateway.metrics import WorkerMetrics
from gateway.parts import Parts
from gateway.policies.circuit_state import Change
from gateway.policies.shut_offs import ShutOff
from gateway.pressure import CpuShare
from gateway.server import QuietServer, protocol_for
from gateway.state.counters import Counters, SharedCounters
from gateway.state.known_keys import KnownKeys
from gateway.state.switches import Switches

_log = logging.getLogger("gateway.worker")
_REPORT = 0.25  # seconds between two reports of pressure
_COLLECT = (20_000, 20, 50)  # net new objects, then young and middle collections, that make it look
_BACKLOG = 4096  # connections the kernel holds for us


class Worker:
    """Wires one worker's parts to its channel.

    Messages from the master: start, config, switches, scrape, trip, probing, well, shut, unshut, reopen,
    drain. Messages to it: ready, applied, switched, metrics, report, trip, probing, well, shut, failed.
    """

    def __init__(
        self,
        listener: socket.socket,
        channel: Channel,
        start: Message,
        counters: Counters | None,
        keys: KnownKeys,
    ) -> None:
        self._listener = listener
        self._channel = channel
        self._metrics = WorkerMetrics()
        self._name: str = start["name"]
        self._parts = Parts(start["workers"], self._metrics, self._tripped, self._shut, counters, keys)
        self._gateway = Gateway(self._parts)
        self._first: str = start["config"]
        self._switches = Switches.from_json(start["switches"])
        self._draining = asyncio.Event()
        self._bounds: Bounds | None = None
        self._dropped = 0  # access log lines, already counted

    async def run(self) -> None:
        """Serve until told to drain, or until the master is gone.

        Raises:
            ConfigError: the configuration can't be had here.
        """
        settings = await self._serve_by(self._first)
        self._gateway.apply(self._switches)
        self._bounds = Bounds(settings.listen, self._gateway)
        server = QuietServer(
            uvicorn.Config(
                self._gateway,
                http=protocol_for(self._bounds),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=_BACKLOG,
                timeout_graceful_shutdown=max(1, int(settings.listen.drain)),
            )
        )
        serving = asyncio.create_task(server.serve(sockets=[self._listener]), name="serve")
        reporting = asyncio.create_task(self._report(), name="report")
        lag = LoopLag(self._parts.lagging)
        obeying = asyncio.create_task(self._obey(), name="obey")
        while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0.01)
        calm_collector()
        self._channel.send({"type": "ready", "pid": os.getpid()})
        draining = asyncio.create_task(self._draining.wait(), name="draining")
        await asyncio.wait([serving, obeying, draining], return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        await serving
        lag.stop()
        reporting.cancel()
        obeying.cancel()
        draining.cancel()
        self._send_metrics(None)
        await self._parts.aclose()

    def drain(self) -> None:
        """Stop accepting, finish what is in flight, leave."""
        self._draining.set()

    # ---- what the master says ----------------------------------------------------------------

    async def _obey(self) -> None:
        """Do what comes down the channel; ends when the master is gone."""
        while (message := await self._channel.receive()) is not None:
            kind = message["type"]
            if kind == "switches":
                self._gateway.apply(Switches.from_json(message["switches"]))
                self._channel.send({"type": "switched", "serial": message["serial"]})
            elif kind == "config":
                await self._adopt(message)
            elif kind == "scrape":
                self._send_metrics(message["number"])
            elif kind == "trip":
                self._parts.breakers.trip(
                    message["upstream"], message["route"], message["seconds"], doubt=message["doubt"]
                )
            elif kind == "probing":
                self._parts.breakers.follow(message["upstream"], message["route"])
            elif kind == "well":
                self._parts.breakers.recover(message["upstream"], message["route"])
            elif kind == "shut":
                shut_offs = self._parts.shut_offs
                shut_offs.add(ShutOff.from_json(message["shut"], shut_offs.clock()))
            elif kind == "unshut":
                ids = message["ids"]
                self._parts.shut_offs.clear(None if ids is None else set(ids))
            elif kind == "reopen":
                if self._parts.access_log is not None:
                    self._parts.access_log.reopen()
            elif kind == "drain":
                self.drain()  # and go on: it may take long, and who watches wants to see it

    async def _adopt(self, message: Message) -> None:
        mistakes: list[tuple[int, str, str]] = []
        try:
            settings = await self._serve_by(message["config"])
            if self._bounds is not None:
                self._bounds.set(settings.listen)
        except config.ConfigError as error:
            mistakes = [(one.line, one.path, one.message) for one in error.mistakes]
        self._channel.send({"type": "applied", "version": message["version"], "mistakes": mistakes})

    async def _serve_by(self, text: str) -> config.Config:
        """Let a configuration hold.

        Raises:
            ConfigError: it can't be had here; what held before still holds.
        """
        raw = text.encode()
        try:
            settings = config.load(raw, self._name, os.environ)
            await self._gateway.adopt(settings)
        except (OSError, ValueError) as failure:
            raise trial.why(failure, raw, self._name, os.environ) from failure
        return settings

    # ---- what the worker says ----------------------------------------------------------------

    def _send_metrics(self, number: int | None) -> None:
        """All of them; `number` is that of the scrape that asked."""
        self._parts.gauges()
        dropped = self._parts.dropped_lines()
        if dropped > self._dropped:
            self._metrics.count("tidegate_access_log_dropped_total", by=dropped - self._dropped)
            self._dropped = dropped
        self._channel.send({"type": "metrics", "number": number, "snapshot": self._metrics.snapshot()})

    def _tripped(self, change: Change) -> None:
        """Let the other workers know what this one has learned."""
        where = f"{change.upstream} {change.route}".rstrip()
        _log.warning("breaker of %s: %s to %s (%s)", where, change.before, change.after, change.cause)
        if change.after == "open" and change.cause not in {"hint", "forced"}:
            trip = {"upstream": change.upstream, "route": change.route, "seconds": change.seconds}
            self._channel.send({"type": "trip", "doubt": False, **trip})
        elif change.after == "half-open":
            self._channel.send({"type": "probing", "upstream": change.upstream, "route": change.route})
        elif change.after == "closed" and change.cause == "probes":
            self._channel.send({"type": "well", "upstream": change.upstream, "route": change.route})

    def _shut(self, new: ShutOff) -> None:
        """Let the other workers of this host answer as the upstream answered this one."""
        _log.info("%s with %s=%s is shut off by the upstream", *new.key)
        self._channel.send({"type": "shut", "shut": new.to_json(self._parts.shut_offs.clock())})

    async def _report(self) -> None:
        """Say how pressed this worker is, a few times a second."""
        cpu = CpuShare()
        while True:
            await asyncio.sleep(_REPORT)
            self._channel.send({"type": "report", "pressures": self._parts.pressures(cpu.read())})


def calm_collector() -> None:
    """Look for cycles rarely: a request leaves none, and each look walks every open connection's objects.

    What lives since the start is never looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECT)


async def _main(listen_fd: int, channel_fd: int, counters_fd: int, keys_fd: int) -> int:
    listener = socket.socket(fileno=listen_fd)
    listener.setblocking(False)
    line = socket.socket(fileno=channel_fd)
    line.setblocking(False)
    channel = await Channel.over(line)
    start = await channel.receive()
    if start is None:
        return 1
    try:
        counters = SharedCounters(counters_fd) if counters_fd >= 0 else None
        worker = Worker(listener, channel, start, counters, KnownKeys(keys_fd, start["part"]))
        loop = asyncio.get_running_loop()
        # A terminal's Ctrl-C reaches the whole group; only the master may act on it.
        loop.add_signal_handler(signal.SIGINT, lambda: None)
        loop.add_signal_handler(signal.SIGTERM, worker.drain)
        await worker.run()
    except (config.ConfigError, OSError) as error:
        channel.send({"type": "failed", "error": str(error)})
        await asyncio.sleep(0)  # lets the line go out
        channel.close()
        return 1
    channel.close()
    return 0


def main(listen_fd: int, channel_fd: int, counters_fd: int, keys_fd: int) -> int:
    """Run a worker on inherited file descriptors; returns the exit code."""
    import uvloop

    def loop_factory() -> Any:  # noqa: ANN401 - uvloop's Loop has no stub to name
        return uvloop.new_event_loop()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(_main(listen_fd, channel_fd, counters_fd, keys_fd))
