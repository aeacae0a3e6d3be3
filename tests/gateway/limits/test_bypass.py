"""Whoever tries to get around a limit of a running gateway: nothing is gained, and nothing breaks."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

RATE = 5
LIMITS = {"user": {"rate": f"{RATE}/day", "per": "user", "algorithm": "fixed-window"}}
ROUTES = [
    {"match": "/api/orders", "upstream": "shop", "limits": ["user"]},
    {"match": "/**", "upstream": "shop"},
]


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture
async def gateway(start_gateway: Any, tmp_path: Path, key: Ed25519PrivateKey) -> Any:
    file = tmp_path / "key.pem"
    file.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return await start_gateway(
        limits=LIMITS,
        routes=ROUTES,
        identity={
            "header": "authorization",
            "cookie": "session",
            "jwt": {"algorithm": "EdDSA", "key_file": str(file)},
        },
    )


def token(key: Any, algorithm: str = "EdDSA", **claims: Any) -> str:
    return jwt.encode({"sub": "u-1", "exp": time.time() + 600} | claims, key, algorithm=algorithm)


def b64(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


async def codes(gateway: Any, attempts: list[dict[str, str]]) -> Counter[int]:
    """What so many attempts, each with header fields of its own, are answered."""
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        return Counter([(await client.get("/api/orders", headers=fields)).status_code for fields in attempts])


async def test_forged_addresses(gateway: Any) -> None:
    """No proxy is trusted: whatever a client says of its address, it is the same client."""
    attempts = [
        {name: value.format(n)}
        for n in range(5)
        for name, value in (
            ("x-forwarded-for", "198.51.100.{}"),
            ("x-forwarded-for", "2001:db8::{}, 127.0.0.1"),
            ("forwarded", "for=198.51.100.{}"),
            ("x-real-ip", "198.51.100.{}"),
            ("true-client-ip", "198.51.100.{}"),
            ("tidegate-user", "u-{}"),
        )
    ]
    assert await codes(gateway, attempts) == {200: RATE, 429: len(attempts) - RATE}


async def test_forged_addresses_behind_a_trusted_proxy(start_gateway: Any) -> None:
    """The proxy tells the client's address last; what the client wrote before it buys nothing."""
    gateway = await start_gateway(
        limits=LIMITS, routes=ROUTES, listen={"port": 0, "workers": 2, "trusted_proxies": ["127.0.0.1"]}
    )
    attempts = [{"x-forwarded-for": f"198.51.100.{n}, 203.0.113.7"} for n in range(20)]
    assert await codes(gateway, attempts) == {200: RATE, 429: 20 - RATE}
    neighbours = [{"x-forwarded-for": f"2001:db8:0:1::{n:x}"} for n in range(20)]
    assert await codes(gateway, neighbours) == {200: RATE, 429: 20 - RATE}  # one /64 is one client


async def test_tokens_that_are_none(gateway: Any, key: Ed25519PrivateKey) -> None:
    """Forged, expired, unsigned, signed by the public key, huge, nested: all of them the anonymous sender."""
    now = time.time()
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    head = b64({"alg": "HS256"})

    def signed_with_the_public_key(user: str) -> str:
        body = f"{head}.{b64({'sub': user, 'exp': now + 600})}"
        seal = hmac.digest(public, body.encode(), hashlib.sha256)
        return f"{body}.{base64.urlsafe_b64encode(seal).rstrip(b'=').decode()}"

    attempts = []
    for n in range(4):
        user = f"u-{n}"
        for forged in (
            token(Ed25519PrivateKey.generate(), sub=user),
            token(key, sub=user, exp=now - 3600),
            token(key, sub=user, nbf=now + 3600),
            token(key, sub=user, more="x" * 5000),
            f"{b64({'alg': 'none'})}.{b64({'sub': user, 'exp': now + 600})}.",
            signed_with_the_public_key(user),
            f"{user}" * 500,
            "." * 2000,
            f"{b64([[[[[]]]]])}.{b64({'sub': user})}.AAAA",
        ):
            attempts += [{"authorization": f"Bearer {forged}"}, {"cookie": f"session={forged}"}]
    seen = await codes(gateway, attempts)
    assert seen == {200: RATE, 429: len(attempts) - RATE}
    # Who has a valid one is somebody else, and has a count of its own.
    assert await codes(gateway, [{"authorization": f"Bearer {token(key)}"}] * 8) == {200: RATE, 429: 3}


async def test_a_token_beyond_all_bounds_is_refused_before_anything(gateway: Any, shop: Any) -> None:
    """Megabytes of token, or thousands of tokens, get a 4xx or the line is cut; the shop sees nothing."""
    for field in (
        b"Authorization: Bearer " + b"x" * 2_000_000,
        b"\r\n".join([b"Authorization: Bearer x"] * 3000),
        b"Cookie: " + b"; ".join(b"session=%d" % n for n in range(50)),
    ):
        answer = await gateway.raw(
            b"GET /api/orders HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + field + b"\r\n\r\n"
        )
        assert answer == b"" or answer.startswith(b"HTTP/1.1 4"), answer[:100]
    assert not shop.seen


SPELLINGS = [
    "/api/orders", "/api/orders/", "/api//orders", "//api/orders", "/./api/./orders", "/api/x/../orders",
    "/api/%6frders", "/%61pi/orders", "/api%2forders", "/api%2Forders", "/api\\orders", "/api%5corders",
    "/api/orders;x=1", "/api;x/orders", "/api/orders%3bx", "/api/%2e/orders", "/api/x/%2e%2e/orders",
    "/api/orders?x=1", "/api/orders%3fx", "/api/orders#x", "/api/orders%23x", "/api/orders%00",
    "/api/orders%20", "/api/orders.", "/api/orders%2f", "/api/orders/.", "/api/orders/x/..",
    "/api/%256frders", "/api/%c0%afapi/orders", "/api/orders%0d%0a", "/API/orders",
    "http://a/api/orders", "/api/%u006frders",
    "/api/orders%ff", "/api/%", "/api/%4", "*", "/..%2fapi/orders", "/%2e%2e/api/orders",
]  # fmt: skip


async def test_no_spelling_of_a_path_escapes_its_limit(gateway: Any, shop: Any) -> None:
    """Every spelling is counted, refused or another path to the shop as well; none fails the gateway."""

    async def ask(target: str) -> int:
        answer = await gateway.raw(
            f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode("latin-1")
        )
        return int(answer[9:12]) if answer else 400

    seen = {target: Counter([await ask(target) for _ in range(RATE + 1)]) for target in SPELLINGS}
    assert all(code < 500 for answers in seen.values() for code in answers), seen
    passed = Counter(_as_a_lax_server(one.target) for one in shop.seen)
    assert passed["/api/orders"] == RATE, (passed, seen)


def _as_a_lax_server(target: str) -> str:
    """The path as an upstream may come to it that undoes all it can, once."""
    path = unquote(target.partition("?")[0].partition("#")[0], "latin-1").replace("\\", "/")
    parts: list[str] = []
    for part in path.split("/"):
        word = part.partition(";")[0]
        if word == "..":
            del parts[-1:]
        elif word not in {"", "."}:
            parts.append(word)
    return "/" + "/".join(parts)


async def test_a_crowd_of_strangers(start_gateway: Any) -> None:
    """Thousands of addresses at once, each over its limit: all are told 200, then 429, and nothing else."""
    gateway = await start_gateway(
        limits={"user": {"rate": "1/day", "per": "user"}},
        routes=ROUTES,
        listen={"port": 0, "workers": 2, "trusted_proxies": ["127.0.0.1"]},
    )
    answers: Counter[int] = Counter()

    async def strangers(first: int) -> None:
        async with httpx.AsyncClient(base_url=gateway.url) as client:
            for n in range(first, first + 300):
                fields = {"x-forwarded-for": f"2001:db8:{n:x}:1::1"}
                answers.update(
                    [(await client.get("/api/orders", headers=fields)).status_code for _ in range(2)]
                )

    await asyncio.gather(*(strangers(n * 300) for n in range(10)))
    assert answers == {200: 3000, 429: 3000}


async def test_nobody_inherits_a_user(gateway: Any, shop: Any, key: Ed25519PrivateKey, until: Any) -> None:
    """Headers that come again on one connection: each request is its own sender's while its token holds."""
    now = time.time()
    good = {user: {"authorization": f"Bearer {token(key, sub=user)}"} for user in ("u-1", "u-2")}
    cookie = {"cookie": f"session={token(key, sub='u-3')}", "tidegate-user": "u-1"}
    short = {"authorization": f"Bearer {token(key, sub='u-4', exp=now + 2)}"}
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        for _ in range(4):
            for fields, user in [
                (good["u-1"], ["u-1"]),
                ({"tidegate-user": "u-1"}, []),
                (good["u-2"], ["u-2"]),
                ({}, []),
                (cookie, ["u-3"]),
                (short, ["u-4"]),
            ]:
                shop.seen.clear()
                assert (await client.get("/", headers=fields)).status_code == 200
                assert shop.seen[0].values("tidegate-user") == user or (
                    fields is short and time.time() > now + 2
                )

        async def expired() -> bool:
            shop.seen.clear()
            await client.get("/", headers=short)
            return not shop.seen[0].values("tidegate-user")

        await until(expired)
        assert time.time() > now + 2
