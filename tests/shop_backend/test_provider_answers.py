"""What a provider answers is checked before it is believed: one bad answer spoils no other order's."""

from __future__ import annotations

import asyncio
import json

import pytest

from shop_backend.config import Settings
from shop_backend.providers import ProviderError
from shop_backend.providers.sandbox import SandboxProvider
from tests.shop_backend.test_http_client import served

ORDER = {"id": "o", "amount_cents": 100, "currency": "EUR", "quantity": 1, "sku": "steam-50"}
URL = "http://sandbox.test/pay/1"

HOSTILE = {
    "deep nesting": b"[" * 100_000,
    "not an object": b"[]",
    "no id": json.dumps({"url": URL}).encode(),
    "a NUL, which no text in PostgreSQL holds": json.dumps({"id": "a\0", "url": URL}).encode(),
    "half a character": json.dumps({"id": "a", "url": URL + "\ud800"}).encode(),
    "a URL that runs in the buyer's page": json.dumps({"id": "a", "url": "javascript:alert(1)"}).encode(),
    "an endless id": json.dumps({"id": "a" * 10_000, "url": URL}).encode(),
    "an id that is none": json.dumps({"id": None, "url": URL}).encode(),
}


async def _failure(settings: Settings, status: bytes, said: bytes) -> str:
    """What a checkout fails with when the provider answers so."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"}")
        writer.write(b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(said), said))

    async with served(talk) as address:
        provider = SandboxProvider(settings.model_copy(update={"sandbox_url": address}))
        try:
            with pytest.raises(ProviderError) as failed:
                await provider.checkout(ORDER)
        finally:
            await provider.close()
    return str(failed.value)


@pytest.mark.parametrize("said", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_answer_is_no_checkout(shop_settings: Settings, said: bytes) -> None:
    """It is the provider's error, of this order only: nothing of it reaches the database or the buyer."""
    assert (await _failure(shop_settings, b"200 OK", said)).startswith("POST /checkouts: ")


async def test_a_refusal_that_echoes_our_secret_is_quoted_without_it(shop_settings: Settings) -> None:
    """The provider's words go into the log: one line, and nothing that lets anybody in."""
    secret = shop_settings.require("sandbox_secret")
    said = f"bad header\nauthorization: Bearer {secret}".encode()

    failure = await _failure(shop_settings, b"400 Bad Request", said)
    assert failure == "POST /checkouts: 400 bad header authorization: Bearer whsec_…"
