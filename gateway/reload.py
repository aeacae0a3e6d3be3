"""Watches the configuration file, validates each change, and keeps the last good one."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from gateway.config import Config, ConfigError, Mistake
from gateway.trial import load_and_try

_POLL = 0.5  # seconds; inotify misses network disks and mounted config maps, a stat costs nothing


class ConfigFile:
    """A configuration file, and the newest good state of it.

    Attributes:
        config: the settings that hold.
        text: the file they came from.
        version: counts the changes that were taken.
        mistakes: what is wrong with the file as it stands now; empty when it is the one that holds.
    """

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        """Read the file.

        Raises:
            ConfigError: it can't be used.
        """
        self.path = path
        self._environment = environment
        self._seen = self._stamp()
        raw = self._read()
        self.config: Config = load_and_try(raw, str(path), environment)
        self.text = raw.decode("utf-8-sig")
        self.version = 1
        self.mistakes: list[str] = []
        self._lock = asyncio.Lock()

    async def watch(self, take: Callable[[str], Awaitable[None]]) -> None:
        """Forever: when the file changes, tell `take` why; it calls `reload`."""
        while True:
            await asyncio.sleep(_POLL)
            stamp = await asyncio.to_thread(self._stamp)
            if stamp != self._seen:
                self._seen = stamp
                await take("file changed")

    async def reload(self) -> bool:
        """Read the file again; say whether its settings are new.

        Raises:
            ConfigError: it can't be used; what held before still holds.
        """
        async with self._lock:
            try:
                raw = await asyncio.to_thread(self._read)
                config = await asyncio.to_thread(load_and_try, raw, str(self.path), self._environment)
            except ConfigError as error:
                self.mistakes = error.lines
                raise
            self.mistakes = []
            if config == self.config:
                return False
            self.config = config
            self.text = raw.decode("utf-8-sig")
            self.version += 1
            return True

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            said = f"can't be read: {(error.strerror or str(error)).lower()}"
            raise ConfigError(str(self.path), [Mistake(0, "", said)]) from None

    def _stamp(self) -> tuple[int, ...]:
        """Changes when the file does; a missing file has a stamp of its own."""
        try:
            stat = os.stat(self.path)  # noqa: PTH116 - follows links, as config maps need
        except OSError:
            return ()
        return (stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_dev)
