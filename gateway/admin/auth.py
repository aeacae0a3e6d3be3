"""Who may operate the gateway: bearers of the admin token."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping

from starlette.requests import Request

from gateway.config import Admin
from gateway.errors import Unauthorized

VARIABLE = "TIDEGATE_ADMIN_TOKEN"


class Token:
    """The admin token, kept as a hash. Without one nobody is let in."""

    def __init__(self, token: str | None) -> None:
        self._hash = hashlib.sha256(token.encode()).digest() if token else None

    @classmethod
    def configured(cls, settings: Admin, environment: Mapping[str, str]) -> Token:
        """The token from the environment, else from the configured file."""
        token = environment.get(VARIABLE, "").strip()
        if not token and settings.token_file is not None:
            token = settings.token_file.read_text(encoding="utf-8").strip()
        return cls(token or None)

    @property
    def given(self) -> bool:
        """Whether there is one."""
        return self._hash is not None

    def check(self, request: Request) -> None:
        """Let the bearer of the token pass.

        Raises:
            Unauthorized: anyone else.
        """
        if self._hash is None:
            raise Unauthorized(f"the admin API is closed: set {VARIABLE} or admin.token_file, and restart")
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        digest = hashlib.sha256(token.strip().encode("utf-8", "surrogateescape")).digest()
        if scheme.lower() != "bearer" or not hmac.compare_digest(digest, self._hash):
            raise Unauthorized("send the admin token as Authorization: Bearer TOKEN")
