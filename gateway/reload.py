"""Watches the configuration file, validates each change, and keeps the last good one."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path

from gateway.config import Config, ConfigError, Mistake
from gateway.differences import HIDDEN, Difference, differences, passwords, without_password
from gateway.trial import load_and_try
from gateway.yaml_source import variables

_POLL = 0.5  # seconds; inotify misses network disks and mounted config maps, a stat costs nothing
SENT = "sent"  # what a file that was sent is called in its mistakes


class ConfigFile:
    """A configuration file, and the newest good state of it.

    Attributes:
        config: the settings that hold.
        text: the file they came from.
        version: counts the changes that were taken.
        since: when the last was, seconds since 1970.
        mistakes: what is wrong with the file as it stands now; empty when it is the one that holds.
        pending: what has changed since this process started and takes a restart to hold.
    """

    def __init__(self, path: Path, environment: Mapping[str, str]) -> None:
        """Read the file.

        Raises:
            ConfigError: it can't be used.
        """
        self.path = path
        self._environment = environment
        self._seen = {path: _stamp(path)}
        raw = self._read()
        self.config: Config = load_and_try(raw, str(path), environment)
        self._contents = self._look(self.config)
        self.text = raw.decode("utf-8-sig")
        self.version = 1
        self.since = time.time()
        self.mistakes: list[str] = []
        self._started = self.config
        self.pending: list[Difference] = []
        self._lock = asyncio.Lock()

    async def watch(self, take: Callable[[str], Awaitable[None]]) -> None:
        """Forever: when the file changes, or one that it names, tell `take` why; it calls `reload`."""
        while True:
            await asyncio.sleep(_POLL)
            stamps = await asyncio.to_thread(lambda: {path: _stamp(path) for path in tuple(self._seen)})
            if stamps != self._seen:
                self._seen = stamps
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
            contents = await asyncio.to_thread(self._look, config)
            found = self._changes(config, contents)
            if config != self.config or contents != self._contents:
                self.config, self._contents = config, contents
                self.text = raw.decode("utf-8-sig")
                self.version += 1
                self.since = time.time()
                self.pending = self._late(config)
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
            config = await asyncio.to_thread(self._try, raw, self._environment)
            return self._changes(config, await asyncio.to_thread(_digests, config))
        known = variables(self.text)
        environment = {key: value for key, value in self._environment.items() if key in known}
        try:
            config = await asyncio.to_thread(self._try, text, environment)
        except ConfigError as error:
            raise ConfigError(SENT, error.mistakes) from None
        return self._differences(config)

    def _late(self, config: Config) -> list[Difference]:
        """What of these settings holds only once the gateway is started again."""
        return [one for one in differences(self._started, config) if one["restart"]]

    def _differences(self, config: Config) -> list[Difference]:
        """What they have otherwise than what holds; to go back to what was started takes no restart."""
        late = {one["path"] for one in self._late(config)}
        return [{**one, "restart": one["path"] in late} for one in differences(self.config, config)]

    def _changes(self, config: Config, contents: dict[str, bytes]) -> list[Difference]:
        """What these settings, and the files that they name, have otherwise than what holds."""
        before = self._contents
        rewritten = [key for key in contents if contents[key] != before.get(key, contents[key])]
        return self._differences(config) + [_rewritten(key) for key in rewritten]

    def _try(self, raw: bytes, environment: Mapping[str, str]) -> Config:
        """The settings of a file; passwords are kept out of what is said of its mistakes."""
        try:
            return load_and_try(raw, str(self.path), environment)
        except ConfigError as error:
            mistakes = [self._without_secrets(mistake) for mistake in error.mistakes]
            raise ConfigError(str(self.path), mistakes) from None

    def _without_secrets(self, mistake: Mistake) -> Mistake:
        said = without_password(mistake.message)
        known = {password for value in self._environment.values() for password in passwords(value)}
        for password in sorted(known, key=len, reverse=True):  # one may be a part of another
            said = said.replace(password, HIDDEN)
        return Mistake(mistake.line, mistake.path, said)

    def _read(self) -> bytes:
        try:
            return self.path.read_bytes()
        except OSError as error:
            said = f"can't be read: {(error.strerror or str(error)).lower()}"
            raise ConfigError(str(self.path), [Mistake(0, "", said)]) from None

    def _look(self, config: Config) -> dict[str, bytes]:
        """What stands in the files that a configuration names; they are watched from now on."""
        named = (path for _, path in _named(config))
        self._seen = {path: self._seen.get(path) or _stamp(path) for path in (self.path, *named)}
        return _digests(config)


def _named(config: Config) -> Iterator[tuple[str, Path]]:
    """The files that are read anew with each configuration that is taken, by the keys that name them."""
    if config.admin.token_file is not None:  # to rotate the token ends the old one, and its sessions
        yield "admin.token_file", config.admin.token_file
    if config.identity.jwt is not None:  # its keys are exchanged, or one of them revoked, in the file
        yield "identity.jwt.key_file", config.identity.jwt.key_file
    for name, feature in config.features.items():
        if feature.fallback is not None and feature.fallback.file is not None:
            yield f"features.{name}.fallback.file", feature.fallback.file


def _digests(config: Config) -> dict[str, bytes]:
    """What stands in the files that a configuration names, by key."""
    return {key: _digest(path) for key, path in _named(config)}


def _rewritten(key: str) -> Difference:
    return {"path": key, "before": "what stood in it", "after": "what stands in it now", "restart": False}


def _digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:  # it was there a moment ago; whoever reads it next says so
        return b""


def _stamp(path: Path) -> tuple[int, ...]:
    """Changes when the file does; a missing file has a stamp of its own."""
    try:
        stat = os.stat(path)  # noqa: PTH116 - follows links, as config maps need
    except OSError:
        return ()
    return (stat.st_mtime_ns, stat.st_size, stat.st_ino, stat.st_dev)
