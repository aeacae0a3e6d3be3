"""Who is asking: a signed token in a cookie, and what little we remember about its bearer."""

from __future__ import annotations

import logging
import time
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shop_backend.contact import ContactBody
from shop_backend.errors import Unauthenticated
from shop_backend.letters import LANGUAGES, Language
from shop_backend.requests import parse, read
from shop_backend.sections import SessionSettings
from shop_backend.tokens import Tokens

if TYPE_CHECKING:
    from shop_backend.context import Context  # it imports this file

_log = logging.getLogger(__name__)

COOKIE = "session"


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whom a token names.

    Attributes:
        user: the user id.
        language: what they chose to be written in; None: as their browser asks.
        has_phone: whether a telephone number of theirs was remembered.
    """

    user: str
    language: Language | None = None
    has_phone: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """A session that was begun or renewed; `remembered`: whether Redis keeps what was given."""

    user: str
    token: str
    language: Language | None
    remembered: bool


class Sessions:
    """Issues and verifies sessions. The token alone says who; Redis only remembers how to reach them."""

    def __init__(self, tokens: Tokens, redis: Redis, settings: SessionSettings, *, secure: bool) -> None:
        self._tokens = tokens
        self._redis = redis
        self._settings = settings
        self._secure = secure

    def bearer(self, request: Request) -> Bearer | None:
        """Who is verified by the cookie or `Authorization: Bearer`, or None."""
        token = request.cookies.get(COOKIE)
        if token is None:
            scheme, _, rest = request.headers.get("authorization", "").partition(" ")
            token = rest.strip() if scheme.lower() == "bearer" else None
        claims = self._tokens.claims_of(token) if token else None
        if claims is None:
            return None
        language = next((each for each in LANGUAGES if each == claims.get("lang")), None)
        return Bearer(claims["sub"], language, claims.get("tel") is True)

    def user(self, request: Request) -> str | None:
        """The verified user id, or None."""
        bearer = self.bearer(request)
        return None if bearer is None else bearer.user

    def require_bearer(self, request: Request) -> Bearer:
        """Who is verified.

        Raises:
            Unauthenticated: nobody.
        """
        bearer = self.bearer(request)
        if bearer is None:
            raise Unauthenticated("no valid session; POST /api/session gives one")
        return bearer

    def require(self, request: Request) -> str:
        """The verified user id.

        Raises:
            Unauthenticated: there is none.
        """
        return self.require_bearer(request).user

    async def begin(
        self,
        bearer: Bearer | None,
        *,
        email: str | None = None,
        phone: str | None = None,
        language: Language | None = None,
    ) -> Session:
        """A session for a bearer, or for somebody new; what is None stays as it was, "" is forgotten."""
        before = bearer or Bearer(uuid.uuid4().hex)
        name = f"session:{before.user}"
        given: dict[Any, Any] = {"email": email, "phone": phone, "language": language}
        fields = {key: value for key, value in given.items() if value}
        gone = [key for key, value in given.items() if value == ""]
        remembered = True
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(name, mapping={"since": int(time.time()), **fields})
                if gone:
                    pipe.hdel(name, *gone)
                pipe.expire(name, int(self._settings.lifetime))
                await pipe.execute()
        except RedisError as error:
            # The token stands by itself; not knowing the address costs a form field.
            _log.warning("session not remembered: %s", type(error).__name__)
            remembered = False
        language = language or before.language
        has_phone = before.has_phone if phone is None or not remembered else bool(phone)
        more = ({"lang": language} if language else {}) | ({"tel": True} if has_phone else {})
        token = self._tokens.session(before.user, lifetime=self._settings.lifetime, more=more)
        return Session(before.user, token, language, remembered)

    def give(self, response: Response, session: Session) -> None:
        """Let the browser keep the session."""
        response.set_cookie(
            COOKIE,
            session.token,
            max_age=int(self._settings.lifetime),
            path="/",
            httponly=True,
            samesite="lax",
            secure=self._secure,
        )

    async def recall(self, user: str) -> dict[str, str]:
        """What is remembered of a user: email, phone, language, as far as given and we still know it."""
        try:
            found: dict[str, str] = await cast("Any", self._redis.hgetall(f"session:{user}"))
        except RedisError:
            return {}
        return {name: value for name, value in found.items() if name in ("email", "phone", "language")}


class SessionBody(ContactBody):
    """`POST /api/session`; guests leave everything out."""


def routes(context: Context) -> list[Route]:
    """POST /api/session."""
    settings, sessions = context.settings, context.sessions

    async def create(request: Request) -> Response:
        raw = await read(request, settings.max_body)
        body = parse(SessionBody, raw) if raw.strip() else SessionBody()
        # Whoever has a session keeps their identity: a new one would lose the cart and evade the caps.
        session = await sessions.begin(
            sessions.bearer(request), email=body.email, phone=body.phone, language=body.language
        )
        response = JSONResponse(
            {"user": session.user, "expires_in": int(settings.sessions.lifetime)},
            201,
            {"cache-control": "no-store"},
        )
        sessions.give(response, session)
        return response

    return [Route("/api/session", create, methods=["POST"])]
