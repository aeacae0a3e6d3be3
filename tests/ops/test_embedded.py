"""Embedded Redis and PostgreSQL: found, started, kept apart, and never left behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import psycopg
import pytest
import redis

from ops import embedded, programs, spawn
from ops.errors import OpsError, ServerMissing, StartFailed
from tests import unsupervised


def test_the_durable_redis_keeps_every_write(redis_durable_url: str) -> None:
    """Stock and streams live where each write is synced and nothing is evicted."""
    with redis.Redis.from_url(redis_durable_url, decode_responses=True) as client:
        settings = client.config_get("append*", "maxmemory-policy")

    assert settings["appendonly"] == "yes"
    assert settings["appendfsync"] == "always"
    assert settings["maxmemory-policy"] == "noeviction"


def test_the_volatile_redis_is_bounded(redis_volatile_url: str) -> None:
    """Limits and sessions live in bounded memory, and only what has a TTL may go."""
    with redis.Redis.from_url(redis_volatile_url, decode_responses=True) as client:
        settings = client.config_get("appendonly", "maxmemory", "maxmemory-policy", "save")

    assert settings["appendonly"] == "no"
    assert settings["save"] == ""
    assert int(settings["maxmemory"]) == 256 << 20
    assert settings["maxmemory-policy"] == "volatile-lru"


def test_no_server_listens_on_tcp(redis_durable_url: str, database_url: str) -> None:
    """Only unix sockets in a folder of ours: nothing to reach from outside."""
    with redis.Redis.from_url(redis_durable_url) as client:
        assert client.config_get("port")["port"] == "0"
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SHOW listen_addresses").fetchone() == ("",)


def test_each_test_has_a_database_of_its_own(database_url: str) -> None:
    """A fresh database is empty and speaks UTF-8."""
    with psycopg.connect(database_url) as connection:
        tables = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone()
        encoding = connection.execute("SHOW server_encoding").fetchone()

    assert tables == (0,)
    assert encoding == ("UTF8",)


def test_data_survives_a_kill_and_creating_again_changes_nothing(short_tmp: Path) -> None:
    """SIGKILL of PostgreSQL loses no committed row; `create` leaves an existing database alone."""
    base = short_tmp / "crash"
    server = embedded.EmbeddedPostgres(base / "postgres", embedded.socket_folder(base))
    log = base / "postgres.log"
    server.create(log)
    service = server.service()
    process = unsupervised.start(service, log)
    server.create_database()
    with psycopg.connect(server.url()) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    process.kill()
    process.wait()

    server.create(log)
    process = _start_when_backends_are_gone(service, log)
    server.create_database()
    with psycopg.connect(server.url()) as connection:
        row = connection.execute("SELECT answer FROM kept").fetchone()
    unsupervised.stop(process, service)

    assert row == (42,)


def _start_when_backends_are_gone(service: Any, log: Path) -> subprocess.Popen[bytes]:
    for _ in range(50):  # the orphans of a killed postmaster leave within moments
        try:
            return unsupervised.start(service, log)
        except StartFailed:
            continue
    return unsupervised.start(service, log)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes accounts")
def test_root_hands_postgres_to_an_account_even_behind_closed_doors(short_tmp: Path) -> None:
    """A checkout below a folder like /root works, and the server is still not root."""
    closed = short_tmp / "closed"
    closed.mkdir(mode=0o700)
    base = closed / "data"
    server = embedded.EmbeddedPostgres(base / "postgres", embedded.socket_folder(base), durable=False)
    server.create(base / "log")
    service = server.service()
    process = unsupervised.start(service, base / "log")
    owner = psutil.Process(process.pid).uids().real
    unsupervised.stop(process, service)

    assert owner != 0


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes accounts")
def test_an_account_sees_programs_behind_closed_doors(short_tmp: Path) -> None:
    """It starts them and finds them by access(2); of root's powers it has that one."""
    closed = short_tmp / "doors"
    (closed / "bin").mkdir(parents=True)
    shutil.copy("/bin/sh", closed / "bin" / "sh")
    closed.chmod(0o700)
    account = spawn.unprivileged()
    assert account is not None
    assert not spawn.may_enter(closed / "bin", account)
    script = f"test -x {closed}/bin/sh && grep -E '^(Uid|CapEff|CapPrm)' /proc/self/status"
    with (short_tmp / "doors.log").open("wb") as out:
        argv = [str(closed / "bin" / "sh"), "-c", script]
        status = spawn.spawn(argv, stdout=out, account=replace(account, pass_closed_doors=True)).wait()

    words = (short_tmp / "doors.log").read_text().split()
    assert status == 0
    assert words[1] == str(account.uid)
    assert words[words.index("CapPrm:") + 1] == words[words.index("CapEff:") + 1] == "0000000000000002"


@pytest.mark.skipif(sys.platform != "linux", reason="parent-death signals are Linux's")
def test_servers_die_with_their_parent(short_tmp: Path, wait_until: Callable[..., Any]) -> None:
    """SIGKILL of the parent leaves no server behind."""
    base = short_tmp / "orphans"
    code = (
        "import sys, time; from pathlib import Path\n"
        "from ops import embedded; from tests import unsupervised\n"
        "base = Path(sys.argv[1]); run = embedded.socket_folder(base)\n"
        "pg = embedded.EmbeddedPostgres(base / 'postgres', run, durable=False); pg.create(base / 'log')\n"
        "cache = embedded.EmbeddedRedis('volatile', base / 'redis', run)\n"
        "pids = [unsupervised.start(s, base / 'log').pid for s in (pg.service(), cache.service())]\n"
        "print(*pids, flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(base)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        pids = [int(pid) for pid in parent.stdout.readline().split()]
        parent.send_signal(signal.SIGKILL)

    assert len(pids) == 2
    wait_until(lambda: not any(_alive(pid) for pid in pids), what="servers gone")


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_long_path_gets_a_short_socket_folder(tmp_path: Path) -> None:
    """Unix socket paths are limited; a deep checkout works none the less."""
    deep = tmp_path / ("d" * 60) / ("e" * 60)

    run = embedded.socket_folder(deep)
    again = embedded.socket_folder(deep)
    run.rmdir()

    assert len(str(run)) < 60
    assert run == again


def test_a_short_path_keeps_its_sockets_inside(short_tmp: Path) -> None:
    """Normally everything is found below --data."""
    assert embedded.socket_folder(short_tmp / "near") == short_tmp / "near" / "run"


def test_a_missing_server_names_all_three_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wheel, PATH or a URL: the error says how to go on."""
    monkeypatch.setattr(programs.importlib.util, "find_spec", lambda _name: None)
    monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(ServerMissing, match=r"wheel.*PATH.*TIDEGATE_REDIS_URL"):
        programs.find_redis()


def test_a_server_that_ends_says_why(short_tmp: Path) -> None:
    """The last line of its log is in the error."""
    server = embedded.EmbeddedRedis("durable", short_tmp / "bad", short_tmp / "no-such-folder")

    with pytest.raises(StartFailed, match=r"redis-durable ended with status 1 \(.+\)"):
        unsupervised.start(server.service(), short_tmp / "bad.log")


def test_a_program_that_does_not_exist_is_one_clear_error() -> None:
    """No stack trace for a missing program."""
    with pytest.raises(OpsError, match="cannot start /nonexistent/program"):
        spawn.spawn(["/nonexistent/program"], stdout=subprocess.DEVNULL)
