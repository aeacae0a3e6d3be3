"""Real servers for every test: Redis twice, PostgreSQL, and the whole stack."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psycopg
import psycopg.sql
import pytest
import redis
from hypothesis import HealthCheck, settings

from ops import embedded
from tests import running_stack, unsupervised, waiting
from tests.running_stack import ROOT, Stack

# Every run draws the same, so that what passed here passes in CI. New draws are looked for in campaigns:
# scripts/test --hypothesis-profile=campaign; their finds become examples. A busy machine is no defect.
CAMPAIGN = "campaign"
settings.register_profile(CAMPAIGN, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("repeatable", settings.get_profile(CAMPAIGN), derandomize=True)
settings.load_profile("repeatable")

# Of every client that a test makes without a time-out of its own: httpx's 5 s say how fast the machine is.
vars(httpx._config.DEFAULT_TIMEOUT_CONFIG).update(httpx.Timeout(waiting.PATIENCE).as_dict())


@pytest.hookimpl(tryfirst=True)  # the marks are read by the same hook of xdist
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Where several processes test: those share one that share a stack, or something of their module's."""
    for item in items:
        if isinstance(item, pytest.Function):
            fixtures = item._fixtureinfo.name2fixturedefs  # no public name leads to scopes
            if "stack" in fixtures:
                item.add_marker(pytest.mark.xdist_group("stack"))
            elif any(found[-1].scope == "module" for found in fixtures.values()):
                item.add_marker(pytest.mark.xdist_group(item.path.stem))


# ---- helpers ------------------------------------------------------------------------------------


@pytest.fixture
def seed(request: pytest.FixtureRequest) -> int:
    """Of a test's own dice: always the same, in a campaign another each time, which a failure shows."""
    drawn = random.randrange(1 << 32) if request.config.getoption("--hypothesis-profile") == CAMPAIGN else 0
    print(f"seed {drawn}")  # noqa: T201 - shown when the test fails
    return drawn


@pytest.fixture(scope="session")
def wait_until() -> Callable[..., Any]:
    """`wait_until(condition, within=60.0, what="")`: for synchronous tests and other processes."""
    return waiting.wait_until


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """`free_port()`: a TCP port of the loopback that nobody holds just now."""
    return running_stack.free_port


@pytest.fixture(scope="session")
def short_tmp() -> Iterator[Path]:
    """A folder for the whole session whose path is short enough for unix sockets."""
    folder = Path(tempfile.mkdtemp(prefix="tg-", dir="/tmp"))
    folder.chmod(0o711)  # root's PostgreSQL runs as another account
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def _prometheus_program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        missing = f"no {name} on PATH; scripts/test fetches it, or unset TIDEGATE_REQUIRE_PROMETHEUS"
        if os.environ.get("TIDEGATE_REQUIRE_PROMETHEUS") == "1":
            pytest.fail(missing)
        pytest.skip(missing)
    return path


@pytest.fixture(scope="session")
def prometheus_program() -> Callable[[str], str]:
    """`prometheus_program("promtool")`: its path; the test is skipped without it, unless it is demanded."""
    return _prometheus_program


# ---- Redis --------------------------------------------------------------------------------------


def _redis_server(kind: Any, folder: Path) -> Iterator[str]:
    server = embedded.EmbeddedRedis(kind, folder / f"redis-{kind}", folder)
    service = server.service()
    process = unsupervised.start(service, folder / f"redis-{kind}.log")
    yield server.url()
    unsupervised.stop(process, service)


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
    process = unsupervised.start(service, log)
    yield server
    unsupervised.stop(process, service)


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


@pytest.fixture(scope="module")
def start_stack(short_tmp: Path) -> Iterator[Callable[..., Stack]]:
    """`start_stack(*words, data=None, env=None)`: one more stack, stopped at the end of the module."""
    running: list[Stack] = []

    def start(*words: str, data: Path | None = None, env: dict[str, str] | None = None) -> Stack:
        folder = data or Path(tempfile.mkdtemp(prefix="stack-", dir=short_tmp))
        running.append(running_stack.start_stack(folder, *words, env=env))
        return running[-1]

    yield start
    for stack in running:
        stack.stop()


@pytest.fixture(scope="session")
def stack(short_tmp: Path) -> Iterator[Stack]:
    """The whole stack, shared by the session; leave it as you found it."""
    stack = running_stack.start_stack(short_tmp / "stack")
    yield stack
    stack.stop()
