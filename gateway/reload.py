"""Watches the configuration file, validates each change, and keeps the last good one."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gateway.config import Config, ConfigError, Mistake, remarks
from gateway.differences import HIDDEN, Difference, differences, passwords, without_password
from gateway.trial import load_and_try
from gateway.yaml_source import variables

_log = logging.getLogger("gateway.config")
_POLL = 0.5  # seconds; inotify misses network disks and mounted config maps, a stat costs nothing
SENT = "sent"  # what a file that was sent is called in its mistakes


@dataclass(frozen=True, slots=True)
class Edit:
    """The file as it was read, good but not in force.

    Attributes:
        config: its settings.
        text: the file.
        contents: digests of what stands in the files that it names.
        stamps: of those files and itself, from before they were read.
        found: what is new in it; may be nothing although something is, as in a comment.
        new: whether any of its settings is.
    """

    config: Config
    text: str
    contents: dict[str, bytes]
    stamps: dict[Path, tuple[int, ...]]
    found: list[Difference]
    new: bool


class ConfigFile:
    """A configuration file, and the newest good state of it.

    Attributes:
        config: the settings that hold.
        text: the file they came from.
        version: its number; grows with each that is taken.
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
        self._seen = self._stamps(self.config)
        self._contents = _digests(self.config)
        self.text = raw.decode("utf-8-sig")
        self._remark()
        self.version = 1
        self.since = time.time()
        self.mistakes: list[str] = []
        self._started = self.config
        self.pending: list[Difference] = []

    async def watch(self, take: Callable[[str], Awaitable[None]]) -> None:
        """Forever: when the file changes, or one that it names, tell `take` why; it calls `read`."""
        while True:
            await asyncio.sleep(_POLL)
            stamps = await asyncio.to_thread(lambda: {path: _stamp(path) for path in tuple(self._seen)})
            if stamps != self._seen:
                self._seen = stamps
                await take("file changed")

    async def read(self) -> Edit:
        """Read the file again.

        Raises:
            ConfigError: it can't be used.
        """
        try:
            raw = await asyncio.to_thread(self._read)
            config = await asyncio.to_thread(self._try, raw, self._environment)
        except ConfigError as error:
            self.mistakes = error.lines
            raise
        stamps = await asyncio.to_thread(self._stamps, config)
        contents = await asyncio.to_thread(_digests, config)
        new = config != self.config or contents != self._contents
        return Edit(config, raw.decode("utf-8-sig"), contents, stamps, self._changes(config, contents), new)

    def take(self, edit: Edit, version: int) -> None:
        """Let an edit hold from now on, under this number."""
        self.mistakes = []
        self._seen = {path: self._seen.get(path) or stamp for path, stamp in edit.stamps.items()}
        if edit.new:
            self.config, self._contents, self.text = edit.config, edit.contents, edit.text
            self.version = version
            self.since = time.time()
            self.pending = self._late(edit.config)
            self._remark()

    def refuse(self, mistakes: Iterable[Mistake]) -> ConfigError:
        """The error of an edit that is good as such, but can't hold; what held before still does."""
        error = ConfigError(str(self.path), [self._without_secrets(mistake) for mistake in mistakes])
        self.mistakes = error.lines
        return error

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

    def _remark(self) -> None:
        for line in remarks(self.config, self.text.encode(), str(self.path), self._environment):
            _log.warning("%s", line)

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

    def _stamps(self, config: Config) -> dict[Path, tuple[int, ...]]:
        """Of the file and those that a configuration names; those that are watched, as last seen."""
        named = (path for _, path in _named(config))
        return {path: self._seen.get(path) or _stamp(path) for path in (self.path, *named)}


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
