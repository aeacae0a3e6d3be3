"""The operations that change something: switches, shut-offs, the configuration, and who is logged in."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from starlette.responses import JSONResponse, Response

from gateway.admin import documents, forms, shapes, views
from gateway.admin.auth import COOKIE, SECURE_COOKIE, Session
from gateway.admin.looks import known
from gateway.admin.operations import Call, Operation
from gateway.admin.overview import Overview
from gateway.admin.trail import Entry
from gateway.config import ConfigError
from gateway.errors import BadForm, NotFound

if TYPE_CHECKING:
    from starlette.requests import Request

    from gateway.master import Master

TOLD = 10  # shut-offs that a refusal lists


class Changes:
    """The handlers, over one master."""

    def __init__(self, master: Master, overview: Overview) -> None:
        self._master = master
        self._overview = overview

    def operations(self) -> list[Operation]:
        """All of them."""
        shape = documents
        return [
            Operation(
                "PUT",
                "/api/features/{name}",
                self.feature,
                "Pin a feature on or off, or free it.",
                shape.FeatureChanged,
                form=forms.FeatureForm,
                kind="feature",
                needs="operator",
                refuses=(404,),
            ),
            Operation(
                "PUT",
                "/api/step",
                self.step,
                "Pin the ladder to a rung, or let it climb.",
                shape.StepChanged,
                needs="operator",
                form=forms.StepForm,
                kind="step",
            ),
            Operation(
                "PUT",
                "/api/breakers/{name}",
                self.breaker,
                "Force a breaker, or let it judge.",
                shape.BreakerChanged,
                form=forms.BreakerForm,
                kind="breaker",
                needs="operator",
                refuses=(404,),
            ),
            Operation(
                "PUT",
                "/api/limits/{name}",
                self.limit,
                "Change a limit's rate for a while.",
                shape.LimitChanged,
                form=forms.LimitForm,
                kind="limit",
                needs="operator",
                refuses=(404,),
            ),
            Operation(
                "DELETE",
                "/api/shut-offs",
                self.unshut_all,
                "Let everything through again.",
                shape.Cleared,
                needs="operator",
                kind="shut-off",
            ),
            Operation(
                "DELETE",
                "/api/shut-offs/{id}",
                self.unshut,
                "Let one thing through again.",
                shape.Cleared,
                kind="shut-off",
                needs="operator",
                refuses=(404,),
            ),
            Operation(
                "POST",
                "/api/config/check",
                self.check,
                "What this file would change; without a body, the one on disk.",
                shape.Checked,
                needs="operator",
                form="text",
                kind="config",
            ),
            Operation(
                "POST",
                "/api/config/reload",
                self.reload,
                "Let the file hold as it stands.",
                shape.Reloaded,
                needs="operator",
                kind="config",
                refuses=(422,),
            ),
            Operation(
                "POST",
                "/api/session",
                self.log_in,
                "Log a browser in; sets its cookie.",
                shape.SessionPage,
                needs="nobody",
                form=forms.LoginForm,
                kind="session",
                status=201,
                refuses=(401, 403, 429),
            ),
            Operation("GET", "/api/session", self.session, "Who is asking.", shape.SessionPage),
            Operation(
                "DELETE",
                "/api/session",
                self.log_out,
                "Log the browser out.",
                kind="session",
                status=204,
                refuses=(403,),
            ),
        ]

    # ---- switches ----------------------------------------------------------------------------

    async def feature(self, call: Call[forms.FeatureForm]) -> documents.FeatureChanged:
        """Pin a feature on or off, or leave it to the ladder."""
        name = known(self._master.config, "feature", call.name)
        done = await self._pin(call, "feature", name, call.form.state)
        return {**views.feature(self._master, name), **done}

    async def step(self, call: Call[forms.StepForm]) -> documents.StepChanged:
        """Pin the ladder to a rung, or let it climb."""
        top = len(self._master.config.degradation.steps)
        asked = call.form.step
        if isinstance(asked, int) and asked > top:
            raise BadForm(f"the ladder has steps 0 to {top}")
        done = await self._pin(call, "step", "", str(asked))
        return {**views.step(self._master), **done}

    async def breaker(self, call: Call[forms.BreakerForm]) -> documents.BreakerChanged:
        """Force a breaker, or let it judge."""
        name = known(self._master.config, "upstream", call.name)
        if self._master.config.upstreams[name].breaker is None:
            raise BadForm(f"upstream {name} has no breaker; give it one in {self._master.file.path}")
        done = await self._pin(call, "breaker", name, call.form.state)
        return {**views.breaker(self._master, await self._overview.read(), name), **done}

    async def limit(self, call: Call[forms.LimitForm]) -> documents.LimitChanged:
        """Change a limit's rate for a while."""
        name = known(self._master.config, "limit", call.name)
        done = await self._pin(call, "limit", name, call.form.rate)
        reading, window = await self._overview.read(), self._overview.window
        return {**views.limit(self._master, window, reading, name, call.by.role), **done}

    async def _pin(
        self,
        call: Call[forms.FeatureForm]
        | Call[forms.StepForm]
        | Call[forms.BreakerForm]
        | Call[forms.LimitForm],
        kind: str,
        name: str,
        value: str,
    ) -> shapes.Changed:
        form, by = call.form, call.by
        pin, effect = await self._master.pin(
            kind, name, value, lasts=form.lasts, reason=form.reason, by=by.who
        )
        entry = Entry(pin.at, kind, name, pin.old, value, by.who, by.role, form.reason, pin.until)
        await self._record(entry.with_effect(effect.applied, effect.workers, effect.seconds))
        return views.effect(effect)

    # ---- shut-offs ---------------------------------------------------------------------------

    async def unshut_all(self, call: Call[None]) -> documents.Cleared:
        """Let through again whatever the upstreams have shut off."""
        return await self._unshut(call, None)

    async def unshut(self, call: Call[None]) -> documents.Cleared:
        """Let through again one thing that an upstream has shut off."""
        done = await self._unshut(call, {call.name})
        if not done["cleared"]:
            listed = _ids(views.shut_offs(self._master))
            raise NotFound(f"nothing of that id is shut off; there are: {listed}")
        return done

    async def _unshut(self, call: Call[None], ids: set[str] | None) -> documents.Cleared:
        held = views.shut_offs(self._master)
        gone = [one for one in held if ids is None or one["id"] in ids]
        cleared = self._master.hosts.unshut(ids, by=call.by.who)
        if cleared or ids is None:
            named = ", ".join(f"{one['route']} {one['parameter']}={one['value']}" for one in gone[:5])
            entry = Entry(self._master.trail.now(), "shut-off", named, "shut", f"{cleared} let through")
            await self._record(entry.sent_by(call.by.who, call.by.role))
        return {"cleared": cleared}

    # ---- configuration -----------------------------------------------------------------------

    async def check(self, call: Call[bytes]) -> documents.Checked:
        """What a file would change."""
        try:
            found = await self._master.file.compare(call.form or None)
        except ConfigError as error:
            raise BadForm("this file can't be used", extra={"mistakes": error.lines}) from None
        return {"good": True, "version": self._master.file.version, "changes": found}

    async def reload(self, call: Call[None]) -> documents.Reloaded:
        """Take the configuration file as it stands."""
        try:
            found, effect = await self._master.edits.reload(call.by.who, call.by.role)
        except ConfigError as error:
            said = "the file is not used; the configuration before it holds"
            raise BadForm(said, extra={"mistakes": error.lines}) from None
        await self._master.trail.written()
        version = self._master.file.version
        return {"version": version, "changes": found, **views.effect(effect)}

    # ---- browsers ----------------------------------------------------------------------------

    async def log_in(self, call: Call[forms.LoginForm]) -> Response:
        """Open a session for a browser."""
        cookie, session = self._master.door.log_in(call.request, call.form.token)
        by = f"{session.bearer.name} at {call.by.address}"
        entry = Entry(self._master.trail.now(), "session", "", "", "logged in", by, session.bearer.role)
        await self._record(entry)
        answer = JSONResponse(_page(session), 201, headers={"cache-control": "no-store"})
        secure = _over_tls(call.request)
        answer.set_cookie(
            SECURE_COOKIE if secure else COOKIE,
            cookie,
            max_age=int(session.ends - time.time()),
            path="/",
            secure=secure,
            httponly=True,
            samesite="strict",
        )
        return answer

    async def session(self, call: Call[None]) -> documents.SessionPage:
        """Who is asking."""
        if call.by.session is not None:
            return _page(call.by.session)
        return {"name": call.by.name, "role": call.by.role, "csrf": None, "ends": None}

    async def log_out(self, call: Call[None]) -> Response:
        """End the browser's session."""
        if call.by.session is not None:
            self._master.door.log_out(call.by.session)
            entry = Entry(self._master.trail.now(), "session", "", "logged in", "logged out")
            await self._record(entry.sent_by(call.by.who, call.by.role))
        answer = Response(status_code=204, headers={"cache-control": "no-store"})
        for name in (COOKIE, SECURE_COOKIE):
            answer.delete_cookie(
                name, path="/", secure=name == SECURE_COOKIE, httponly=True, samesite="strict"
            )
        return answer

    async def _record(self, entry: Entry) -> None:
        self._master.trail.done(entry)
        await self._master.trail.written()  # before it is answered, so that no crash forgets it


def _ids(held: list[shapes.ShutOff]) -> str:
    """Those that there are, the newest first; each with what it stands for."""
    told = [f"{one['id']} ({one['parameter']}={one['value'][:40]})" for one in held[: -TOLD - 1 : -1]]
    more = [f"and {len(held) - TOLD} more"] if len(held) > TOLD else []
    return ", ".join(told + more) or "none"


def _page(session: Session) -> documents.SessionPage:
    bearer = session.bearer
    return {"name": bearer.name, "role": bearer.role, "csrf": session.csrf, "ends": session.ends}


def _over_tls(request: Request) -> bool:
    """Whether the browser came by TLS, as it says itself: in front of us there may be one who ends it."""
    return request.headers.get("origin", "").startswith("https:") or request.url.scheme == "https"
