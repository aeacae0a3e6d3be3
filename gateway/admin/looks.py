"""The operations that look: what there is, and how it is."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

from starlette.responses import JSONResponse, Response

from gateway.admin import documents, shapes, views
from gateway.admin.events import Events, Stream
from gateway.admin.operations import Call, Operation
from gateway.admin.overview import Overview
from gateway.admin.trail import Entry
from gateway.config import Config
from gateway.differences import shown
from gateway.errors import NotFound
from gateway.exposition import OPEN_METRICS, TEXT, render, wants_open_metrics

if TYPE_CHECKING:
    from gateway.master import Master


def known(config: Config, kind: str, name: str) -> str:
    """The name, of a feature, upstream or limit that there is.

    Raises:
        NotFound: there is none of that name.
    """
    names: Any = {"feature": config.features, "upstream": config.upstreams, "limit": config.limits}[kind]
    if name not in names:
        listed = ", ".join(sorted(names)) or "none"
        raise NotFound(f"no {kind} of that name is configured; there are: {listed}")
    return name


class Looks:
    """The handlers, over one master."""

    def __init__(self, master: Master, overview: Overview) -> None:
        self._master = master
        self._overview = overview
        self.events = Events(overview.snapshot)

    def operations(self) -> list[Operation]:
        """All of them."""
        shape = documents
        return [
            Operation("GET", "/livez", self.live, "This process answers.", shape.Live, "nobody"),
            Operation(
                "GET",
                "/readyz",
                self.ready,
                "Whether every worker serves.",
                shape.Ready,
                "nobody",
                also=(503,),
            ),
            Operation(
                "GET",
                "/metrics",
                self.metrics,
                "All workers' metrics, for Prometheus.",
                None,
                "nobody",
                media="text/plain",
            ),
            Operation("GET", "/api/status", self.status, "Everything on one page.", shape.Status),
            Operation(
                "GET",
                "/api/events",
                self.listen,
                "The same each second, as server-sent events.",
                media="text/event-stream",
                refuses=(503,),
            ),
            Operation(
                "GET", "/api/history", self.history, "The last minutes, a point each 3 s.", shape.History
            ),
            Operation("GET", "/api/features", self.features, "All features.", shape.Features),
            Operation(
                "GET", "/api/features/{name}", self.feature, "One feature.", shapes.Feature, refuses=(404,)
            ),
            Operation("GET", "/api/step", self.step, "The ladder.", shapes.Step),
            Operation("GET", "/api/breakers", self.breakers, "All breakers.", shape.Breakers),
            Operation(
                "GET",
                "/api/breakers/{name}",
                self.breaker,
                "One upstream's breaker.",
                shapes.Breaker,
                refuses=(404,),
            ),
            Operation("GET", "/api/limits", self.limits, "All limits.", shape.Limits),
            Operation("GET", "/api/limits/{name}", self.limit, "One limit.", shapes.Limit, refuses=(404,)),
            Operation(
                "GET",
                "/api/shut-offs",
                self.shut_offs,
                "What the upstreams have shut off.",
                shape.ShutOffs,
            ),
            Operation(
                "GET",
                "/api/config",
                self.config,
                "The settings that hold, without secrets.",
                shape.ConfigPage,
            ),
            Operation(
                "GET",
                "/api/audit",
                self.trail,
                "Who changed what, when and why, and who was refused.",
                shape.Trail,
            ),
        ]

    # ---- without token -----------------------------------------------------------------------

    async def live(self, _: Call[None]) -> documents.Live:
        """This process answers."""
        return {"status": "live"}

    async def ready(self, _: Call[None]) -> Response:
        """Every worker serves."""
        crew = self._master.crew
        ready = crew is not None and crew.ready >= crew.size and not self._master.draining
        body: documents.Ready = {
            "status": "ready" if ready else "draining" if self._master.draining else "starting",
            "workers": crew.ready if crew is not None else 0,
        }
        return JSONResponse(body, status_code=200 if ready else 503)

    async def metrics(self, call: Call[None]) -> Response:
        """All workers' metrics, in the format that the scraper asks for."""
        await self._master.fresh()
        openly = wants_open_metrics(call.request.headers.get("accept", ""))
        page = render(self._master.totals.read(), open_metrics=openly)
        return Response(page, headers={"content-type": OPEN_METRICS if openly else TEXT})

    # ---- with token --------------------------------------------------------------------------

    async def status(self, call: Call[None]) -> documents.Status:
        """Everything on one page."""
        role = call.by.role
        made: documents.Status = (await self._overview.snapshot({role}))[role]
        return made

    async def history(self, _: Call[None]) -> documents.History:
        """The last minutes."""
        return {"points": self._overview.history.points}

    async def listen(self, call: Call[None]) -> Stream:
        """The same, each second."""
        door, by = self._master.door, call.by
        listener = self.events.join(by.role)
        return Stream(self.events, listener, lambda: door.still(by))

    async def features(self, _: Call[None]) -> documents.Features:
        """All features."""
        return {"features": [views.feature(self._master, name) for name in self._master.config.features]}

    async def feature(self, call: Call[None]) -> shapes.Feature:
        """One feature."""
        return views.feature(self._master, known(self._master.config, "feature", call.name))

    async def step(self, _: Call[None]) -> shapes.Step:
        """The ladder."""
        return views.step(self._master)

    async def breakers(self, _: Call[None]) -> documents.Breakers:
        """All breakers."""
        reading = await self._overview.read()
        names = self._master.config.upstreams
        return {"breakers": [views.breaker(self._master, reading, name) for name in names]}

    async def breaker(self, call: Call[None]) -> shapes.Breaker:
        """One breaker."""
        name = known(self._master.config, "upstream", call.name)
        return views.breaker(self._master, await self._overview.read(), name)

    async def limits(self, call: Call[None]) -> documents.Limits:
        """All limits."""
        reading, names = await self._overview.read(), self._master.config.limits
        window, role = self._overview.window, call.by.role
        return {"limits": [views.limit(self._master, window, reading, name, role) for name in names]}

    async def limit(self, call: Call[None]) -> shapes.Limit:
        """One limit."""
        name = known(self._master.config, "limit", call.name)
        reading = await self._overview.read()
        return views.limit(self._master, self._overview.window, reading, name, call.by.role)

    async def shut_offs(self, _: Call[None]) -> documents.ShutOffs:
        """What the upstreams have shut off."""
        return {"shut_offs": views.shut_offs(self._master)}

    async def config(self, _: Call[None]) -> documents.ConfigPage:
        """The settings that hold."""
        return {**views.config_state(self._master), "config": shown(self._master.config)}

    async def trail(self, _: Call[None]) -> Response:
        """Who changed what, when and why; the newest first."""
        trail = self._master.trail
        changes, refused = trail.changes, trail.refusals
        page = await asyncio.to_thread(_trail, changes, refused)  # up to a megabyte; the switches don't wait
        return Response(page, media_type="application/json", headers={"cache-control": "no-store"})


def _trail(changes: list[Entry], refused: list[Entry]) -> str:
    """The trail as JSON, entry by entry: all at once, it would keep other threads from running."""
    lists = (",".join(json.dumps(entry.told()) for entry in entries) for entries in (changes, refused))
    return '{{"changes":[{}],"refused":[{}]}}'.format(*lists)
