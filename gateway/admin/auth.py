"""Who may look at the gateway, and who may operate it: bearers of a token, and browsers logged in by one."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request

from gateway.admin.guesses import Guesses
from gateway.config import Admin
from gateway.errors import CrossSite, ReadOnly, StaleForm, TooManyLogins, Unauthorized
from gateway.exchange import Clock
from gateway.settings.admin import Role

VARIABLE = "TIDEGATE_ADMIN_TOKEN"
SAFE = frozenset({"GET", "HEAD"})  # methods that change nothing (RFC 9110, 9.2.1)
COOKIE = "tidegate-session"
SECURE_COOKIE = "__Host-tidegate-session"  # bound to this host and to TLS (RFC 6265bis, 4.1.3.2)
CSRF_HEADER = "x-csrf-token"
MOST_SESSIONS = 256  # the oldest ends first
_log = logging.getLogger("gateway.admin")


@dataclass(frozen=True, slots=True)
class Bearer:
    """Whose a token is. The token itself is not kept.

    Attributes:
        digest: its SHA-256.
        name: of whom.
        role: what they may.
    """

    digest: bytes
    name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Session:
    """A browser that is logged in.

    Attributes:
        bearer: by whose token.
        csrf: what its pages must send along with every change.
        ends: seconds on the wall clock.
    """

    bearer: Bearer
    csrf: str
    ends: float


@dataclass(frozen=True, slots=True)
class Principal:
    """Who is asking.

    Attributes:
        name: of the token's bearer.
        role: what they may.
        address: from where.
        session: of a browser; None when the token itself was sent.
        bearer: whose token it was.
    """

    name: str
    role: Role
    address: str
    session: Session | None = None
    bearer: Bearer | None = None

    @property
    def who(self) -> str:
        """For logs and the trail."""
        return f"{self.name} at {self.address}"

    def may_change(self) -> None:
        """Let operators pass.

        Raises:
            ReadOnly: anyone else.
        """
        if self.role != "operator":
            raise ReadOnly(f"{self.name} may look and not touch; an operator's token is needed")


class Door:
    """Lets in who has a token, or a session that was opened with one.

    Args:
        settings: as they are now; a token that is taken out of them ends its sessions too.
        environment: may hold an operator's token.
        clock: seconds on the wall, by which sessions end.
        monotonic: seconds, by which who guesses waits.
    """

    def __init__(
        self,
        settings: Callable[[], Admin],
        environment: Mapping[str, str],
        clock: Clock = time.time,
        monotonic: Clock = time.monotonic,
    ) -> None:
        self._settings = settings
        self._environment = environment
        self._clock = clock
        self._read: Admin | None = None
        self._own: tuple[Bearer, ...] = ()  # of the environment's or the file's token
        self._bearers: tuple[Bearer, ...] = ()
        # By the cookie's digest, the oldest first.
        self._sessions: OrderedDict[bytes, Session] = OrderedDict()
        self._guesses = Guesses(monotonic)

    @property
    def closed(self) -> bool:
        """Whether nobody has a token."""
        return not self.bearers()

    def bearers(self) -> tuple[Bearer, ...]:
        """All who have a token, as the settings say now; the file's is kept while it can't be read.

        Raises:
            OSError: it could not be read from the first.
        """
        settings = self._settings()
        if settings is not self._read:
            try:
                self._own = _own(settings, self._environment)
            except OSError as error:
                if self._read is None:
                    raise
                _log.error(
                    "admin.token_file: %s can't be read (%s); the token that stood in it still holds",
                    *(settings.token_file, error.strerror or error),
                )
            listed = (Bearer(bytes.fromhex(one.token_sha256), one.name, one.role) for one in settings.tokens)
            self._bearers = (*self._own, *listed)
            self._read = settings
        return self._bearers

    # ---- every request -----------------------------------------------------------------------

    def enter(self, request: Request) -> Principal:
        """Who sends this request.

        Raises:
            Unauthorized: nobody known.
            TooManyLogins: somebody who has tried too many tokens.
            CrossSite: another site's page, with the cookie of somebody who is logged in here.
            StaleForm: a page of an earlier session.
        """
        if not (session := self.session(request)) or "authorization" in request.headers:
            bearer = self._bearer(_token(request), request)
            return Principal(bearer.name, bearer.role, address(request), bearer=bearer)
        if request.method not in SAFE:
            from_here(request)
            sent = request.headers.get(CSRF_HEADER, "").encode("utf-8", "surrogateescape")
            if not hmac.compare_digest(sent, session.csrf.encode()):
                raise StaleForm("the page is of an earlier session; load it again, and repeat the change")
        bearer = session.bearer
        return Principal(bearer.name, bearer.role, address(request), session, bearer)

    def session(self, request: Request) -> Session | None:
        """The session of the browser that sends this request, if it is logged in."""
        for name in (SECURE_COOKIE, COOKIE):
            if cookie := request.cookies.get(name):
                found = self._sessions.get(_digest(cookie))
                if found is not None and self.holds(found):
                    return found
        return None

    def still(self, principal: Principal) -> bool:
        """Whether who was let in once would be again."""
        session = principal.session
        if session is not None:
            return session in self._sessions.values() and self.holds(session)
        return principal.bearer in self.bearers()

    def holds(self, session: Session) -> bool:
        """Whether it has neither ended nor lost its token."""
        return self._clock() < session.ends and session.bearer in self.bearers()

    # ---- browsers ----------------------------------------------------------------------------

    def log_in(self, request: Request, token: str) -> tuple[str, Session]:
        """Open a session; returns the cookie's value, which is not kept, and the session.

        Raises:
            Unauthorized: nobody has this token.
            TooManyLogins: too many were tried.
            CrossSite: another site's page asks.
        """
        from_here(request)
        bearer = self._bearer(token, request)
        cookie = secrets.token_urlsafe(32)
        session = Session(bearer, secrets.token_urlsafe(32), self._clock() + self._settings().session)
        for ended in [key for key, one in self._sessions.items() if not self.holds(one)]:
            del self._sessions[ended]
        if len(self._sessions) >= MOST_SESSIONS:
            self._sessions.popitem(last=False)
        self._sessions[_digest(cookie)] = session
        return cookie, session

    def log_out(self, session: Session | None) -> None:
        """End a session."""
        for key in [key for key, one in self._sessions.items() if one is session]:
            del self._sessions[key]

    # ---- tokens ------------------------------------------------------------------------------

    def _bearer(self, token: str | None, request: Request) -> Bearer:
        bearers = self.bearers()
        if not bearers:
            raise Unauthorized(f"the admin API is closed: set {VARIABLE}, admin.token_file or admin.tokens")
        if not token:
            raise Unauthorized("send a token as Authorization: Bearer TOKEN, or log in at /")
        where = address(request)
        wait = self._guesses.wait(where)
        if wait > 0:
            raise TooManyLogins("too many wrong tokens came from this address", retry_after=wait)
        given = _digest(token)
        found = None
        for bearer in bearers:  # all of them, whichever it is: the time tells nothing
            if hmac.compare_digest(given, bearer.digest):
                found = bearer
        if found is None:
            self._guesses.wrong(where)
            raise Unauthorized("nobody has this token; send one as Authorization: Bearer TOKEN")
        return found


def _own(settings: Admin, environment: Mapping[str, str]) -> tuple[Bearer, ...]:
    token = environment.get(VARIABLE, "").strip()
    if not token and settings.token_file is not None:
        token = settings.token_file.read_text(encoding="utf-8", errors="replace").strip()
    return (Bearer(_digest(token), "operator", "operator"),) if token else ()


def _token(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _digest(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).digest()


def address(request: Request) -> str:
    """From where a request comes."""
    return request.client.host if request.client is not None else "?"


def from_here(request: Request) -> None:
    """Let pass what no browser sends for another site's page.

    Browsers say so themselves (Fetch Metadata); where they don't, over plain HTTP, their Origin must be the
    host that they ask. What is no browser sends neither, and has no cookie of anybody's.

    Raises:
        CrossSite: another site's page sent it.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        here = site == "same-origin"
    else:
        here = origin is None or urlsplit(origin).netloc == request.headers.get("host")
    if not here:
        raise CrossSite("only the console's own pages may send this")
