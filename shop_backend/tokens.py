"""What the shop signs: sessions, order ids and order links, all from one Ed25519 key."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from shop_backend.errors import SetupError
from shop_backend.stock.order_ids import seed_of

_REMEMBERED = 4096  # tokens
_LATEST = 253_402_300_799  # Unix time of the last second of the year 9999; nothing we sign is later


class Tokens:
    """Signs and checks. Two processes with the same key file agree."""

    def __init__(self, key: Ed25519PrivateKey, *, clock: Callable[[], float] = time.time) -> None:
        raw = key.private_bytes(
            serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
        )
        public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        self._key = key
        self._public = key.public_key()
        self._kid = base64.urlsafe_b64encode(hashlib.sha256(public).digest())[:16].decode()
        self._clock = clock
        self._verified = functools.lru_cache(_REMEMBERED)(self._verify)
        self._order_ids = _derive(raw, b"tidegate order id")
        self._order_links = _derive(raw, b"tidegate order link")
        self._origins = _derive(raw, b"tidegate client address")

    @classmethod
    def from_file(cls, path: Path) -> Tokens:
        """Read the PEM file.

        Raises:
            SetupError: it can't be read or is no Ed25519 private key.
        """
        try:
            key = serialization.load_pem_private_key(path.read_bytes(), password=None)
        except (OSError, ValueError, TypeError) as error:
            raise SetupError(f"{path}: no readable private key ({type(error).__name__})") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise SetupError(f"{path}: must be an Ed25519 private key in PEM")
        return cls(key)

    # ---- sessions ----------------------------------------------------------------------------

    def session(self, user: str, *, lifetime: float, more: Mapping[str, object] | None = None) -> str:
        """A signed token that says who its bearer is, for `lifetime` seconds; `more` claims are no secret."""
        now = int(self._clock())
        claims = {**(more or {}), "sub": user, "iat": now, "exp": now + int(lifetime)}
        return jwt.encode(claims, self._key, algorithm="EdDSA", headers={"kid": self._kid})

    def user_of(self, token: str) -> str | None:
        """Whom a token names; None when it is not ours, too old, or malformed."""
        claims = self.claims_of(token)
        return None if claims is None else str(claims["sub"])

    def claims_of(self, token: str) -> dict[str, Any] | None:
        """What a token says, `sub` being whom it names; None when it is not ours, too old, or malformed."""
        # Whoever buys asks again and again; the signature is checked at the first time.
        claims = self._verified(token)
        return claims if claims is not None and self._clock() < claims["exp"] <= _LATEST else None

    def _verify(self, token: str) -> dict[str, Any] | None:
        """What a token of ours says, however old."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self._public,
                algorithms=["EdDSA"],
                # The clock is ours to inject, so times are checked where a token is used.
                options={"require": ["sub", "iat", "exp"], "verify_exp": False, "verify_iat": False},
            )
        except (jwt.PyJWTError, ValueError):
            return None
        expires, user = claims.get("exp"), claims.get("sub")
        if type(expires) is not int or not isinstance(user, str):
            return None
        return claims if 0 < len(user) <= 64 and user.isascii() and user.isprintable() else None

    # ---- orders ------------------------------------------------------------------------------

    def order_seed(self, user: str, idempotency_key: str) -> str:
        """What this buyer's key gives to its order's id, always the same; nobody else can guess it."""
        text = f"{len(user)}:{user}{idempotency_key}".encode()
        digest = hmac.digest(self._order_ids, text, "sha256")
        # The seed leaves the version out; uuid knows 8 only since Python 3.14, and sets the variant for any.
        return seed_of(str(uuid.UUID(bytes=digest[:16], version=5)))

    def origin(self, address: str) -> str:
        """A name for an address that says nothing of it; the same address, the same name."""
        return hmac.digest(self._origins, address.encode(), "sha256")[:9].hex()

    def order_token(self, order_id: str) -> str:
        """Lets its bearer read the order."""
        digest = hmac.digest(self._order_links, order_id.encode(), "sha256")
        return base64.urlsafe_b64encode(digest[:24]).decode()

    def opens(self, order_id: str, token: str) -> bool:
        """Whether the token is the order's; in constant time."""
        return hmac.compare_digest(self.order_token(order_id).encode(), token.encode("utf-8", "replace"))


def _derive(key: bytes, purpose: bytes) -> bytes:
    return HKDF(hashes.SHA256(), 32, salt=None, info=purpose).derive(key)
