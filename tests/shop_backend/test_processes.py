"""The shop as processes: killed at any moment, started without their servers, stopped politely."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from shop_backend.config import Settings
from shop_backend.stock.second_copy import SecondCopy
from tests.waiting import PATIENCE, until

ROOT = Path(__file__).resolve().parents[2]
Run = Callable[..., subprocess.Popen[bytes]]


def environment(settings: Settings, **more: str) -> dict[str, str]:
    """The settings as TIDEGATE_ variables."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith("TIDEGATE_")}
    return clean | {
        "TIDEGATE_DATABASE_URL": settings.require("database_url"),
        "TIDEGATE_STOCK_REDIS_URL": settings.require("stock_redis_url"),
        "TIDEGATE_REDIS_URL": settings.require("redis_url"),
        "TIDEGATE_CARD_KEY": settings.require("card_key"),
        "TIDEGATE_SESSION_KEY_FILE": settings.require("session_key_file"),
        "TIDEGATE_SANDBOX_SECRET": settings.require("sandbox_secret"),
        "TIDEGATE_DATA_DIR": str(settings.data_dir),
        **more,
    }


@pytest.fixture
def run() -> Iterator[Run]:
    """`run(env, *words)`: a process of the shop, killed at the end of the test."""
    running: list[subprocess.Popen[bytes]] = []

    def start(env: dict[str, str], *words: str) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            [sys.executable, "-m", "shop_backend", *words],
            env=env,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


async def ready(client: httpx.AsyncClient) -> None:
    """Wait for /readyz."""

    async def answers() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            return (await client.get("/readyz")).status_code == 200
        return False

    await until(answers, f"{client.base_url} is ready")


async def _order(client: httpx.AsyncClient, body: dict[str, Any], headers: dict[str, str]) -> dict[str, Any]:
    """Order as a shopper does: a shop that has just begun may still be counting its stock, and says so."""
    async with asyncio.timeout(PATIENCE):
        while (answer := await client.post("/api/orders", json=body, headers=headers)).status_code == 503:
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["type"] == "urn:tidegate:unavailable"
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


async def test_a_worker_born_without_postgresql_keeps_the_second_copies(
    shop: Any, run: Run, free_port: Callable[[], int]
) -> None:
    """The volatile Redis forgets while a worker waits for PostgreSQL: waiting orders are copied again."""
    order = (await shop.order("plain")).json()
    await shop.parts.redis_volatile.flushall()

    nowhere = f"postgresql://tidegate@127.0.0.1:{free_port()}/tidegate"
    run(environment(shop.settings, TIDEGATE_DATABASE_URL=nowhere), "worker", "--metrics-port", "0")

    copies = SecondCopy(shop.parts.redis_volatile, shop.parts.database)
    (copy,) = await until(lambda: _all(copies), "the order that waits in the stream has a second copy again")
    assert copy["order_id"] == order["order_id"]


async def _all(copies: SecondCopy) -> list[dict[str, str]]:
    return [each async for chunk in copies.chunks() for each in chunk]


async def test_every_accepted_order_survives_kill_9(
    shop_settings: Settings, start_shop: Any, fill_shop: Any, run: Run, free_port: Callable[[], int]
) -> None:
    """Shop and both workers are killed while orders are written and paid: all accepted ones are delivered."""
    fill_shop(shop_settings)
    shop_port, sandbox_port = free_port(), free_port()
    config = shop_settings.data_dir / "shop.yaml"
    config.write_text("workers: {abandoned_after: 1s}\n")
    env = environment(
        shop_settings,
        TIDEGATE_SHOP_CONFIG=str(config),
        TIDEGATE_SANDBOX_URL=f"http://127.0.0.1:{sandbox_port}",
        TIDEGATE_SHOP_URL=f"http://127.0.0.1:{shop_port}",
        TIDEGATE_PUBLIC_URL=f"http://127.0.0.1:{shop_port}",
    )
    serve = ["serve", "--port", str(shop_port), "--metrics-port", "0"]
    shop = run(env, *serve)
    workers = [run(env, "worker", "--metrics-port", "0") for _ in range(2)]
    run(env, "sandbox", "--port", str(sandbox_port))
    base = f"http://127.0.0.1:{shop_port}"
    async with httpx.AsyncClient(base_url=base, trust_env=False) as client:
        await ready(client)
        accepted: list[dict[str, Any]] = []
        for number in range(40):
            if number in (15, 30):
                workers.pop(0).send_signal(signal.SIGKILL)
                workers.append(run(env, "worker", "--metrics-port", "0"))
            if number == 20:
                shop.send_signal(signal.SIGKILL)
                shop = run(env, *serve)
                await ready(client)
            client.cookies.clear()
            await client.post("/api/session", json={})
            body = {"sku": "plain", "quantity": 1, "email": "a@b.example"}
            accepted.append(await _order(client, body, {"idempotency-key": str(number)}))
        client.cookies.clear()
        seen: dict[str, dict[str, Any]] = {}

        async def all_are(field: str, value: str | None = None) -> bool:
            for order in accepted:
                state = seen.get(order["order_id"], {})
                if field not in state or (value and state[field] != value):
                    answer = await client.get(order["status_url"], params={"token": order["token"]})
                    seen[order["order_id"]] = answer.json()
            return all(field in state and (value is None or state[field] == value) for state in seen.values())

        await until(lambda: all_are("pay_url"), "every order can be paid")
        for number, state in enumerate(list(seen.values())):
            if number == 20:
                workers.pop(0).send_signal(signal.SIGKILL)
                workers.append(run(env, "worker", "--metrics-port", "0"))
            paid = await client.post(f"{state['pay_url']}/pay", json={"outcome": "success", "duplicates": 1})
            assert paid.status_code == 200, paid.text
        await until(lambda: all_are("status", "delivered"), "every order is delivered")
    for process in (shop, *workers):
        process.send_signal(signal.SIGTERM)
    # The youngest worker may not have come to installing its handler.
    assert [process.wait(PATIENCE) for process in (shop, *workers)][:2] == [0, 0]
    async with start_shop(shop_settings) as after:
        cards = [card for state in seen.values() for card in state["cards"]]
        assert len(cards) == len(set(cards)) == 40
        await after.drain()
        await after.check()


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_missing_server_is_one_clear_line(
    shop_settings: Settings, run: Run, tmp_path: Path, command: str
) -> None:
    """PostgreSQL or Redis away for too long: exit 1, one line that names the variable."""
    config = tmp_path / "shop.yaml"
    config.write_text("database: {startup_timeout: 100ms}\n")
    nowhere = {
        "TIDEGATE_DATABASE_URL": f"postgresql://nobody@/nothing?host={tmp_path}",
        "TIDEGATE_STOCK_REDIS_URL": f"unix://{tmp_path}/nothing.sock",
    }
    for variable, url in nowhere.items():
        env = environment(shop_settings, TIDEGATE_SHOP_CONFIG=str(config)) | {variable: url}
        process = run(env, command, "--metrics-port", "0", *(["--port", "0"] if command == "serve" else []))
        _, errors = process.communicate(timeout=PATIENCE)
        plain = [line for line in errors.decode().splitlines() if line and not line.startswith("{")]
        assert (process.returncode, len(plain)) == (1, 1), errors.decode()
        assert variable in plain[0]


def test_missing_settings_are_one_clear_line(shop_settings: Settings, run: Run) -> None:
    """Without a key or with a malformed one, the process says which and ends."""
    for variable, value in (
        ("TIDEGATE_CARD_KEY", ""),
        ("TIDEGATE_CARD_KEY", "nonsense"),
        ("TIDEGATE_SESSION_KEY_FILE", "/nowhere.pem"),
        ("TIDEGATE_DATABASE_URL", ""),
    ):
        process = run(environment(shop_settings) | {variable: value}, "serve", "--port", "0")
        _, errors = process.communicate(timeout=PATIENCE)
        plain = [line for line in errors.decode().splitlines() if line and not line.startswith("{")]
        assert (process.returncode, len(plain)) == (1, 1), errors.decode()


def test_a_taken_port_is_one_clear_line(shop_settings: Settings, run: Run) -> None:
    """The public port or the metrics port in use: exit 1 and which option to use."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for words in (["--port", port, "--metrics-port", "0"], ["--port", "0", "--metrics-port", port]):
            process = run(environment(shop_settings), "serve", *words)
            _, errors = process.communicate(timeout=PATIENCE)
            plain = [line for line in errors.decode().splitlines() if line and not line.startswith("{")]
            assert (process.returncode, len(plain)) == (1, 1), errors.decode()
            assert f"port {port}" in plain[0]


def test_logs_are_json_lines(shop_settings: Settings, run: Run) -> None:
    """Every line a server writes is one JSON object with time, level and message."""
    process = run(environment(shop_settings), "worker", "--metrics-port", "0")
    assert process.stderr is not None
    line = json.loads(process.stderr.readline())
    assert {"at", "level", "logger", "message"} <= set(line)
    process.send_signal(signal.SIGTERM)
    assert process.wait(PATIENCE) == 0


EARLY = """
import signal, sys, uvicorn
from starlette.applications import Starlette
from shop_backend import __main__ as shop

run = uvicorn.Server.run

def told_to_stop(self, sockets=None):
    signal.raise_signal(signal.SIGTERM)
    run(self, sockets)

uvicorn.Server.run = told_to_stop
sys.exit(shop._uvicorn(Starlette(), "127.0.0.1", 0, 1.0))
"""


def test_a_stop_before_the_server_listens_to_signals_is_heard() -> None:
    """SIGTERM in the moment before uvicorn installs its handlers: the server ends, and ends well."""
    done = subprocess.run([sys.executable, "-c", EARLY], cwd=ROOT, timeout=PATIENCE, check=False)
    assert done.returncode == 0


async def test_a_client_that_leaves_is_no_error(
    shop_settings: Settings, run: Run, free_port: Callable[[], int]
) -> None:
    """A body that breaks off, in the shop and at the sandbox: nothing above a warning in the log."""
    for command, path in (("serve", "/api/session"), ("sandbox", "/checkouts")):
        port = free_port()
        words = [command, "--port", str(port), *(["--metrics-port", "0"] if command == "serve" else [])]
        process = run(environment(shop_settings), *words)
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            await ready(client)
            for _ in range(5):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{{".encode())
                await writer.drain()
                await client.get("/livez")  # by now the request is being read
                writer.close()
                await writer.wait_closed()
            assert (await client.get("/livez")).status_code == 200
        process.terminate()
        out, errors = process.communicate(timeout=PATIENCE)
        log = (out or b"") + (errors or b"")
        assert b'"ERROR"' not in log.upper(), log.decode()
        assert b"Traceback" not in log
