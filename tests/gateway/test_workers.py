"""Processes: workers that die, a gateway that drains, ports that are taken."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from gateway.crew import Crew
from gateway.forks import Forks
from gateway.totals import Totals


async def test_a_killed_worker_is_replaced(start_gateway: Any, until: Any) -> None:
    """A kill -9 of a worker: the others serve on, another takes its place with the same switches."""
    gateway = await start_gateway()
    await gateway.admin("PUT", "/api/features/recommendations", {"state": "off"})
    for _ in range(8):
        await gateway.fresh()
    before = await gateway.metric("tidegate_requests_total")
    victim = gateway.workers()[0]
    victim.kill()

    async def replaced() -> bool:
        pids = {worker.pid for worker in gateway.workers()}
        ready = await gateway.admin("GET", "/readyz", token=None)
        return victim.pid not in pids and len(pids) == 2 and ready.status_code == 200

    await until(replaced, gateway.log)
    answers = await asyncio.gather(*(gateway.fresh("/recommendations") for _ in range(12)))
    assert all("tidegate-degraded" in answer.headers for answer in answers)
    assert await gateway.metric("tidegate_worker_restarts_total") == 1
    # What it had counted and told stays; a counter never goes back.
    assert await gateway.metric("tidegate_requests_total") >= before
    assert await gateway.metric("tidegate_workers") == 2


async def test_sigterm_finishes_what_is_in_flight(start_gateway: Any, shop: Any, until: Any) -> None:
    """A draining gateway answers what it has taken, then ends with 0 and leaves no process behind."""
    gateway = await start_gateway()
    release = asyncio.Event()

    async def slow(_: Any, writer: asyncio.StreamWriter, seen: Any) -> None:
        await release.wait()
        await shop.ok(_, writer, seen)

    shop.scripts["/slow"] = slow
    waiting = [asyncio.create_task(gateway.fresh("/slow")) for _ in range(6)]
    await until(lambda: len(shop.seen) == 6)
    workers = gateway.workers()
    gateway.process.send_signal(signal.SIGTERM)
    await until(lambda: _refuses(gateway.port))
    release.set()

    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
    assert await gateway.stop() == 0
    assert not any(worker.is_running() for worker in workers)


async def test_a_drain_can_be_watched(start_gateway: Any, shop: Any, until: Any) -> None:
    """What ends while a gateway drains is in its numbers at once, though others are still in flight."""
    gateway = await start_gateway("--workers", "1")
    release = {path: asyncio.Event() for path in ("/first", "/last")}

    async def slow(_: Any, writer: asyncio.StreamWriter, seen: Any) -> None:
        await release[seen.target].wait()
        await shop.ok(_, writer, seen)

    shop.scripts.update(dict.fromkeys(release, slow))
    first, last = (asyncio.create_task(gateway.fresh(path)) for path in release)
    await until(lambda: len(shop.seen) == 2)
    gateway.process.send_signal(signal.SIGTERM)
    await until(lambda: _refuses(gateway.port))
    release["/first"].set()
    assert (await first).status_code == 200

    async def counted() -> bool:
        return bool(await gateway.metric("tidegate_requests_total") == 1)

    await until(counted)
    release["/last"].set()
    assert (await last).status_code == 200
    assert await gateway.stop() == 0


def _refuses(port: int) -> bool:
    """Whether nobody listens there."""
    with socket.socket() as door:
        return door.connect_ex(("127.0.0.1", port)) != 0


async def test_workers_leave_when_the_master_is_killed(start_gateway: Any, until: Any) -> None:
    """A kill -9 of the master leaves no worker behind; a new gateway can take the port at once."""
    gateway = await start_gateway()
    workers = gateway.workers()
    assert len(workers) == 2

    await gateway.stop(signal.SIGKILL)

    await until(lambda: not any(worker.is_running() for worker in workers))
    again = await start_gateway(listen={"port": gateway.port, "workers": 1})
    assert (await again.fresh()).status_code == 200


@pytest.mark.parametrize("key", ["listen", "admin"])
async def test_a_taken_port_is_told_in_one_line(tmp_path: Path, key: str) -> None:
    """Exit 1, one line that names the port and the key, nothing left running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        config = tmp_path / "gateway.yaml"
        other = "admin" if key == "listen" else "listen"
        config.write_text(
            f"{key}: {{port: {port}}}\n{other}: {{port: 0}}\n"
            "upstreams: {shop: {servers: ['http://127.0.0.1:9']}}\n"
            "routes: [{match: '/**', upstream: shop}]\n"
        )
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "serve", "--config", str(config),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "TIDEGATE_ADMIN_TOKEN": "t"},
        )  # fmt: skip
        _, errors = await process.communicate()

    assert process.returncode == 1
    (said,) = errors.decode().splitlines()
    option = "--port" if key == "listen" else "--admin-port"
    assert said == (
        f"gateway: can't listen on 127.0.0.1:{port}: address already in use; "
        f"choose another {key}.port, or give {option}"
    )


async def test_a_bad_configuration_is_told(tmp_path: Path) -> None:
    """`serve` with a bad file exits 1 with the lines that `check` prints."""
    config = tmp_path / "gateway.yaml"
    config.write_text("upstreams: {shop: {servers: ['http://127.0.0.1:9']}}\nroutes: []\n")
    for command in (["serve", "--config"], ["check"]):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", *command, str(config), stderr=asyncio.subprocess.PIPE
        )
        _, errors = await process.communicate()
        assert process.returncode == 1
        assert errors.decode().startswith(f"{config}:2: routes: ")


async def test_who_reads_no_further_is_told_of_no_error() -> None:
    """`python -m gateway schema | head`: the rest is not wanted, and that is all."""
    reads, writes = os.pipe()
    os.close(reads)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "schema", stdout=writes, stderr=asyncio.subprocess.PIPE
    )
    os.close(writes)
    _, errors = await process.communicate()

    assert errors == b""
    assert process.returncode == -signal.SIGPIPE


async def test_one_worker_is_one(start_gateway: Any) -> None:
    """In the line that says where the gateway is."""
    gateway = await start_gateway(listen={"port": 0, "workers": 1})

    await gateway.says(f"gateway ready: {gateway.url} with 1 worker, admin ")


async def test_what_changes_nothing_is_remarked(start_gateway: Any) -> None:
    """A limit that no route charges is good, and told of: by `check`, at the start, at an edit."""
    limits = {"all": {"rate": "5/second", "per": "global"}}
    gateway = await start_gateway(limits=limits)
    said = "no route charges this limit; name it in the limits of one"
    await gateway.says(f": limits.all: {said}")
    gateway.edit(limits={"other": limits["all"]})
    await gateway.says(f": limits.other: {said}")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", "check", str(gateway.config), stdout=asyncio.subprocess.PIPE
    )
    told, _ = await process.communicate()

    good, remark = told.decode().splitlines()
    assert process.returncode == 0
    assert good == f"{gateway.config}: good (2 routes, 1 limit)"
    assert re.fullmatch(rf"{gateway.config}:\d+: limits.other: {said}", remark)


async def test_the_access_log_has_a_line_for_each_request(start_gateway: Any, tmp_path: Path) -> None:
    """Written off the request path, complete after a drain; the query stays out of it."""
    log = tmp_path / "access.log"
    gateway = await start_gateway(access_log={"file": str(log)})
    for number in range(20):
        await gateway.fresh(f"/p/{number}?token=secret")

    assert await gateway.stop() == 0

    lines = log.read_text().splitlines()
    assert len(lines) == 20
    assert "secret" not in log.read_text()


async def test_a_worker_that_cannot_be_started_is_tried_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture, until: Any
) -> None:
    """Out of processes or memory: said, with nothing left open; the place is not given up."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no-such-python"))
    with socket.create_server(("127.0.0.1", 0)) as listener:
        crew = Crew(listener, 1, Forks(), dict, Totals(), 0, ())
        crew.start()
        await until(lambda: crew.restarts == 1)
        open_before = psutil.Process().num_fds()
        await until(lambda: crew.restarts == 3)

        assert psutil.Process().num_fds() == open_before
        assert caplog.text.count("no worker can be started") >= 3
        assert crew.members == {}
        await crew.stop()
