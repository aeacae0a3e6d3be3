"""Who is asking: a signed token in a cookie, and what little we remember about its bearer."""

from __future__ import annotations

import logging
import time
import uuid
from typing import TYPE_CHECKING, Any, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shop_backend.config import SessionSettings
from shop_backend.errors import Unauthenticated
from shop_backend.requests import Body, Email, parse, read
from shop_backend.tokens import Tokens

if TYPE_CHECKING:
    from shop_backend.context import Context  # it imports this file

_log = logging.getLogger(__name__)

COOKIE = "session"


class Sessions:
    """Issues and verifies sessions. The token alone says who; Redis only remembers the address given."""

    def __init__(self, tokens: Tokens, redis: Redis, settings: SessionSettings) -> None:
        self._tokens = tokens
        self._redis = redis
        self._settings = settings

    def user(self, request: Request) -> str | None:
        """The verified user id from the cookie or `Authorization: Bearer`, or None."""
        token = request.cookies.get(COOKIE)
        if token is None:
            scheme, _, rest = request.headers.get("authorization", "").partition(" ")
            token = rest.strip() if scheme.lower() == "bearer" else None
        return self._tokens.user_of(token) if token else None

    def require(self, request: Request) -> str:
        """The verified user id.

        Raises:
            Unauthenticated: there is none.
        """
        user = self.user(request)
        if user is None:
            raise Unauthenticated("no valid session; POST /api/session gives one")
        return user

    async def begin(self, user: str | None, email: str | None) -> tuple[str, str]:
        """A session for a user, a new one when None.

        Returns:
            The user id and the token.
        """
        user = user or uuid.uuid4().hex
        fields: dict[Any, Any] = {"since": int(time.time())}
        if email:
            fields["email"] = email
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.hset(f"session:{user}", mapping=fields)
                pipe.expire(f"session:{user}", int(self._settings.lifetime))
                await pipe.execute()
        except RedisError as error:
            # The token stands by itself; not knowing the address costs a form field.
            _log.warning("session not remembered: %s", type(error).__name__)
        return user, self._tokens.session(user, lifetime=self._settings.lifetime)

    async def email(self, user: str) -> str | None:
        """The address the user gave, if we still know it."""
        try:
            found = await cast("Any", self._redis.hget(f"session:{user}", "email"))
        except RedisError:
            return None
        return str(found) if found else None


class SessionBody(Body):
    """`POST /api/session`; guests leave the address out."""

    email: Email | None = None


def routes(context: Context) -> list[Route]:
    """POST /api/session."""
    settings, sessions = context.settings, context.sessions

    async def create(request: Request) -> Response:
        raw = await read(request, settings.max_body)
        body = parse(SessionBody, raw) if raw.strip() else SessionBody()
        # Whoever has a session keeps their identity: a new one would lose the cart and evade the caps.
        user, token = await sessions.begin(sessions.user(request), body.email)
        response = JSONResponse(
            {"user": user, "expires_in": int(settings.sessions.lifetime)},
            201,
            {"cache-control": "no-store"},
        )
        response.set_cookie(
            COOKIE,
            token,
            max_age=int(settings.sessions.lifetime),
            path="/",
            httponly=True,
            samesite="lax",
            secure=settings.public_url.startswith("https://"),
        )
        return response

    return [Route("/api/session", create, methods=["POST"])]
