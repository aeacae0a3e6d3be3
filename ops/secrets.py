"""The stack's secrets: made once, kept in files only their owner reads."""

from __future__ import annotations

import base64
import hashlib
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey


def write_private(path: Path, text: str) -> None:
    """Write a file whole or not at all, mode 0600."""
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    draft.replace(path)


def _kept(path: Path, make: Callable[[], str]) -> str:
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_private(path, make() + "\n")
    return path.read_text(encoding="utf-8").strip()


@dataclass(frozen=True, slots=True, repr=False)
class Secrets:
    """What the processes must share and nobody else may know.

    Attributes:
        admin_token: bearer token of the admin API.
        admin_token_place: where an operator finds it.
        card_key: TIDEGATE_CARD_KEY.
        session_key: private Ed25519 key that signs sessions, PEM file.
        session_public_key: its public half, PEM file.
        sandbox_secret: TIDEGATE_SANDBOX_SECRET.
    """

    admin_token: str
    admin_token_place: str
    card_key: str
    session_key: Path
    session_public_key: Path
    sandbox_secret: str


def load_or_make(data: Path, environment: Mapping[str, str]) -> Secrets:
    """Read the secrets below `data`, making those that are missing; the environment wins.

    Raises:
        OSError: a file can't be read or written.
        ValueError: the session key is not a private key in PEM.
    """
    keys = data / "keys"
    if environment.get("TIDEGATE_ADMIN_TOKEN"):
        token, place = environment["TIDEGATE_ADMIN_TOKEN"], "TIDEGATE_ADMIN_TOKEN"
    else:
        token, place = (
            _kept(data / "admin-token", lambda: secrets.token_urlsafe(32)),
            str(data / "admin-token"),
        )
    private = Path(environment.get("TIDEGATE_SESSION_KEY_FILE") or keys / "session.pem")
    _kept(private, _session_key)
    public = Path(environment.get("TIDEGATE_SESSION_PUBLIC_KEY_FILE") or keys / "session.pub.pem")
    _kept(public, lambda: _public_half(private))
    return Secrets(
        admin_token=token,
        admin_token_place=place,
        card_key=environment.get("TIDEGATE_CARD_KEY") or _kept(keys / "card-key", _card_key),
        session_key=private,
        session_public_key=public,
        sandbox_secret=environment.get("TIDEGATE_SANDBOX_SECRET")
        or _kept(keys / "sandbox-secret", _webhook_secret),
    )


def admin_token() -> tuple[str, str]:
    """A new token of the admin API, and the hash that the gateway's config holds of it."""
    token = secrets.token_urlsafe(32)
    return token, hashlib.sha256(token.encode()).hexdigest()


def _session_key() -> str:
    return (
        Ed25519PrivateKey.generate()
        .private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        .decode()
        .strip()
    )


def _public_half(private: Path) -> str:
    key = serialization.load_pem_private_key(private.read_bytes(), password=None)
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return public.decode().strip()


def _card_key() -> str:
    return f"k1:{base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip('=')}"


def _webhook_secret() -> str:
    return f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}"
