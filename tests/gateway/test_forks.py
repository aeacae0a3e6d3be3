"""Where workers come from: a process that forks them, and is no more than that."""

from __future__ import annotations

import asyncio
import shutil
import signal
import sys
from typing import Any

import psutil
import pytest

from gateway.forks import Forks


def _server(gateway: Any) -> psutil.Process:
    """The fork server of a gateway."""
    (server,) = psutil.Process(gateway.process.pid).children()
    return server


def _over(process: psutil.Process) -> bool:
    """Whether it has ended; who inherits an orphan may not have asked how."""
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def test_the_fork_server_has_no_thread_and_no_connection(start_gateway: Any, until: Any) -> None:
    """What a fork would copy half of is not there; its workers begin with the descriptors they were given."""
    gateway = await start_gateway()
    server = _server(gateway)

    assert server.num_threads() == 1
    assert server.net_connections() == []
    assert len(gateway.workers()) == 2
    again = server.num_fds()
    gateway.workers()[0].kill()
    await gateway.replaced()
    await until(lambda: server.num_fds() == again)  # it closes the worker's a moment after it was born


async def test_signals_for_the_whole_group_leave_it(start_gateway: Any) -> None:
    """A terminal's Ctrl-C and a service manager's SIGTERM reach all; the next worker can still be made."""
    gateway = await start_gateway()
    server = _server(gateway)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        server.send_signal(number)

    victim = gateway.workers()[0]
    victim.kill()

    await gateway.replaced()
    assert _server(gateway) == server
    await gateway.says("a worker died (exit code -9)")


async def test_a_killed_fork_server_takes_no_worker_with_it(start_gateway: Any, until: Any) -> None:
    """Those that serve go on; who dies later is replaced by another server's fork; the end leaves nothing."""
    gateway = await start_gateway()
    server, orphans = _server(gateway), gateway.workers()
    server.kill()
    await until(lambda: _over(server))
    assert all(orphan.is_running() for orphan in orphans)
    assert (await gateway.fresh()).status_code == 200

    orphans[0].kill()

    await gateway.replaced()
    await gateway.says("a worker died (exit code unknown)")
    (young,) = gateway.workers()
    assert await gateway.stop() == 0
    await until(lambda: all(_over(process) for process in (*orphans, young)))


async def test_a_terminal_that_hangs_up_ends_no_worker(start_gateway: Any) -> None:
    """SIGHUP reaches the whole group; the master reads its configuration anew, and workers serve on."""
    gateway = await start_gateway()
    workers = gateway.workers()
    for process in (*workers, _server(gateway), psutil.Process(gateway.process.pid)):
        process.send_signal(signal.SIGHUP)

    await gateway.says("SIGHUP: configuration 1 holds in 2 of 2 workers")
    assert (await gateway.fresh()).status_code == 200
    assert gateway.workers() == workers


async def test_a_server_that_ends_is_told_to_all_who_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that can't even import a worker: an error for each request; the next request tries another."""
    forks = Forks()
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    refused = await asyncio.gather(forks.make(()), forks.make(()), return_exceptions=True)
    monkeypatch.undo()

    child = await forks.make(())

    assert all(isinstance(answer, OSError) for answer in refused)
    assert await child.wait() == 1  # it was given no descriptors to work with
    await forks.aclose()
    assert psutil.pid_exists(child.pid) is False
