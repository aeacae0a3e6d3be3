"""Card keys at rest: AES-256-GCM per row, bound to the row's id."""

from __future__ import annotations

import base64
import binascii
import hmac
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shop_backend.errors import SetupError

_NONCE = 12  # bytes, as GCM wants it


class SealError(Exception):
    """A sealed value can't be opened: wrong key, wrong row, or altered."""


class Vault:
    """Seals with the first of its keys, opens with whichever sealed.

    Args:
        spec: `kid:base64url(32 bytes)`, several parted by commas.
        seal_with: the id of the key that seals; None: the first.

    Raises:
        SetupError: the spec is malformed or has no such key; no part of a key is shown.
    """

    def __init__(self, spec: str, *, seal_with: str | None = None) -> None:
        self._ciphers: dict[str, AESGCM] = {}
        for position, part in enumerate(spec.split(","), start=1):
            kid, colon, text = part.strip().partition(":")
            try:
                key = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            except (binascii.Error, ValueError):
                key = b""
            if not (colon and kid and kid.isascii() and len(key) == 32) or kid in self._ciphers:
                raise SetupError(
                    f"TIDEGATE_CARD_KEY: part {position} must be kid:base64url(32 bytes), each kid once"
                )
            self._ciphers[kid] = AESGCM(key)
        if seal_with is not None and seal_with not in self._ciphers:
            known = ", ".join(self._ciphers)
            raise SetupError(f"TIDEGATE_CARD_KEY: has no key {seal_with!r}; it has {known}")
        self.current = seal_with or next(iter(self._ciphers))

    def seal(self, bound_to: str, plain: bytes) -> tuple[str, bytes]:
        """The key id and the sealed value; it opens only as `bound_to`."""
        nonce = os.urandom(_NONCE)
        return self.current, nonce + self._ciphers[self.current].encrypt(nonce, plain, bound_to.encode())

    def open(self, bound_to: str, key_id: str, sealed: bytes) -> bytes:
        """What was sealed.

        Raises:
            SealError: the key is gone, or the value is not what was sealed for `bound_to`.
        """
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise SealError(f"no key {key_id!r} in TIDEGATE_CARD_KEY; {bound_to} was sealed with it")
        try:
            return cipher.decrypt(sealed[:_NONCE], sealed[_NONCE:], bound_to.encode())
        except (InvalidTag, ValueError) as error:
            raise SealError(f"{bound_to} does not open with key {key_id!r}") from error

    def seal_card(self, card_id: int, secret: str) -> tuple[str, bytes]:
        """Seal a card key for its row."""
        return self.seal(f"card:{card_id}", secret.encode())

    def open_card(self, card_id: int, key_id: str, sealed: bytes) -> str:
        """A card key in clear; only for its buyer's eyes.

        Raises:
            SealError: see `open`.
        """
        return self.open(f"card:{card_id}", key_id, sealed).decode()


def fingerprint(key: bytes, secret: str) -> bytes:
    """Equal for equal card keys, and of no use to find one without the key."""
    return hmac.digest(key, secret.encode(), "sha256")
