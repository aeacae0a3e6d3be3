"""Edits of the configuration: taken by every worker, or refused; told, counted and recorded either way."""

from __future__ import annotations

import asyncio
import itertools
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from gateway.admin.trail import Entry
from gateway.config import Config, ConfigError, Mistake
from gateway.crew import Crew
from gateway.differences import Difference, in_words
from gateway.effect import Effect
from gateway.reload import Edit

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
        self._numbers = itertools.count(master.file.version + 1)  # one that was refused is not used again

    async def reload(self, by: str, role: str = "") -> tuple[list[Difference], Effect]:
        """Take the file as it stands; returns what that changes, and in which workers it holds.

        Args:
            by: who or what asks.
            role: of an operator.

        Raises:
            ConfigError: it can't be used, or not by every worker; what held before still holds.
        """
        master, file = self._master, self._master.file
        crew = master.crew
        assert crew is not None  # noqa: S101 - the admin port opens after the crew is made
        async with self._lock:  # of two who ask at once, the second finds what the first has taken
            before, version = file.config, file.version
            wanted, seconds = version, 0.0
            try:
                edit = await file.read()
                if edit.new:
                    wanted = next(self._numbers)
                    seconds = await self._offer(crew, edit, wanted)
            except ConfigError:
                master.totals.own.count("tidegate_config_reloads_total", "failure")
                raise
            master.totals.own.count("tidegate_config_reloads_total", "success")
            file.take(edit, wanted)
            if edit.new:
                self._adopt(crew, before, edit.found)
        serial = master.board.serial  # what the file says of features holds by these
        effect = await crew.effect(lambda one: wanted <= one.version <= file.version and one.serial >= serial)
        effect = effect.after(seconds)
        if edit.new:
            entry = Entry(master.trail.now(), "config", str(file.path), str(version), str(wanted), by, role)
            entry = replace(entry, detail=in_words(edit.found))
            master.trail.done(entry.with_effect(effect.applied, effect.workers, effect.seconds))
        return edit.found, effect

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

    async def _offer(self, crew: Crew, edit: Edit, number: int) -> float:
        """Have every worker serve by an edit; seconds that this took.

        One that has no time to answer is not waited for: it serves by what it was offered as soon as it can.

        Raises:
            ConfigError: a worker can't have it; those that could have gone back.
        """
        file = self._master.file
        crew.offer(edit.text, number)
        effect = await crew.effect(lambda one: one.version == number, lambda one: one.refused == number)
        mistakes = {mistake for one in crew.refused(number) for mistake in one.mistakes}
        if not mistakes:
            return effect.seconds
        crew.offer(file.text, file.version, but={one.id for one in crew.refused(number)})
        await crew.effect(lambda one: one.version == file.version, lambda one: one.refused == file.version)
        for one in crew.members.values():
            if one.version == number:
                said = f"worker {one.process.pid} serves by it and does not go back; restart the gateway"
                mistakes.add(Mistake(0, "", said))
        raise file.refuse(mistakes)

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
        crew.offer(file.text, file.version)  # to those born meanwhile
        master.board.adopt(before)
