"""What the gateway said of itself while the crowd was there, once a second."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from ops.admin_client import AdminClient
from ops.errors import OpsError


@dataclass(frozen=True, slots=True)
class Glance:
    """One look.

    Attributes:
        at: seconds since the beginning.
        step: rung of the ladder.
        pressure: 1 is full.
        open: upstreams whose breaker was not closed.
        pinned: whether an operator holds the ladder.
    """

    at: float
    step: int
    pressure: float
    open: tuple[str, ...]
    pinned: bool = False


@dataclass
class Watch:
    """Looks once a second until cancelled.

    Attributes:
        glances: every look that was answered.
        missed: looks that were not.
        rungs: names of the ladder's steps.
    """

    client: AdminClient
    glances: list[Glance] = field(default_factory=list)
    missed: int = 0
    rungs: list[str] = field(default_factory=list)

    async def keep(self) -> None:
        """Look and look again."""
        began = time.monotonic()
        while True:
            await self.look(began)
            await asyncio.sleep(1.0)

    async def look(self, began: float) -> Glance | None:
        """One look; None when nobody answered."""
        try:
            said: Any = await asyncio.to_thread(self.client.get, "/api/status")
        except OpsError:
            self.missed += 1
            return None
        step = said.get("step") or {}
        self.rungs = [str(rung.get("name")) for rung in step.get("steps") or []]
        ill = tuple(
            str(one.get("upstream")) for one in said.get("breakers") or [] if one.get("now") != "closed"
        )
        pinned = step.get("state", "auto") != "auto"
        at, pressure = time.monotonic() - began, float(said.get("pressure") or 0.0)
        glance = Glance(at, int(step.get("step") or 0), pressure, ill, pinned)
        self.glances.append(glance)
        return glance

    async def calm(self, within: float) -> bool:
        """Wait until every breaker is closed and the ladder down or pinned; whether it came to that."""
        began = time.monotonic()
        while time.monotonic() < began + within:
            glance = await Watch(self.client).look(began)
            if glance is not None and not glance.open and (glance.pinned or not glance.step):
                return True
            await asyncio.sleep(0.5)
        return False
