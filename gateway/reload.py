"""Watches the configuration file, validates each change, and keeps the last good one."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from gateway.config import Config, ConfigError, Mistake
from gateway.differences import HIDDEN, Difference, differences, without_password
from gateway.trial import load_and_try
from gateway.yaml_source import variables

_POLL = 0.5  # seconds; inotify misses network disks and mounted config maps, a stat costs nothing
SENT = "sent"  # what a file that was sent is called in its mistakes
_SECRET = re.compile(r"://[^/@\s]*?:([^/@\s]+)@")  # the password in a URL


class ConfigFile:
    """A configuration file, and the newest good state of it.

    Attributes:
        config: the settings that hold.
        text: the file they came from.
        version: counts the changes that were taken.
        since: when the last was, seconds since 1970.
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
        self.since = time.time()
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

    async def reload(self) -> list[Difference]:
        """Read the file again and let it hold; says what is new.

        Raises:
            ConfigError: it can't be used; what held before still holds.
        """
        async with self._lock:
            try:
                raw = await asyncio.to_thread(self._read)
                config = await asyncio.to_thread(self._try, raw, self._environment)
            except ConfigError as error:
                self.mistakes = error.lines
                raise
            self.mistakes = []
            found = differences(self.config, config)
            if config != self.config:
                self.config = config
                self.text = raw.decode("utf-8-sig")
                self.version += 1
                self.since = time.time()
            return found

    async def compare(self, text: bytes | None = None) -> list[Difference]:
        """What this file would change, or the one on disk as it stands; changes nothing.

        A file that was sent sees only the variables that the present one asks for, and a password in them is
        never told: who may send files may still not read the gateway's environment.

        Raises:
            ConfigError: it can't be used.
        """
        if text is None:
            raw = await asyncio.to_thread(self._read)
            return differences(self.config, await asyncio.to_thread(self._try, raw, self._environment))
        known = variables(self.text)
        environment = {key: value for key, value in self._environment.items() if key in known}
        try:
            config = await asyncio.to_thread(self._try, text, environment)
        except ConfigError as error:
            raise ConfigError(SENT, error.mistakes) from None
        return differences(self.config, config)

    def _try(self, raw: bytes, environment: Mapping[str, str]) -> Config:
        """The settings of a file; passwords are kept out of what is said of its mistakes."""
        try:
            return load_and_try(raw, str(self.path), environment)
        except ConfigError as error:
            mistakes = [self._without_secrets(mistake) for mistake in error.mistakes]
            raise ConfigError(str(self.path), mistakes) from None

    def _without_secrets(self, mistake: Mistake) -> Mistake:
        said = without_password(mistake.message)
        for value in self._environment.values():
            for password in _SECRET.findall(value):
                said = said.replace(password, HIDDEN)
        return Mistake(mistake.line, mistake.path, said)

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
