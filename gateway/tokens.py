"""Tokens that name a user: verified once, then remembered while they are valid."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Sequence
from typing import NamedTuple

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt.algorithms import get_default_algorithms

from gateway import config
from gateway.exchange import Clock
from gateway.generations import Generations

MAX_TOKEN = 4096  # bytes; as long as a cookie may be
MAX_CACHED = 10_000  # verified tokens kept per worker
MAX_REFUSED = 1_000  # invalid ones, so that an old cookie is not verified with each request
REFUSED_FOR = 10.0  # seconds; its `nbf` may come
MAX_TIER = 64  # characters; what is longer is no tier's name

_USER = re.compile(r"[!-~]{1,128}")  # goes into a header field: visible ASCII only
_PEM = re.compile(rb"-----BEGIN PUBLIC KEY-----.+?-----END PUBLIC KEY-----", re.DOTALL)

PublicKey = Ed25519PublicKey | RSAPublicKey | bytes


def load_keys(settings: config.Jwt) -> dict[str, PublicKey]:
    """The keys that verify tokens, by key id (RFC 7638 thumbprint); several while one replaces another.

    A PEM file holds one public key after the other; a file for HS256 one secret a line.

    Raises:
        OSError: the file can't be read.
        ValueError: it holds no key for the algorithm, or one that is too weak.
    """
    raw = settings.key_file.read_bytes()
    where = f"{settings.key_file}"
    if settings.algorithm == "HS256":
        secrets = [line.strip() for line in raw.splitlines() if line.strip()]
        if not secrets or b"-----BEGIN" in raw:
            raise ValueError(f"{where}: HS256 takes a file with one secret a line, not a PEM key")
        if min(map(len, secrets)) < 32:
            raise ValueError(f"{where}: a secret for HS256 has 32 bytes or more (RFC 7518, 3.2)")
        return {hashlib.sha256(secret).hexdigest(): secret for secret in secrets}
    wanted = Ed25519PublicKey if settings.algorithm == "EdDSA" else RSAPublicKey
    keys: dict[str, PublicKey] = {}
    for block in _PEM.findall(raw):
        try:
            key = load_pem_public_key(block)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise ValueError(f"{where}: a key in it can't be read: {error}") from None
        if not isinstance(key, wanted):
            kind = wanted.__name__
            raise ValueError(f"{where}: {settings.algorithm} takes {kind}s only")  # noqa: TRY004 - of the file
        if isinstance(key, RSAPublicKey) and key.key_size < 2048:
            raise ValueError(f"{where}: an RSA key has 2048 bits or more (RFC 7518, 3.3)")
        assert isinstance(key, Ed25519PublicKey | RSAPublicKey)  # noqa: S101 - as `wanted` says, for mypy
        keys[thumbprint(key)] = key
    if not keys:
        raise ValueError(f"{where}: no PEM public key in it (-----BEGIN PUBLIC KEY-----)")
    return keys


def thumbprint(key: Ed25519PublicKey | RSAPublicKey) -> str:
    """The key's id: SHA-256 of its required JWK members (RFC 7638, 3; RFC 8037, 2), base64url."""
    algorithm = get_default_algorithms()["EdDSA" if isinstance(key, Ed25519PublicKey) else "RS256"]
    jwk = algorithm.to_jwk(key, as_dict=True)
    required = {name: jwk[name] for name in ("crv", "e", "kty", "n", "x") if name in jwk}
    canonical = json.dumps(required, sort_keys=True, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(hashlib.sha256(canonical).digest()).rstrip(b"=").decode()


class Bearer(NamedTuple):
    """Whom a token was issued to."""

    user: str
    tier: str | None  # what the token says of it; only names that a limit knows matter


class Tokens:
    """Verifies tokens, each once while it is valid and remembered."""

    def __init__(self, settings: config.Jwt, tier_claim: str, clock: Clock) -> None:
        self._tier_claim = tier_claim
        self._algorithm = settings.algorithm
        self._keys = load_keys(settings)
        self._clock = clock
        self._verified: Generations[bytes, tuple[Bearer, float]] = Generations(MAX_CACHED // 2)  # and expiry
        self._refused: Generations[bytes, float] = Generations(MAX_REFUSED // 2)  # until

    def bearer(self, token: bytes) -> Bearer | None:
        """Whom a token was issued to; None when it is not valid now."""
        now = self._clock()
        known = self._verified.get(token) or self._verified.find(token)
        if known is not None:
            return known[0] if known[1] > now else None
        if len(token) > MAX_TOKEN:
            return None
        if (self._refused.get(token) or self._refused.find(token) or 0.0) > now:
            return None
        verified = self._verify(token, now)
        if verified is None:
            self._refused.add(token, now + REFUSED_FOR)
            return None
        self._verified.add(token, verified)
        return verified[0]

    def _verify(self, token: bytes, now: float) -> tuple[Bearer, float] | None:
        for key in self._candidates(token):
            try:
                claims = jwt.decode(
                    token,
                    key,
                    algorithms=[self._algorithm],
                    # Times are checked below, on our clock. `aud` means another service (RFC 7519, 4.1.3).
                    options={
                        "require": ["exp", "sub"],
                        "verify_exp": False,
                        "verify_nbf": False,
                        "verify_iat": False,
                    },
                )
            # Unsigned input reaches the JSON parser: any nesting, any number.
            except (jwt.PyJWTError, ValueError, TypeError, OverflowError, RecursionError):
                continue
            user, expiry, begin = claims["sub"], claims["exp"], claims.get("nbf", 0)
            if not (isinstance(user, str) and _USER.fullmatch(user)):
                return None
            if not (_is_time(expiry) and _is_time(begin) and begin <= now < expiry):
                return None
            tier = claims.get(self._tier_claim)
            tier = tier if isinstance(tier, str) and len(tier) <= MAX_TIER else None
            return Bearer(user, tier), float(expiry)
        return None

    def _candidates(self, token: bytes) -> Sequence[PublicKey]:
        """The key that the token names; else every key: they are few, and a key id is only a hint."""
        if len(self._keys) > 1:
            try:
                named = self._keys.get(jwt.get_unverified_header(token).get("kid", ""))
            except (jwt.PyJWTError, ValueError, TypeError, RecursionError):
                return ()
            if named is not None:
                return (named,)
        return tuple(self._keys.values())


def _is_time(value: object) -> bool:
    # Bounded, so that it is a number of seconds and no infinity.
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e12
