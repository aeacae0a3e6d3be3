"""The master process: owns the socket, the workers, the switches and the admin port; serves no shopper."""

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
from dataclasses import dataclass
from pathlib import Path

from gateway.admin import api
from gateway.admin.auth import VARIABLE, Token
from gateway.channel import Channel, Message
from gateway.config import Config, ConfigError
from gateway.crew import Crew
from gateway.hosts import Hosts
from gateway.ladder import Ladder
from gateway.metrics import Totals
from gateway.policies.shut_offs import ShutOff, ShutOffs
from gateway.pressure import on_ladder
from gateway.reload import ConfigFile
from gateway.server import HANDSHAKE, deafen, serve_admin
from gateway.state.counters import shared_memory
from gateway.state.known_keys import open_table
from gateway.state.pins import Pins
from gateway.state.switches import Switches, work_out

_log = logging.getLogger("gateway")
_config_log = logging.getLogger("gateway.config")  # `tidegate up` shows it on its console
_TICK = 0.25  # seconds between two looks at pressure and at pins that end
_BACKLOG = 4096
_BIND_PATIENCE = 2.0  # seconds; a port just left by another process may need a moment


class StartError(Exception):
    """The gateway can't start; the message says why and what to do."""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What the command line says, over the file."""

    port: int | None = None
    admin_port: int | None = None
    workers: int | None = None


class Master:
    """The gateway of one host."""

    def __init__(self, path: Path, overrides: Overrides, environment: Mapping[str, str]) -> None:
        """Read the configuration.

        Raises:
            ConfigError: it can't be used.
        """
        self.file = ConfigFile(path, environment)
        self.overrides = overrides
        self.totals = Totals()
        self.started = time.time()
        self.pins = Pins(self.config.admin.state_file, time.time)
        self.pins.on_change = self._recompute
        self.ladder = Ladder(self.config.degradation)
        self.shut_offs = ShutOffs()  # as the workers hold them, for operators and for new workers
        self.switches = self._work_out()
        self.serial = 1  # of the switches
        self.crew: Crew | None = None
        self.hosts = Hosts(self.pins, self.shut_offs, self._tell)
        self.draining = False
        self._loops: list[asyncio.Task[None]] = []
        self._stop = asyncio.Event()
        self._environment = environment

    @property
    def config(self) -> Config:
        """The settings that hold."""
        return self.file.config

    # ---- from start to end -------------------------------------------------------------------

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT.

        Raises:
            StartError: a port is taken, a token is missing, or no worker can start.
        """
        settings = self.config
        token = Token.configured(settings.admin, self._environment)
        if not token.given:
            _log.warning("the admin API is closed: set %s or admin.token_file", VARIABLE)
        listen_port = self.overrides.port if self.overrides.port is not None else settings.listen.port
        admin_port = (
            self.overrides.admin_port if self.overrides.admin_port is not None else settings.admin.port
        )
        listener = await _bind(settings.listen.host, listen_port, "listen.port")
        try:
            admin_socket = await _bind(settings.admin.host, admin_port, "admin.port")
        except StartError:
            listener.close()
            raise
        size = self.overrides.workers or settings.listen.workers
        shared = shared_memory() if size > 1 else -1, _open_keys(settings.admin.state_file, size)
        self.crew = Crew(listener, size, self._greet, self.totals, settings.listen.drain, shared)
        self.crew.on_shut = self._shut
        self.crew.on_trip = self.hosts.tripped
        self.crew.on_ready = self._tell_shut_offs
        self._count_feature_gauges()
        for result in ("success", "failure"):
            self.totals.own.count("tidegate_config_reloads_total", result, by=0)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        self.crew.start()
        self.hosts.start(settings.redis)
        stop_admin = await serve_admin(api.build(self, token), admin_socket)
        self._loops = [
            asyncio.create_task(self.file.watch(self._take), name="watch-config"),
            asyncio.create_task(self._tick(), name="tick"),
        ]
        try:
            await self._announce(listener, admin_socket)
            await self._stop.wait()
        finally:
            self.draining = True
            deafen(listener)
            await asyncio.sleep(HANDSHAKE)
            listener.close()
            await self.crew.stop()
            for task in self._loops:
                task.cancel()
            await self.hosts.aclose()
            await stop_admin()

    async def _announce(self, listener: socket.socket, admin: socket.socket) -> None:
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
            f"gateway ready: http://{_where(listener)} with {self.crew.size} workers, admin http://{_where(admin)}",
            flush=True,
        )

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
            "switches": self.switches.to_json(),
            "serial": self.serial,
        }

    # ---- switches ----------------------------------------------------------------------------

    def _work_out(self) -> Switches:
        return work_out(self.config, self.ladder.step, self.pins.value)

    def _recompute(self) -> None:
        """Work the switches out anew; tell the workers when they changed."""
        switches = self._work_out()
        if switches == self.switches:
            return
        self.switches = switches
        self.serial += 1
        self._count_feature_gauges()
        self._tell({"type": "switches", "serial": self.serial, "switches": switches.to_json()})

    async def pin(
        self, kind: str, name: str, value: str, *, lasts: float | None, reason: str, by: str
    ) -> tuple[int, int]:
        """Do an operator's will; returns in how many workers it holds, and of how many."""
        pin = self.pins.put(kind, name, value, lasts=lasts, reason=reason, by=by)
        _log.warning(
            "switch: %s %s %s -> %s by %s: %s", kind, name, pin.old, value, by, reason or "(no reason)"
        )
        self.hosts.pinned(pin)
        if self.crew is None:
            return 0, 0
        serial = self.serial
        return await self.crew.until(lambda member: member.serial >= serial)

    async def _tick(self) -> None:
        """Climb or descend by pressure, and notice pins that end."""
        while True:
            await asyncio.sleep(_TICK)
            before = self.ladder.step
            pressures = self.crew.pressures() if self.crew is not None else {}
            pressure = on_ladder(pressures, self.ladder.settings, before)
            if self.ladder.observe(pressure) != before:
                told = ", ".join(f"{name} {value:.2f}" for name, value in pressures.items())
                _log.warning("degradation step %d -> %d at pressure: %s", before, self.ladder.step, told)
            self.totals.own.gauge("tidegate_pressure", pressure)
            for name, value in pressures.items():
                self.totals.own.gauge("tidegate_pressure_signal", value, name)
            self.totals.own.gauge("tidegate_shut_offs", len(self.shut_offs.all()))
            self._recompute()

    def _count_feature_gauges(self) -> None:
        for name in self.config.features:
            self.totals.own.gauge("tidegate_feature_on", float(name not in self.switches.off), name)
        self.totals.own.gauge("tidegate_degradation_step", self.switches.step)

    # ---- shut-offs ---------------------------------------------------------------------------

    def _shut(self, said: Message) -> bool:
        """A worker heard the upstream shut something off; whether the others don't know it yet."""
        held = ShutOff.from_json(said, self.shut_offs.clock())
        if not self.shut_offs.add(held):
            return False
        self.hosts.shut(held)
        return True

    def _tell_shut_offs(self, channel: Channel) -> None:
        """Tell a new worker what holds."""
        now = self.shut_offs.clock()
        for held in self.shut_offs.all():
            channel.send({"type": "shut", "shut": held.to_json(now)})

    def unshut(self, ids: set[str] | None, *, by: str) -> int:
        """Let through again what the upstream has shut off, all of it or these ids; says how many."""
        cleared = self.shut_offs.clear(ids)
        _log.warning("shut-offs: %d cleared by %s", cleared, by)
        self.hosts.unshut(ids)
        self._tell({"type": "unshut", "ids": None if ids is None else sorted(ids)})
        return cleared

    # ---- configuration -----------------------------------------------------------------------

    async def reload(self) -> tuple[int, int]:
        """Take the file as it stands; returns in how many workers it holds, and of how many.

        Raises:
            ConfigError: it can't be used; what held before still holds.
        """
        assert self.crew is not None  # noqa: S101 - the admin port opens after the crew is made
        before = self.config
        try:
            changed = await self.file.reload()
        except ConfigError:
            self.totals.own.count("tidegate_config_reloads_total", "failure")
            raise
        self.totals.own.count("tidegate_config_reloads_total", "success")
        if changed:
            self._adopt(before)
        version = self.file.version
        return await self.crew.until(lambda member: member.version >= version)

    def _adopt(self, before: Config) -> None:
        assert self.crew is not None  # noqa: S101 - as above
        now = self.config
        for part, old, new in (
            (
                "listen.host and port",
                (before.listen.host, before.listen.port),
                (now.listen.host, now.listen.port),
            ),
            ("listen.workers", before.listen.workers, now.listen.workers),
            ("admin", before.admin, now.admin),
        ):
            if old != new:
                _config_log.warning("%s changed in %s; that takes a restart", part, self.file.path)
        if before.degradation != now.degradation:
            self.ladder = Ladder(now.degradation, step=min(self.ladder.step, len(now.degradation.steps)))
        if before.redis != now.redis:
            self._loops.append(asyncio.create_task(self.hosts.restart(now.redis), name="resync"))
        self.crew.drain = now.listen.drain
        self.crew.tell({"type": "config", "config": self.file.text, "version": self.file.version})
        self._recompute()

    async def _take(self, why: str) -> None:
        try:
            applied, of = await self.reload()
        except ConfigError as error:
            _config_log.error("%s: the new configuration is not used; the one before holds:\n%s", why, error)
        else:
            _config_log.info(
                "%s: configuration %d holds in %d of %d workers", why, self.file.version, applied, of
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


async def _bind(host: str, port: int, key: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    deadline = time.monotonic() + _BIND_PATIENCE
    while True:
        sock = socket.socket(family)
        # Lets a restart take over from connections in TIME_WAIT; never from a living listener.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, port))
            sock.listen(_BACKLOG)
        except OSError as error:
            sock.close()
            if time.monotonic() < deadline:
                await asyncio.sleep(0.1)
                continue
            said = (error.strerror or str(error)).lower()
            raise StartError(f"can't listen on {host}:{port}: {said}; choose another {key}") from None
        else:
            return sock


def _where(sock: socket.socket) -> str:
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


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
