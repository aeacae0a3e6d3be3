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

from gateway.admin import api
from gateway.admin.auth import VARIABLE, Door
from gateway.admin.overview import Overview
from gateway.admin.trail import Entry, Trail
from gateway.channel import Message
from gateway.config import Config, ConfigError
from gateway.crew import Crew, Effect
from gateway.differences import Difference, in_words
from gateway.hosts import Hosts
from gateway.policies.shut_offs import ShutOffs
from gateway.reload import ConfigFile
from gateway.server import HANDSHAKE, deafen, serve_admin
from gateway.sockets import Sockets, StartError, where
from gateway.state.counters import shared_memory
from gateway.state.known_keys import open_table
from gateway.state.pins import Pin
from gateway.switchboard import Switchboard
from gateway.totals import Totals

_log = logging.getLogger("gateway")
_config_log = logging.getLogger("gateway.config")  # `tidegate up` shows it on its console


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line says, over the file."""

    port: int | None = None
    admin_port: int | None = None
    workers: int | None = None


class Master:
    """The gateway of one host.

    Attributes:
        file: the configuration.
        totals: the workers' metrics, summed.
        board: the switches.
        trail: who changed what.
        door: who may.
        shut_offs: as the workers hold them, for operators and for new workers.
        crew: the workers.
        hosts: the line to other gateways.
        draining: whether it is about to end.
        started: seconds since 1970.
    """

    def __init__(self, path: Path, overrides: Overrides, environment: Mapping[str, str]) -> None:
        """Read the configuration.

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
        self.crew: Crew | None = None
        self.hosts = Hosts(self.board.pins, self.shut_offs, self._tell)
        self.draining = False
        self._loops: list[asyncio.Task[None]] = []
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
            stop_admin = await serve_admin(operators, sockets.admin)
            self._loops = [
                asyncio.create_task(self.file.watch(self._take), name="watch-config"),
                asyncio.create_task(self.board.keep(crew.pressures), name="switches"),
                asyncio.create_task(overview.keep(), name="overview"),
            ]
            await self._announce(sockets)
            await self._stop.wait()
        finally:
            self.draining = True
            deafen(sockets.public)
            await asyncio.sleep(HANDSHAKE)
            sockets.public.close()
            await crew.stop()
            for task in self._loops:
                task.cancel()
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
        shared = shared_memory() if size > 1 else -1, _open_keys(settings.admin.state_file, size)
        crew = Crew(listener, size, self._greet, self.totals, settings.listen.drain, shared)
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
        print(  # noqa: T201 - the one line for whoever started us
            f"gateway ready: http://{where(sockets.public)} with {self.crew.size} workers, "
            f"admin http://{where(sockets.admin)}",
            flush=True,
        )

    async def fresh(self) -> None:
        """Have the newest numbers in the totals."""
        self.totals.own.gauge("tidegate_shut_offs", len(self.shut_offs.all()))
        if self.crew is not None:
            await self.crew.scrape()

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
        """Do an operator's will; returns it, and in which workers it holds."""
        pin = self.board.pin(kind, name, value, lasts=lasts, reason=reason, by=by)
        self.hosts.pinned(pin)
        serial = self.board.serial
        assert self.crew is not None  # noqa: S101 - the admin port opens after the crew is made
        return pin, await self.crew.effect(lambda member: member.serial >= serial)

    def _heard(self, pin: Pin) -> None:
        """An operator has thrown a switch on another host."""
        said = Entry(pin.at, pin.kind, pin.name, pin.old, pin.value, by=pin.by, reason=pin.reason)
        self.trail.done(replace(said, until=pin.until, result="heard", status=0, detail="on another host"))

    # ---- configuration -----------------------------------------------------------------------

    async def reload(self, by: str, role: str = "", reason: str = "") -> tuple[list[Difference], Effect]:
        """Take the file as it stands; returns what that changes, and in which workers it holds.

        Args:
            by: who or what asks.
            role: of an operator.
            reason: why.

        Raises:
            ConfigError: it can't be used; what held before still holds.
        """
        assert self.crew is not None  # noqa: S101 - the admin port opens after the crew is made
        before, version = self.config, self.file.version
        entry = Entry(self.trail.now(), "config", str(self.file.path), str(version), by=by, role=role)
        entry = replace(entry, reason=reason)
        try:
            found = await self.file.reload()
        except ConfigError as error:
            self.totals.own.count("tidegate_config_reloads_total", "failure")
            self.trail.refused(replace(entry, result="refused", status=422, detail=error.lines[0]))
            raise
        self.totals.own.count("tidegate_config_reloads_total", "success")
        changed = self.file.version > version
        if changed:
            self._adopt(before, found)
        version = self.file.version
        effect = await self.crew.effect(lambda member: member.version >= version)
        if changed:
            told = replace(entry, value=str(version), detail=in_words(found))
            self.trail.done(told.with_effect(effect.applied, effect.workers, effect.seconds))
        return found, effect

    def _adopt(self, before: Config, found: list[Difference]) -> None:
        assert self.crew is not None  # noqa: S101 - as above
        now = self.config
        _config_log.info("configuration %d: %s", self.file.version, in_words(found))
        if late := [one["path"] for one in found if one["restart"]]:
            _config_log.warning("%s changed in %s; that takes a restart", ", ".join(late), self.file.path)
        if before.redis != now.redis:
            self._loops.append(asyncio.create_task(self.hosts.restart(now.redis), name="resync"))
        self.crew.drain = now.listen.drain
        self.crew.tell({"type": "config", "config": self.file.text, "version": self.file.version})
        self.board.adopt(before)

    async def _take(self, why: str) -> None:
        try:
            _, effect = await self.reload(why)
        except ConfigError as error:
            _config_log.error("%s: the new configuration is not used; the one before holds:\n%s", why, error)
        else:
            _config_log.info(
                "%s: configuration %d holds in %d of %d workers after %.0f ms",
                *(why, self.file.version, effect.applied, effect.workers, effect.seconds * 1000),
            )

    def _hang_up(self) -> None:
        """SIGHUP: read the configuration, and open the access log anew for logrotate."""
        if self.crew is not None:
            self.crew.tell({"type": "reopen"})
        self._loops.append(asyncio.get_running_loop().create_task(self._take("SIGHUP")))


def _open_keys(state_file: Path | None, workers: int) -> int:
    """The table of known keys, beside the switches so that both outlive a restart."""
    try:
        return open_table(state_file and state_file.with_suffix(".keys"), workers)
    except OSError as error:
        _log.warning("%s can't be written (%s); repeats are not known over a restart", state_file, error)
        return open_table(None, workers)


def main(path: Path, overrides: Overrides) -> int:
    """Run the gateway; returns the exit code."""

    async def serve() -> None:
        await Master(path, overrides, os.environ).run()

    try:
        asyncio.run(serve())
    except ConfigError as error:
        print(error, file=sys.stderr)  # noqa: T201 - for the console
        return 1
    except StartError as error:
        print(f"gateway: {error}", file=sys.stderr)  # noqa: T201 - the same
        return 1
    except KeyboardInterrupt:
        with contextlib.suppress(Exception):
            return 130
    with contextlib.suppress(OSError):  # the console may have gone
        print("gateway stopped", flush=True)  # noqa: T201 - the same
    return 0
