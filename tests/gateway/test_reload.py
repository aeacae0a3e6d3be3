"""The configuration file is edited while the gateway runs."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from gateway import config
from gateway.metrics import WorkerMetrics
from gateway.parts import Parts
from gateway.trial import load_and_try
from tests.waiting import until


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


# ---- a log that can't be written -------------------------------------------------------------


def tried(log: Path | str) -> list[str]:
    """What is wrong with a configuration that has this access log."""
    text = (
        "upstreams: {shop: {servers: ['http://127.0.0.1:9']}}\n"
        f"access_log:\n  file: '{log}'\nroutes: [{{match: '/**', upstream: shop}}]\n"
    )
    try:
        load_and_try(text.encode(), "gateway.yaml", {})
    except config.ConfigError as refused:
        return refused.lines
    return []


@contextlib.contextmanager
def unprivileged() -> Iterator[None]:
    """As nobody, where the tests run as root, who may do anything."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


def test_an_access_log_is_tried(tmp_path: Path) -> None:
    """Its folder must be there, and it may be none itself; nothing is made by looking."""
    assert [tried(good) for good in (tmp_path / "x.log", "-", os.devnull)] == [[], [], []]
    said = f"gateway.yaml:3: access_log.file: {tmp_path}"
    assert tried(tmp_path / "no" / "x.log") == [
        f"{said}/no/x.log can't be written: there is no folder {tmp_path}/no; make it, or name another file"
    ]
    assert tried(tmp_path) == [f"{said} can't be written: that is a folder; name a file in it"]
    assert list(tmp_path.iterdir()) == []


def test_an_access_log_is_tried_as_who_will_write_it() -> None:
    """Whoever may not write there is told as which user that was found."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "x.log").touch(0o400)
        (folder / "shut").mkdir(0o000)
        folder.chmod(0o555)
        with unprivileged():
            user = f"user {os.geteuid()}"
            told = [tried(folder / log) for log in ("x.log", "y.log", "shut/z.log")]
        folder.chmod(0o700)

    said, do = f"gateway.yaml:3: access_log.file: {folder}", "let that user, or name another file"
    assert told == [
        [f"{said}/x.log can't be written: {user} may not; {do}"],
        [f"{said}/y.log can't be written: {user} may make no file in {folder}; {do}"],
        [f"{said}/shut/z.log can't be written: {user} may not look there; {do}"],
    ]


async def test_a_log_that_can_not_be_written_is_refused_whole(start_gateway: Any, tmp_path: Path) -> None:
    """With the edit's other half: told, counted, and nowhere in force."""
    gateway = await start_gateway()
    log = {"file": str(tmp_path / "no" / "x.log")}
    gateway.edit(access_log=log, routes=[{"match": "/a", "upstream": "shop"}])

    refused = await gateway.admin("POST", "/api/config/reload")

    (told,) = refused.json()["mistakes"]
    assert refused.status_code == 422
    assert "access_log.file" in told
    status = (await gateway.admin("GET", "/api/status")).json()
    assert (status["config"]["mistakes"], status["config"]["version"]) == ([told], 1)
    assert await gateway.metric("tidegate_config_reloads_total", result="success") == 0
    assert {(await gateway.fresh()).status_code for _ in range(6)} == {200}
    assert "holds in" not in gateway.log()


async def test_a_gateway_does_not_begin_with_a_log_that_can_not_be_written(tmp_path: Path) -> None:
    """One line, at its key, as of any other mistake; no worker has been born to die of it."""
    file = tmp_path / "gateway.yaml"
    file.write_text(
        f"access_log: {{file: {tmp_path}/no/x.log}}\n"
        "listen: {port: 0}\nadmin: {port: 0}\nupstreams: {shop: {servers: ['http://127.0.0.1:9']}}\n"
        "routes: [{match: '/**', upstream: shop}]\n"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "serve", "--config", str(file),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await process.communicate()

    (line,) = said.decode().splitlines()
    assert process.returncode == 1
    assert line.startswith(f"{file}:1: access_log.file: ")


# ---- what only a worker can find out ---------------------------------------------------------


@contextlib.contextmanager
def out_of_descriptors(process: psutil.Process) -> Iterator[None]:
    """A process that can open nothing."""
    before = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (3, before[1]))
    try:
        yield
    finally:
        process.rlimit(psutil.RLIMIT_NOFILE, before)


async def serving(gateway: Any) -> list[tuple[int, int]]:
    """Each worker, and by which configuration it serves."""
    workers = (await gateway.admin("GET", "/api/status")).json()["workers"]["each"]
    return [(worker["pid"], worker["config"]) for worker in workers]


async def noticed(gateway: Any) -> None:
    """Wait until the gateway has tried the edit by itself, too."""

    async def tried_twice() -> bool:
        return await gateway.metric("tidegate_config_reloads_total", result="failure") == 2

    await until(tried_twice)


async def test_an_edit_that_one_worker_can_not_have_holds_in_none(start_gateway: Any, tmp_path: Path) -> None:
    """The other goes back; the edit is told as refused, with its reason, and can be taken later."""
    gateway = await start_gateway()
    weak, _ = gateway.workers()
    before = await serving(gateway)
    gateway.edit(access_log={"file": str(tmp_path / "x.log")}, routes=[{"match": "/a", "upstream": "shop"}])
    with out_of_descriptors(weak):
        refused = await gateway.admin("POST", "/api/config/reload")

        said = f"can't be used by this process: too many open files: {tmp_path}/x.log"
        assert (refused.status_code, refused.json()["mistakes"]) == (422, [f"{gateway.config}: {said}"])
        await noticed(gateway)
        assert await serving(gateway) == before
    assert {(await gateway.fresh()).status_code for _ in range(6)} == {200}
    assert await gateway.metric("tidegate_config_reloads_total", result="success") == 0
    assert (await gateway.admin("GET", "/api/status")).json()["config"]["version"] == 1

    taken = (await gateway.admin("POST", "/api/config/reload")).json()

    assert (taken["applied"], taken["workers"]) == (2, 2)
    assert await serving(gateway) == [(pid, taken["version"]) for pid, _ in before]
    assert {(await gateway.fresh()).status_code for _ in range(6)} == {404}


async def test_a_worker_that_can_not_go_back_is_told(start_gateway: Any, tmp_path: Path) -> None:
    """What held before is gone from under it: it serves by the edit, and nobody says otherwise."""
    (tmp_path / "log").mkdir()
    gateway = await start_gateway(access_log={"file": str(tmp_path / "log" / "x.log")})
    weak, other = gateway.workers()
    shutil.rmtree(tmp_path / "log")
    gateway.edit(access_log={"file": str(tmp_path / "y.log")})
    with out_of_descriptors(weak):
        refused = await gateway.admin("POST", "/api/config/reload")

        await noticed(gateway)
        versions = dict(await serving(gateway))
    stuck = f"{gateway.config}: worker {other.pid} serves by it and does not go back; restart the gateway"
    assert refused.status_code == 422
    assert stuck in refused.json()["mistakes"]
    assert versions[weak.pid] == 1 < versions[other.pid]
