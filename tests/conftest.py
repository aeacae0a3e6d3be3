"""Real servers for every test: Redis twice, PostgreSQL, and the whole stack."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import psycopg.sql
import pytest
import redis

from ops import embedded

ROOT = Path(__file__).resolve().parent.parent


# ---- helpers ------------------------------------------------------------------------------------


def _wait_until(
    condition: Callable[[], Any], *, within: float = 15.0, what: str = "", every: float = 0.02
) -> Any:
    """Wait for a condition (truthy), return its value, fail after `within` seconds."""
    deadline = time.monotonic() + within
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {within:g} s: {what or condition}")
        time.sleep(every)
    return value


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., Any]:
    """`wait_until(condition, within=15.0, what="")`: for synchronous tests and other processes."""
    return _wait_until


def _free_port() -> int:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        return int(door.getsockname()[1])


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """`free_port()`: a TCP port of the loopback that nobody holds just now."""
    return _free_port


@pytest.fixture(scope="session")
def short_tmp() -> Iterator[Path]:
    """A folder for the whole session whose path is short enough for unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="tg-", dir="/tmp"))
    folder.chmod(0o711)  # root's PostgreSQL runs as another account
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


# ---- Redis --------------------------------------------------------------------------------------


def _redis_server(kind: Any, folder: Path) -> Iterator[str]:
    server = embedded.EmbeddedRedis(kind, folder / f"redis-{kind}", folder)
    service = server.service()
    process = embedded.start(service, folder / f"redis-{kind}.log")
    yield server.url()
    embedded.stop(process, service)


@pytest.fixture(scope="session")
def redis_durable_server(short_tmp: Path) -> Iterator[str]:
    """URL of a durable Redis (AOF, fsync always, noeviction) that lives for the whole session."""
    yield from _redis_server("durable", short_tmp)


@pytest.fixture(scope="session")
def redis_volatile_server(short_tmp: Path) -> Iterator[str]:
    """URL of a volatile Redis (no persistence, volatile-lru) that lives for the whole session."""
    yield from _redis_server("volatile", short_tmp)


def _flushed(url: str) -> str:
    with redis.Redis.from_url(url) as client:
        client.flushall()
    return url


@pytest.fixture
def redis_durable_url(redis_durable_server: str) -> str:
    """URL of the durable Redis, empty."""
    return _flushed(redis_durable_server)


@pytest.fixture
def redis_volatile_url(redis_volatile_server: str) -> str:
    """URL of the volatile Redis, empty."""
    return _flushed(redis_volatile_server)


# ---- PostgreSQL ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def postgres_server(short_tmp: Path) -> Iterator[embedded.EmbeddedPostgres]:
    """A PostgreSQL without crash safety that lives for the whole session."""
    server = embedded.EmbeddedPostgres(short_tmp / "postgres-data", short_tmp, durable=False)
    log = short_tmp / "postgres.log"
    server.create(log)
    service = server.service()
    process = embedded.start(service, log)
    yield server
    embedded.stop(process, service)


def _execute(server: embedded.EmbeddedPostgres, statement: str, *names: str) -> None:
    identifiers = [psycopg.sql.Identifier(name) for name in names]
    with psycopg.connect(server.url("postgres"), autocommit=True) as connection:
        connection.execute(psycopg.sql.SQL(statement).format(*identifiers))


def _fresh_database(server: embedded.EmbeddedPostgres, template: str) -> Iterator[str]:
    name = f"t_{uuid.uuid4().hex[:12]}"
    # A file copy of a small template takes a third of the time of the default, WAL-logged copy.
    _execute(server, "CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy", name, template)
    yield server.url(name)
    _execute(server, "DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture
def database_url(postgres_server: embedded.EmbeddedPostgres) -> Iterator[str]:
    """URL of an empty database of this test's own."""
    yield from _fresh_database(postgres_server, "template0")


@pytest.fixture(scope="session")
def _migrated_template(postgres_server: embedded.EmbeddedPostgres, short_tmp: Path) -> str:
    _execute(postgres_server, "CREATE DATABASE {}", "migrated")
    done = subprocess.run(
        [sys.executable, "-m", "shop_backend", "migrate"],
        env={
            **os.environ,
            "TIDEGATE_DATABASE_URL": postgres_server.url("migrated"),
            "TIDEGATE_DATA_DIR": str(short_tmp),
        },
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, f"migrate failed:\n{done.stdout}{done.stderr}"
    return "migrated"


@pytest.fixture
def migrated_database_url(
    postgres_server: embedded.EmbeddedPostgres, _migrated_template: str
) -> Iterator[str]:
    """URL of a database of this test's own with every table of the shop, all empty."""
    yield from _fresh_database(postgres_server, _migrated_template)


# ---- the whole stack ----------------------------------------------------------------------------


@dataclass
class Stack:
    """A running `tidegate up`.

    Attributes:
        url: the gateway, as shoppers see it, without a trailing slash.
        admin_url: the admin API.
        admin_token: its bearer token.
        sandbox_url: the payment provider.
        shop_url: the shop behind the gateway.
        data_dir: its --data.
        config: the gateway's config file, a copy of this stack's own: edit it freely, then put it back.
        env: environment in which `tidegate` commands speak to it.
        pid: process id of `tidegate up`.
    """

    url: str
    admin_url: str
    admin_token: str
    sandbox_url: str
    shop_url: str
    data_dir: Path
    config: Path
    env: dict[str, str]
    pid: int
    process: subprocess.Popen[str]

    def state(self) -> dict[str, Any]:
        """What stack.json says now: URLs, and the pid of each service."""
        return dict(json.loads((self.data_dir / "stack.json").read_text()))

    def service_pid(self, name: str) -> int:
        """The process id of one service (shop, worker, sandbox, gateway, …) just now."""
        return int(self.state()["pids"][name])

    def tidegate(self, *words: str, timeout: float = 60.0) -> subprocess.CompletedProcess[str]:
        """Run `tidegate WORDS` against this stack."""
        return subprocess.run(
            [sys.executable, "-m", "ops.cli", *words],
            env=self.env,
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def stop(self, within: float = 15.0) -> int:
        """SIGTERM, as an operator would; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        return self.process.wait(within)


def _start_stack(data: Path, *words: str, env: dict[str, str] | None = None) -> Stack:
    data.mkdir(parents=True, exist_ok=True)
    data.chmod(0o711)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("TIDEGATE_")}
    environment |= {"PYTHONUNBUFFERED": "1", **(env or {})}
    argv = [sys.executable, "-m", "ops.cli", "up", "--data", str(data)]
    config = data / "gateway.yaml"
    if not config.exists():
        shutil.copyfile(ROOT / "config/gateway.yaml", config)
    argv += [
        "--config",
        str(config),
        "--port",
        str(_free_port()),
        "--admin-port",
        str(_free_port()),
        "--workers",
        "2",
        *words,
    ]
    console = data / "console.log"
    with console.open("w") as out:
        process = subprocess.Popen(
            argv, env=environment, cwd=ROOT, text=True, stdout=out, stderr=subprocess.STDOUT
        )

    def ready() -> bool:
        if process.poll() is not None:
            pytest.fail(f"tidegate up ended with status {process.returncode}:\n{console.read_text()}")
        return re.search(r"^ready\b", console.read_text(), re.MULTILINE) is not None

    try:
        _wait_until(ready, within=90, what=f"tidegate up; see {console}")
        state = json.loads((data / "stack.json").read_text())
    except BaseException:
        process.kill()
        print(console.read_text())  # noqa: T201 - pytest shows it beside the failure
        raise
    return Stack(
        url=state["urls"]["gateway"],
        admin_url=state["urls"]["admin"],
        admin_token=(data / "admin-token").read_text().strip(),
        sandbox_url=state["urls"]["sandbox"],
        shop_url=state["urls"]["shop"],
        data_dir=data,
        config=config,
        env={**environment, "TIDEGATE_DATA_DIR": str(data)},
        pid=process.pid,
        process=process,
    )


@pytest.fixture(scope="session")
def start_stack(short_tmp: Path) -> Iterator[Callable[..., Stack]]:
    """`start_stack(*words, data=None, env=None)`: one more stack, stopped at the end of the session."""
    running: list[Stack] = []

    def start(*words: str, data: Path | None = None, env: dict[str, str] | None = None) -> Stack:
        stack = _start_stack(data or short_tmp / f"stack-{len(running)}", *words, env=env)
        running.append(stack)
        return stack

    yield start
    for stack in running:
        stack.stop()


@pytest.fixture(scope="session")
def stack(start_stack: Callable[..., Stack]) -> Stack:
    """The whole stack, shared by the session; leave it as you found it."""
    return start_stack()
