"""Edits of the configuration: taken by every worker, or refused; told, counted and recorded either way."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.admin.trail import Entry
from gateway.config import Config, ConfigError
from gateway.crew import Crew, Effect
from gateway.differences import Difference, in_words

if TYPE_CHECKING:
    from gateway.master import Master

_log = logging.getLogger("gateway.config")  # `tidegate up` shows it on its console


class Edits:
    """Takes the file whenever it changes or somebody asks.

    Args:
        master: whose configuration it is.
    """

    def __init__(self, master: Master) -> None:
        self._master = master
        self._lock = asyncio.Lock()

    async def reload(self, by: str, role: str = "") -> tuple[list[Difference], Effect]:
        """Take the file as it stands; returns what that changes, and in which workers it holds.

        Args:
            by: who or what asks.
            role: of an operator.

        Raises:
            ConfigError: it can't be used; what held before still holds.
        """
        master, file = self._master, self._master.file
        crew = master.crew
        assert crew is not None  # noqa: S101 - the admin port opens after the crew is made
        async with self._lock:  # of two who ask at once, the second finds what the first has taken
            before, version = file.config, file.version
            try:
                found = await file.reload()
            except ConfigError:
                master.totals.own.count("tidegate_config_reloads_total", "failure")
                raise
            master.totals.own.count("tidegate_config_reloads_total", "success")
            wanted = file.version
            if wanted > version:
                self._adopt(crew, before, found)
        effect = await crew.effect(lambda member: member.version >= wanted)
        if wanted > version:
            entry = Entry(master.trail.now(), "config", str(file.path), str(version), str(wanted), by, role)
            entry = replace(entry, detail=in_words(found))
            master.trail.done(entry.with_effect(effect.applied, effect.workers, effect.seconds))
        return found, effect

    async def take(self, why: str) -> None:
        """Take the file as it stands, and tell the log and the trail what came of it."""
        file, trail = self._master.file, self._master.trail
        try:
            _, effect = await self.reload(why)
        except ConfigError as error:
            _log.error("%s: the new configuration is not used; the one before holds:\n%s", why, error)
            entry = Entry(trail.now(), "config", str(file.path), str(file.version), by=why, status=0)
            trail.refused(replace(entry, result="refused", detail=error.lines[0]))
        else:
            _log.info(
                "%s: configuration %d holds in %d of %d workers after %.0f ms",
                *(why, file.version, effect.applied, effect.workers, effect.seconds * 1000),
            )

    def _adopt(self, crew: Crew, before: Config, found: list[Difference]) -> None:
        master, file, now = self._master, self._master.file, self._master.config
        _log.info("configuration %d: %s", file.version, in_words(found))
        for key in (one["path"] for one in found if one["restart"]):
            word = master.overrides.words.get(key)
            what = f"{word} has the say over it" if word else "that takes a restart"
            _log.warning("%s changed in %s; %s", key, file.path, what)
        if before.redis != now.redis:
            master.background.do(master.hosts.restart(lambda: master.config.redis), "resync")
        crew.drain = now.listen.drain
        crew.tell({"type": "config", "config": file.text, "version": file.version})
        master.board.adopt(before)
