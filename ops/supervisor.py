"""Starts services in order, restarts those that fall, and stops all in reverse order."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from ops.errors import OpsError, StartFailed
from ops.logs import last_line, rotate
from ops.service import Service

FIRST_DELAY, LAST_DELAY = 0.2, 15.0  # seconds before a restart
CALM = 30.0  # seconds of health after which a fall counts as the first again
POLL = 0.05  # seconds


class Interrupted(OpsError):  # noqa: N818 - an event: the operator asked us to stop
    """SIGINT or SIGTERM came while the stack was starting."""


def restart_delay(falls: int) -> float:
    """Seconds to wait before the restart after the `falls`-th fall in a row, from 1."""
    return float(min(LAST_DELAY, FIRST_DELAY * 2 ** min(falls - 1, 16)))


def describe(status: int) -> str:
    """An exit status in words."""
    if status < 0:
        return f"killed by {signal.Signals(-status).name}"
    return f"ended with status {status}"


@dataclass(slots=True)
class _Child:
    service: Service
    log: Path
    process: subprocess.Popen[bytes] | None = None
    serving: bool = False
    since: float = 0.0  # when it was started or became ready, supervisor's clock
    falls: int = 0
    restart_at: float | None = None
    warned: bool = False


@dataclass
class Supervisor:
    """Keeps a set of services running.

    Use as a context manager from the main thread: leaving it stops everything, also after an error.

    Attributes:
        logs: folder of the services' logs.
        say: prints one line of progress.
        changed: called with the pid of each running service after every start and fall.
        stop_within: seconds for stopping all of them.
        lock: descriptor that the watchdog keeps open until all is clear.
    """

    logs: Path
    say: Callable[[str], None]
    changed: Callable[[Mapping[str, int]], None] = lambda _pids: None
    stop_within: float = 9.0
    lock: int | None = None
    _children: list[_Child] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)
    _watchdog: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Make the log folder and start the watchdog."""
        self.logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.logs.chmod(0o700)  # one of an earlier release; servers of other accounts get their log open
        self._watchdog = subprocess.Popen(
            [sys.executable, "-m", "ops.watchdog"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=() if self.lock is None else (self.lock,),
            cwd=Path(__file__).resolve().parent.parent,
        )
        return self

    def __exit__(self, *_: object) -> None:
        """Stop everything."""
        self.stop()
        if self._watchdog is not None and self._watchdog.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._watchdog.stdin.close()
            self._watchdog.wait()

    def request_stop(self) -> None:
        """End `run` or a start in progress; safe in a signal handler."""
        self._stop.set()

    # ---- starting ---------------------------------------------------------------------------

    def start(self, *services: Service) -> None:
        """Start services side by side and wait until all of them serve.

        Raises:
            Interrupted: `request_stop` was called meanwhile.
            StartFailed: one ended or was not ready in time; the message has its last words.
        """
        children = [_Child(service, self.logs / f"{service.name}.log") for service in services]
        for child in children:
            self._children.append(child)
            self._launch(child)
        waiting = children
        while waiting:
            if self._stop.wait(POLL):
                raise Interrupted("stopped while starting")
            for child in waiting:
                self._check_start(child)
            waiting = [child for child in waiting if not child.serving]

    def _check_start(self, child: _Child) -> None:
        service, waited = child.service, time.monotonic() - child.since
        status = self._fallen(child)
        if status is not None:
            raise StartFailed(
                f"{service.name} {describe(status)} ({last_line(child.log)}); its log is {child.log}"
            )
        if service.ready():
            child.serving, child.since = True, time.monotonic()
            self.say(f"  {service.name} serves after {waited:.1f} s")
        elif waited > service.ready_within:
            raise StartFailed(
                f"{service.name} was not ready after {service.ready_within:g} s "
                f"({last_line(child.log)}); its log is {child.log}"
            )

    def once(self, name: str, argv: Sequence[str], env: Mapping[str, str], within: float = 120.0) -> None:
        """Run a step that ends by itself, such as a migration.

        Args:
            name: for the console and the log.
            argv: program and arguments.
            env: added to our own environment.
            within: seconds it may take.

        Raises:
            Interrupted: `request_stop` was called meanwhile.
            StartFailed: it failed or took too long.
        """
        child = _Child(Service(name, tuple(argv), ready=lambda: False, env=env), self.logs / f"{name}.log")
        self._children.append(child)
        self._launch(child)
        try:
            while (status := self._fallen(child)) is None:
                if self._stop.wait(POLL):
                    raise Interrupted("stopped while starting")
                if time.monotonic() - child.since > within:
                    raise StartFailed(f"{name} was not done after {within:g} s; its log is {child.log}")
        finally:
            self._end(child, within=1.0)
            self._children.remove(child)
        if status != 0:
            raise StartFailed(f"{name} {describe(status)} ({last_line(child.log)}); its log is {child.log}")
        self.say(f"  {name} done after {time.monotonic() - child.since:.1f} s")

    def _launch(self, child: _Child) -> None:
        rotate(child.log)
        child.process = child.service.launch(child.log)
        self._tell_watchdog(f"+{child.process.pid}\n")
        child.serving, child.since, child.restart_at, child.warned = False, time.monotonic(), None, False
        self._announce()

    def _announce(self) -> None:
        self.changed({c.service.name: c.process.pid for c in self._children if c.process is not None})

    def _tell_watchdog(self, line: str) -> None:
        if self._watchdog is not None and self._watchdog.stdin is not None:
            with contextlib.suppress(BrokenPipeError):  # without it the kernel's signal still holds
                self._watchdog.stdin.write(line.encode())
                self._watchdog.stdin.flush()

    # ---- running ----------------------------------------------------------------------------

    def run(self, meanwhile: Callable[[], None] = lambda: None) -> None:
        """Keep the services running until `request_stop`; `meanwhile` is called in every round."""
        next_rotation = time.monotonic()
        while not self._stop.wait(POLL):
            now = time.monotonic()
            for child in self._children:
                self._tend(child, now)
            meanwhile()
            if now >= next_rotation:
                next_rotation = now + 5.0
                for log in self.logs.glob("*.log"):
                    rotate(log)

    def _tend(self, child: _Child, now: float) -> None:
        name = child.service.name
        if child.process is None:
            if child.restart_at is not None and now >= child.restart_at:
                try:
                    self._launch(child)
                except (OpsError, OSError) as error:  # the disk may be full for a while
                    self._plan_restart(child, f"cannot be started ({error})", now)
            return
        status = self._fallen(child)
        if status is not None:
            self._clear(child)
            if child.serving and now - child.since > CALM:
                child.falls = 0
            self._plan_restart(child, describe(status), now)
            self._announce()
        elif not child.serving:
            if child.service.ready():
                child.serving, child.since = True, now
                self.say(f"{name} serves again")
            elif now - child.since > child.service.ready_within and not child.warned:
                child.warned = True
                self.say(f"{name} is still not ready ({last_line(child.log)}); its log is {child.log}")

    def _plan_restart(self, child: _Child, why: str, now: float) -> None:
        child.falls += 1
        delay = restart_delay(child.falls)
        child.restart_at = now + delay
        self.say(f"{child.service.name} {why}; starting it again in {delay:g} s")

    # ---- stopping ---------------------------------------------------------------------------

    def stop(self) -> None:
        """Stop all services, last started first, within `stop_within` seconds."""
        deadline = time.monotonic() + self.stop_within
        while self._children:
            child = self._children[-1]
            reserve = 0.4 * (len(self._children) - 1)  # seconds left for those still to stop
            self._end(child, within=max(0.3, min(6.0, deadline - time.monotonic() - reserve)))
            self._children.pop()
        self._announce()

    def _end(self, child: _Child, within: float) -> None:
        if child.process is None:
            return
        if self._fallen(child) is None:
            with contextlib.suppress(ProcessLookupError):
                child.process.send_signal(child.service.stop_signal)
            deadline = time.monotonic() + within
            while self._fallen(child) is None and time.monotonic() < deadline:
                time.sleep(0.01)
        self._clear(child)

    def _fallen(self, child: _Child) -> int | None:
        """The exit status of a process that ended, not yet reaped: its group id stays ours."""
        if child.process is None:
            return None
        if child.process.returncode is not None:
            return child.process.returncode
        ended = os.waitid(os.P_PID, child.process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended is None:
            return None
        return ended.si_status if ended.si_code == os.CLD_EXITED else -ended.si_status

    def _clear(self, child: _Child) -> None:
        """Kill what is left of a process's group, then reap it."""
        if child.process is None:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(child.process.pid, signal.SIGKILL)
        child.process.wait()
        self._tell_watchdog(f"-{child.process.pid}\n")
        child.process = None
        child.serving = False
