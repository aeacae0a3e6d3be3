"""The configuration file is edited while the gateway runs."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway import config
from gateway.metrics import WorkerMetrics
from gateway.parts import Parts
from gateway.trial import load_and_try


async def test_an_edit_holds_in_every_worker(start_gateway: Any, until: Any) -> None:
    """A feature switched off in the file is off everywhere, without a restart and without a lost request."""
    gateway = await start_gateway(listen={"port": 0, "workers": 3})
    stop = asyncio.Event()
    statuses: list[int] = []

    async def shopper() -> None:
        while not stop.is_set():
            statuses.append((await gateway.fresh("/products")).status_code)

    shoppers = [asyncio.create_task(shopper()) for _ in range(4)]
    fallback = {"json": {"items": []}}
    gateway.edit(features={"recommendations": {"state": "off", "fallback": fallback}})

    async def all_off() -> bool:
        answers = await asyncio.gather(*(gateway.fresh("/recommendations") for _ in range(12)))
        return all("tidegate-degraded" in answer.headers for answer in answers)

    await until(all_off)
    stop.set()
    await asyncio.gather(*shoppers)
    assert set(statuses) == {200}
    assert await gateway.metric("tidegate_config_reloads_total", result="success") == 1
    assert (await gateway.admin("GET", "/api/features/recommendations")).json()["state"] == "off"


async def test_a_broken_edit_changes_nothing(start_gateway: Any, until: Any) -> None:
    """The last good configuration holds; the mistakes are told with their lines, and counted."""
    gateway = await start_gateway()
    gateway.edit(routes=[{"match": "/**", "upstream": "shpo"}])

    async def told() -> list[str]:
        mistakes: list[str] = (await gateway.admin("GET", "/api/status")).json()["config"]["mistakes"]
        return mistakes

    mistakes = await until(told)
    assert "routes[0].upstream: unknown upstream 'shpo' (did you mean shop?)" in mistakes[0]
    await gateway.says(mistakes[0])
    assert await gateway.metric("tidegate_config_reloads_total", result="failure") == 1
    assert (await gateway.fresh()).status_code == 200
    refused = await gateway.admin("POST", "/api/config/reload")
    assert (refused.status_code, refused.json()["mistakes"]) == (422, mistakes)

    gateway.edit(routes=[{"match": "/only", "upstream": "shop"}])
    done = await gateway.admin("POST", "/api/config/reload")

    assert (done.status_code, done.json()["applied"], done.json()["workers"]) == (200, 2, 2)
    assert (await gateway.fresh()).status_code == 404
    assert (await gateway.admin("GET", "/api/status")).json()["config"]["mistakes"] == []


async def test_a_missing_file_changes_nothing(start_gateway: Any, until: Any) -> None:
    """An editor that replaces the file, or an operator who deletes it, breaks nothing."""
    gateway = await start_gateway()
    text = gateway.config.read_text()
    gateway.config.unlink()

    async def told() -> bool:
        return await gateway.metric("tidegate_config_reloads_total", result="failure") >= 1

    await until(told)
    assert (await gateway.fresh()).status_code == 200
    gateway.config.write_text(text)

    async def taken() -> bool:
        return await gateway.metric("tidegate_config_reloads_total", result="success") >= 1

    await until(taken)


async def test_sighup_reloads(start_gateway: Any) -> None:
    """SIGHUP takes the file at once, as daemons do."""
    gateway = await start_gateway()
    gateway.process.send_signal(signal.SIGHUP)

    await gateway.says("SIGHUP: configuration 1 holds in 2 of 2 workers")


async def test_state_survives_a_reload(start_gateway: Any, shop: Any, until: Any) -> None:
    """What a reload leaves as it was goes on: an exchange in flight, the counters, an operator's pin."""
    gateway = await start_gateway()
    release = asyncio.Event()

    async def slow(_: Any, writer: asyncio.StreamWriter, seen: Any) -> None:
        await release.wait()
        await shop.ok(_, writer, seen)

    shop.scripts["/slow"] = slow
    await gateway.admin("PUT", "/api/features/recommendations", {"state": "off"})
    waiting = asyncio.create_task(gateway.fresh("/slow"))
    await until(lambda: shop.seen)
    upstream = {"servers": [f"http://127.0.0.1:{shop.port}"], "timeout": {"total": "9s"}}  # a new pool
    gateway.edit(upstreams={"shop": upstream})
    done = await gateway.admin("POST", "/api/config/reload")
    assert done.json()["version"] == 2

    release.set()

    assert (await waiting).status_code == 200
    assert "tidegate-degraded" in (await gateway.fresh("/recommendations")).headers
    assert await gateway.metric("tidegate_requests_total") >= 2


async def test_a_revoked_key_verifies_no_more(
    start_gateway: Any, shop: Any, tmp_path: Path, until: Any
) -> None:
    """Keys are exchanged in their file, which the configuration only names: both are watched.

    A token that was verified before, and is remembered, is worth nothing once its key is gone.
    """
    old, new = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    file = tmp_path / "keys.pem"

    def publish(*keys: Ed25519PrivateKey) -> None:
        file.write_bytes(
            b"".join(
                key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo) for key in keys
            )
        )

    async def user(key: Ed25519PrivateKey) -> list[str]:
        claims = {"sub": "u-1", "exp": 4e9}
        shop.seen.clear()
        await gateway.fresh(headers={"authorization": f"Bearer {jwt.encode(claims, key, algorithm='EdDSA')}"})
        found: list[str] = shop.seen[-1].values("tidegate-user")
        return found

    publish(old)
    identity = {"jwt": {"algorithm": "EdDSA", "key_file": str(file)}}
    gateway = await start_gateway(listen={"port": 0, "workers": 1}, identity=identity)
    assert await user(old) == ["u-1"]
    assert await user(new) == []
    publish(new)

    async def exchanged() -> bool:
        return await user(old) == []

    await until(exchanged)
    await gateway.says("configuration 2: identity.jwt.key_file: what stood in it")
    publish(old, new)
    done = await gateway.admin("POST", "/api/config/reload")
    assert (done.status_code, done.json()["version"]) == (200, 3)
    assert await user(old) == ["u-1"]
    assert await user(Ed25519PrivateKey.generate()) == []


async def test_what_the_door_lets_in(start_gateway: Any) -> None:
    """Bounds hold from the next request on, on connections that are open and for headers known by heart."""
    gateway = await start_gateway(listen={"port": 0, "workers": 1})
    bounds = {"port": 0, "workers": 1, "max_body": 100, "max_target": 64, "max_headers": 8}
    asked: list[dict[str, Any]] = [
        {"method": "POST", "url": "/", "content": b"x" * 200},
        {"method": "GET", "url": "/" + "x" * 100},
        {"method": "GET", "url": "/", "headers": {f"x-{n}": "1" for n in range(10)}},
    ]
    async with httpx.AsyncClient(base_url=gateway.url) as client:
        for _ in range(3):
            assert [(await client.request(**one)).status_code for one in asked] == [200, 200, 200]
        gateway.edit(listen=bounds)
        assert (await gateway.admin("POST", "/api/config/reload")).json()["applied"] == 1
        assert [(await client.request(**one)).status_code for one in asked] == [413, 414, 431]
        gateway.edit(listen={"port": 0, "workers": 1, "max_target": "16KiB", "max_headers": 200})
        assert (await gateway.admin("POST", "/api/config/reload")).json()["applied"] == 1
        asked[1]["url"] += "y" * 12_000
        asked[2]["headers"] |= {f"y-{n}": "1" for n in range(110)}
        assert [(await client.request(**one)).status_code for one in asked] == [200, 200, 200]


AUTHORITY = "{servers: ['https://127.0.0.1:9'], tls: {ca_file: bad.pem}}"
KEYS = "{jwt: {algorithm: EdDSA, key_file: bad.pem}}"


def named(tmp_path: Path, upstream: str, identity: str) -> tuple[bytes, str]:
    """A configuration with these blocks, and its name, in a folder that has a file without sense."""
    (tmp_path / "bad.pem").write_text("nothing")
    text = (
        f"upstreams: {{shop: {upstream}}}\nidentity: {identity}\nroutes: [{{match: '/**', upstream: shop}}]"
    )
    return text.encode(), str(tmp_path / "gateway.yaml")


@pytest.mark.parametrize(
    ("upstream", "identity"), [(AUTHORITY, "{}"), ("{servers: ['http://127.0.0.1:8']}", KEYS)]
)
async def test_what_a_worker_can_not_have_changes_nothing(
    tmp_path: Path, upstream: str, identity: str
) -> None:
    """The file was good when the master tried it: what holds is not half of one and half of the other."""
    raw, name = named(tmp_path, "{servers: ['http://127.0.0.1:9']}", "{}")
    parts, good = Parts(1, WorkerMetrics()), config.load(raw, name, {})
    await parts.adopt(good)
    before = parts.config, parts.identity, dict(parts.upstreams), dict(parts.gates)
    with pytest.raises((OSError, ValueError)):
        await parts.adopt(config.load(*named(tmp_path, upstream, identity), {}))

    assert (parts.config, parts.identity, parts.upstreams, parts.gates) == before
    await parts.aclose()


def test_a_file_without_authorities_is_told(tmp_path: Path) -> None:
    """By `check` and at a reload, at its line."""
    with pytest.raises(config.ConfigError) as refused:
        load_and_try(*named(tmp_path, AUTHORITY, "{}"), {})

    (line,) = refused.value.lines
    assert line.startswith(f"{tmp_path}/gateway.yaml:1: upstreams.shop.tls.ca_file: ")
    assert line.endswith("bad.pem holds no certificate (PEM)")
