"""Text messages: to whatever sends them, by an HTTP webhook, or without one to files."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import httpx
from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook

from shop_backend.errors import SetupError
from shop_backend.letters import Message
from shop_backend.mail import write_whole
from shop_backend.notifications import Undeliverable

_AGAIN = frozenset({408, 409, 425, 429})  # 4xx that a later try may get past


class SmsWebhook:
    """Posts `{"to", "text", "reference"}`, signed as Standard Webhooks has it; any 2xx takes it.

    The receiver gives it to its SMS provider. `webhook-id` is the reference: the same again is the same.

    Args:
        url: where to.
        secret: `whsec_` and base64, shared with the receiver.
        timeout: seconds for an answer.
        transport: how requests leave, for tests.

    Raises:
        SetupError: the secret is missing or malformed.
    """

    def __init__(
        self, url: str, secret: str, *, timeout: float, transport: httpx.AsyncBaseTransport | None = None
    ) -> None:
        try:
            # The library reads past what is not base64.
            base64.b64decode(secret.removeprefix("whsec_"), validate=True)
            self._signer = Webhook(secret)
        except (ValueError, EmptyWebhookSecretError):
            # From nothing: the cause may quote the secret.
            raise SetupError("TIDEGATE_SMS_SECRET: must be whsec_ and base64") from None
        self._url = url
        self._http = httpx.AsyncClient(timeout=timeout, transport=transport, trust_env=False)

    async def send(self, to: str, message: Message) -> None:
        """Hand one over.

        Raises:
            Undeliverable: refused for good (4xx).
            httpx.HTTPError: not now.
        """
        body = json.dumps({"to": to, "text": message.text.strip(), "reference": message.reference})
        now = datetime.now(UTC)
        headers = {
            "content-type": "application/json",
            "webhook-id": message.reference,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._signer.sign(message.reference, now, body),
        }
        answer = await self._http.post(self._url, content=body, headers=headers)
        if 400 <= answer.status_code < 500 and answer.status_code not in _AGAIN:
            raise Undeliverable(f"HTTP {answer.status_code}")
        answer.raise_for_status()

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()


class SmsFiles:
    """Writes each text message to a file of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def send(self, to: str, message: Message) -> None:
        """Write it; the same reference again replaces it.

        Raises:
            OSError: it can't be written.
        """
        content = f"To: {to}\n\n{message.text}".encode()
        await asyncio.to_thread(write_whole, self._folder / f"{message.reference}.txt", content)
