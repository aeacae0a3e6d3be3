"""Valid tokens of as many users as are wanted, cheaply made."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterator


def tokens(secret: str, number: int = 0) -> Iterator[bytes]:
    """One after the other, each of another user, those after `number`, signed with HS256; without end."""
    head = _encode(b'{"alg":"HS256","typ":"JWT"}')
    while True:
        number += 1
        signed = head + b"." + _encode(b'{"sub":"u-%d","exp":9999999999}' % number)
        yield signed + b"." + _encode(hmac.digest(secret.encode(), signed, hashlib.sha256))


def _encode(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")
