"""How a buyer is reached: mail address, telephone number and language; kept with the session, for orders."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shop_backend.errors import Unavailable
from shop_backend.letters import LANGUAGES, Language
from shop_backend.requests import Body, Email, Phone, parse, read

if TYPE_CHECKING:
    from shop_backend.context import Context  # wiring; nothing here needs it at run time

_WEIGHT = re.compile(r"\s*q\s*=\s*(0(?:\.\d{0,3})?|1(?:\.0{0,3})?)\s*", re.IGNORECASE)
_LONGEST = 1000  # characters of Accept-Language that are looked at


def language_of(accept: str) -> Language:
    """What we speak of what a reader asks for in Accept-Language (RFC 9110, 12.5.4); the first when nothing.

    The ranges match by lookup (RFC 4647, 3.4), so that zh-Hant-TW gets zh. Nonsense is left out.
    """
    return _language_of(accept[:_LONGEST])


@functools.lru_cache(maxsize=1024)
def _language_of(accept: str) -> Language:
    best: tuple[float, Language] = (0.0, LANGUAGES[0])
    for part in accept.split(","):
        name, *parameters = part.split(";")
        weight = 1.0
        for parameter in parameters:
            match = _WEIGHT.fullmatch(parameter)
            weight = float(match[1]) if match else 0.0
        primary = name.strip().lower().partition("-")[0]
        for language in LANGUAGES:
            if primary in (language, "*") and weight > best[0]:
                best = (weight, language)
    return best[1]


class ContactBody(Body):
    """`PUT /api/me/contact`; what is left out stays as it is."""

    email: Email | None = None
    phone: Phone | None = None
    language: Language | None = None


def routes(context: Context) -> list[Route]:
    """GET and PUT /api/me/contact: what letters and text messages go by."""
    settings, sessions = context.settings, context.sessions

    def answer(known: dict[str, Any]) -> JSONResponse:
        shown = {"email": known.get("email"), "phone": known.get("phone"), "language": known.get("language")}
        return JSONResponse(shown, headers={"cache-control": "no-store"})

    async def show(request: Request) -> Response:
        bearer = sessions.require_bearer(request)
        return answer({"language": bearer.language, **await sessions.recall(bearer.user)})

    async def put(request: Request) -> Response:
        bearer = sessions.require_bearer(request)
        body = parse(ContactBody, await read(request, settings.max_body))
        session = await sessions.begin(bearer, email=body.email, phone=body.phone, language=body.language)
        if not session.remembered:
            raise Unavailable("this can't be kept just now; try again", retry_after=1)
        response = answer({"language": session.language, **await sessions.recall(bearer.user)})
        sessions.give(response, session)
        return response

    return [
        Route("/api/me/contact", show, methods=["GET"]),
        Route("/api/me/contact", put, methods=["PUT"]),
    ]
