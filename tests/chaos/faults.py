"""Doing what a schedule says, from outside, and undoing it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
from collections import Counter
from collections.abc import Awaitable, Callable

import redis.asyncio

from tests.chaos.schedule import CLOCKS, Fault, Schedule
from tests.chaos.world import World

_PATIENCE = 30.0  # seconds until a process that shall be hit runs


class Injector:
    """Does the faults of one schedule.

    Attributes:
        done: how often each fault really hit, by (kind, target).
        missed: faults whose target did not run in time.
        log: what was done, as it was done.
    """

    def __init__(self, world: World, storm: Callable[[], Awaitable[None]]) -> None:
        self.done: Counter[tuple[str, str]] = Counter()
        self.missed: list[Fault] = []
        self.log: list[str] = []
        self._world = world
        self._send_storm = storm
        self._stopped: dict[int, bool] = {}  # process id → with its group

    async def run(self, schedule: Schedule) -> None:
        """Every fault at its time; returns when all are undone."""
        began = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for fault in schedule.faults:
                await asyncio.sleep(max(0.0, began + fault.at - asyncio.get_running_loop().time()))
                group.create_task(self._do(fault), name=str(fault))

    def heal(self) -> None:
        """Undo whatever still lasts."""
        for pid, group in self._stopped.items():
            _signal(pid, signal.SIGCONT, group=group)
        self._stopped.clear()
        for proxy in self._world.proxies.values():
            proxy.heal()
        for host in CLOCKS:
            self._world.set_clock(host, 0.0)

    async def _do(self, fault: Fault) -> None:
        hit = await getattr(self, f"_{fault.kind}")(fault)
        if hit:
            self.done[fault.kind, fault.target] += 1
            self.log.append(str(fault))
        else:
            self.missed.append(fault)

    # ---- one method for each kind; whether it hit ---------------------------------------------

    async def _kill(self, fault: Fault) -> bool:
        pid = await self._running(fault.target)
        if pid is None:
            return False
        _signal(pid, signal.SIGKILL)
        return True

    async def _stop(self, fault: Fault) -> bool:
        pid = await self._running(fault.target)
        if pid is None:
            return False
        group = fault.target == "postgres"  # the connections' processes too
        self._stopped[pid] = group
        _signal(pid, signal.SIGSTOP, group=group)
        await asyncio.sleep(fault.lasts)
        _signal(pid, signal.SIGCONT, group=group)
        self._stopped.pop(pid, None)
        return True

    async def _hole(self, fault: Fault) -> bool:
        proxy = self._world.proxies[fault.target]
        proxy.hole()
        await asyncio.sleep(fault.lasts)
        proxy.heal()
        return True

    async def _slow(self, fault: Fault) -> bool:
        proxy = self._world.proxies[fault.target]
        proxy.slow(fault.amount)
        await asyncio.sleep(fault.lasts)
        proxy.heal()
        return True

    async def _flush(self, fault: Fault) -> bool:
        with contextlib.suppress(redis.RedisError, OSError):
            async with redis.asyncio.from_url(
                self._world.store_url(fault.target), socket_timeout=5.0
            ) as client:
                await client.flushall()
            return True
        return False

    async def _lose(self, fault: Fault) -> bool:
        """The disk goes first, while nothing can be written; then the process."""
        pid = await self._running(fault.target)
        if pid is None:
            return False
        _signal(pid, signal.SIGSTOP)
        for path in self._world.store_data(fault.target).iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        _signal(pid, signal.SIGKILL)
        return True

    async def _storm(self, _: Fault) -> bool:
        await self._send_storm()
        return True

    async def _clock(self, fault: Fault) -> bool:
        self._world.set_clock(fault.target, fault.amount)
        await asyncio.sleep(fault.lasts)
        self._world.set_clock(fault.target, 0.0)
        return True

    async def _running(self, name: str) -> int | None:
        """Its process id, waited for: what is being started again can't be hit."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_PATIENCE):
                while True:
                    if (pid := self._world.pid(name)) is not None:
                        return pid
                    await asyncio.sleep(0.05)
        return None


def _signal(pid: int, number: int, *, group: bool = False) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, number) if group else os.kill(pid, number)
