"""The master process: owns the socket, the workers and the admin port; serves no shopper."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gateway import compiled, fork_server, worker
from gateway.admin import api
from gateway.admin.auth import VARIABLE, Door
from gateway.admin.front import LISTEN
from gateway.admin.overview import Overview
from gateway.admin.trail import Entry, Trail
from gateway.background import Background
from gateway.channel import Message
from gateway.config import Config, ConfigError
from gateway.crew import Crew
from gateway.edits import Edits
from gateway.effect import Effect
from gateway.forks import Forks
from gateway.hosts import Hosts
from gateway.policies.shut_offs import ShutOffs
from gateway.reload import ConfigFile
from gateway.server import HANDSHAKE, deafen, serve_admin
from gateway.sockets import Sockets, StartError, where
from gateway.state.counters import shared_memory
from gateway.state.known_keys import open_beside
from gateway.state.pins import Pin
from gateway.switchboard import Switchboard
from gateway.totals import Totals

_log = logging.getLogger("gateway")


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line says, over the file."""

    port: int | None = None
    admin_port: int | None = None
    workers: int | None = None

    @property
    def words(self) -> dict[str, str]:
        """Keys of the file that say nothing, by the option that is heard in their place."""
        said = {
            "listen.port": ("--port", self.port),
            "admin.port": ("--admin-port", self.admin_port),
            "listen.workers": ("--workers", self.workers),
        }
        return {key: word for key, (word, value) in said.items() if value is not None}


class Master:
    """The gateway of one host.

    Attributes:
        file: the configuration.
        totals: the workers' metrics, summed.
        board: the switches.
        trail: who changed what.
        door: who may.
        edits: takes changes of the configuration.
        shut_offs: as the workers hold them, for operators and for new workers.
        crew: the workers.
        hosts: the line to other gateways.
        background: what goes on beside, until the end.
        name: of this host, for people.
        draining: whether it is about to end.
        started: seconds since 1970.
    """

    def __init__(
        self, path: Path, overrides: Overrides, environment: Mapping[str, str], forks: Forks | None = None
    ) -> None:
        """Read the configuration.

        Args:
            path: its file.
            overrides: what holds over it.
            environment: the variables it may name.
            forks: makes the workers.

        Raises:
            ConfigError: it can't be used.
        """
        self.file = ConfigFile(path, environment)
        self.overrides = overrides
        self.totals = Totals()
        self.started = time.time()
        self.board = Switchboard(lambda: self.config, self._tell, self.totals.own)
        self.board.pins.on_heard = self._heard
        self.trail = Trail(self.config.admin.state_file)
        self.door = Door(lambda: self.config.admin, environment)
        self.shut_offs = ShutOffs()
        self.edits = Edits(self)
        self.crew: Crew | None = None
        self.hosts = Hosts(self.board.pins, self.shut_offs, self._tell, self.describe)
        self.name = socket.gethostname()
        self.draining = False
        self.background = Background()
        self._forks = forks or Forks()
        self._stop = asyncio.Event()

    @property
    def config(self) -> Config:
        """The settings that hold."""
        return self.file.config

    # ---- from start to end -------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            StartError: a port is taken, or no worker can start.
        """
        if self.door.closed:
            _log.warning("the admin API is closed: set %s, admin.token_file or admin.tokens", VARIABLE)
        overview = Overview(self)
        operators = api.build(
            self, overview
        )  # before there are workers, which nobody would stop if it failed
        sockets = await self._bind()
        self.name = f"{socket.gethostname()}:{where(sockets.public).rpartition(':')[2]}"
        self.crew = crew = self._make_crew(sockets.public)
        for result in ("success", "failure"):
            self.totals.own.count("tidegate_config_reloads_total", result, by=0)
        stop_admin = None
        try:
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._stop.set)
            loop.add_signal_handler(signal.SIGHUP, self._hang_up)
            crew.start()
            self.hosts.start(self.config.redis)
            stop_admin = await serve_admin(operators, sockets.admin, LISTEN)
            self.background.keep(lambda: self.file.watch(self.edits.take), "watch-config")
            self.background.keep(lambda: self.board.keep(crew.pressures), "switches")
            self.background.keep(overview.keep, "overview")
            await self._announce(sockets)
            await self._stop.wait()
        finally:
            self.draining = True
            deafen(sockets.public)
            await asyncio.sleep(HANDSHAKE)
            sockets.public.close()
            await crew.stop()
            self.background.cancel()
            await self.hosts.aclose()
            if stop_admin is not None:
                await stop_admin()
            await self.trail.written()

    async def _bind(self) -> Sockets:
        said, listen, admin = self.overrides, self.config.listen, self.config.admin
        return await Sockets.bound(
            (listen.host, said.port if said.port is not None else listen.port),
            (admin.host, said.admin_port if said.admin_port is not None else admin.port),
        )

    def _make_crew(self, listener: socket.socket) -> Crew:
        settings = self.config
        size = self.overrides.workers or settings.listen.workers
        shared = shared_memory() if size > 1 else -1, open_beside(settings.admin.state_file, size)
        crew = Crew(listener, size, self._forks, self._greet, self.totals, settings.listen.drain, shared)
        crew.on_shut = self.hosts.worker_shut
        crew.on_trip = self.hosts.tripped
        crew.on_ready = self.hosts.greet
        return crew

    async def _announce(self, sockets: Sockets) -> None:
        """Say where to find us once every worker serves.

        Raises:
            StartError: a worker could not start.
        """
        assert self.crew is not None  # noqa: S101 - run made it
        while self.crew.ready < self.crew.size and not self._stop.is_set():
            if self.crew.failure is not None:
                raise StartError(self.crew.failure)
            await asyncio.sleep(0.02)
        workers = "1 worker" if self.crew.size == 1 else f"{self.crew.size} workers"
        print(  # noqa: T201 - the one line for whoever started us
            f"gateway ready: http://{where(sockets.public)} with {workers}, "
            f"admin http://{where(sockets.admin)}",
            flush=True,
        )
        if not compiled.built():
            _log.info("running from source; `scripts/compile` makes requests cheaper")

    async def fresh(self) -> None:
        """Have the newest numbers in the totals."""
        self.totals.own.gauge("tidegate_shut_offs", len(self.shut_offs.all()))
        if self.crew is not None:
            await self.crew.scrape()

    def describe(self) -> dict[str, Any]:
        """This host, as others see it."""
        return {
            "name": self.name,
            "workers": self.crew.ready if self.crew is not None else 0,
            "step": self.board.now.step,
            "off": sorted(self.board.now.off),
        }

    def _tell(self, message: Message) -> None:
        if self.crew is not None:
            self.crew.tell(message)

    def _greet(self) -> Message:
        assert self.crew is not None  # noqa: S101 - only a crew asks
        return {
            "type": "start",
            "name": str(self.file.path),
            "config": self.file.text,
            "version": self.file.version,
            "workers": self.crew.size,
            "switches": self.board.now.to_json(),
            "serial": self.board.serial,
        }

    # ---- switches ----------------------------------------------------------------------------

    async def pin(
        self, kind: str, name: str, value: str, *, lasts: float | None, reason: str, by: str
    ) -> tuple[Pin, Effect]:
        """Do an operator's will; returns it, and in which workers and on which other hosts it holds."""
        pin = self.board.pin(kind, name, value, lasts=lasts, reason=reason, by=by)
        others, effect = await asyncio.gather(self.hosts.pinned(pin), self._in_effect())
        return pin, replace(effect, hosts=tuple(others))

    async def _in_effect(self) -> Effect:
        """Wait until every worker serves by the switches as they are now."""
        assert self.crew is not None  # noqa: S101 - the admin port opens after the crew is made
        serial = self.board.serial
        return await self.crew.effect(lambda member: member.serial >= serial)

    def _heard(self, pin: Pin) -> None:
        """An operator has thrown a switch on another host; tell it when it holds here."""

        async def answer() -> None:
            effect = await self._in_effect()
            if effect.applied == effect.workers:
                self.hosts.speak(pin)

        self.background.do(answer(), "confirm")
        said = Entry(pin.at, pin.kind, pin.name, pin.old, pin.value, by=pin.by, reason=pin.reason)
        self.trail.done(replace(said, until=pin.until, result="heard", status=0, detail="on another host"))

    def _hang_up(self) -> None:
        """SIGHUP: read the configuration, and open the access log anew for logrotate."""
        if self.crew is not None:
            self.crew.tell({"type": "reopen"})
        self.background.do(self.edits.take("SIGHUP"), "reload")


def main(path: Path, overrides: Overrides) -> int:
    """Run the gateway; returns the exit code."""
    forks = Forks(fork_server.start(worker.main))  # before anything that a fork would copy half of

    async def serve() -> None:
        await Master(path, overrides, os.environ, forks).run()

    try:
        asyncio.run(serve())
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201 - for the console
        return 1
    except StartError as error:
        print(f"gateway: {error}", file=sys.stderr)  # noqa: T201 - the same
        return 1
    except KeyboardInterrupt:
        return 130
    finally:
        forks.close()
    with contextlib.suppress(OSError):  # the console may have gone
        print("gateway stopped", flush=True)  # noqa: T201 - the same
    return 0
