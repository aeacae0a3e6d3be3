"""`tidegate up`: what stands in its way is one clear line; it stops what it starts, finds what it keeps."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops import datadir, logs, ports, secrets, stores
from ops.embedded import EmbeddedRedis
from ops.errors import OpsError, PortInUse
from ops.plan import Options, Plan

ROOT = Path(__file__).resolve().parents[2]
TIME = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  "  # before all lines of the console but `ready`


def _up(data: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ops.cli", "up", "--data", str(data), *words],
        env={**os.environ, **environment},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def _one_line(done: subprocess.CompletedProcess[str]) -> str:
    assert done.stderr.count("\n") == 1, done.stderr
    assert "ready" not in done.stdout
    return done.stderr


def _alive(pids: list[int]) -> list[int]:
    return [p for p in pids if psutil.pid_exists(p) and psutil.Process(p).status() != psutil.STATUS_ZOMBIE]


# ---- what stands in the way -------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["--port", "--admin-port"])
def test_a_port_in_use_is_named_with_its_holder(
    tmp_path: Path, free_port: Callable[[], int], option: str
) -> None:
    """One line with the port, who holds it and what to do: exit 4, nothing started."""
    other = "--admin-port" if option == "--port" else "--port"
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        port = door.getsockname()[1]
        done = _up(tmp_path / "data", option, str(port), other, str(free_port()))

    assert done.returncode == 4
    line = _one_line(done)
    assert f"port {port}" in line
    assert f"process {os.getpid()}" in line
    assert option in line
    assert not (tmp_path / "data").exists()


def test_a_port_in_use_takes_away_only_what_was_made(
    tmp_path: Path, taken: int, free_port: Callable[[], int]
) -> None:
    """The folders above were made for nothing; what the operator had stays."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").touch()
    words = ("--port", str(taken), "--admin-port", str(free_port()))

    for data in (tmp_path / "new" / "deep", tmp_path / "mine"):
        assert _up(data, *words).returncode == 4
    assert [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*"))] == ["mine", "mine/notes"]


def test_a_folder_that_can_not_be_made_is_one_line(tmp_path: Path) -> None:
    """--data below a file: exit 1, no stack trace."""
    (tmp_path / "file").touch()
    done = _up(tmp_path / "file" / "data")

    assert done.returncode == 1
    assert f"cannot write in {tmp_path}/file/data" in _one_line(done)


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too little room is seen before anything is started."""

    class Usage(NamedTuple):
        total: int
        used: int
        free: int

    monkeypatch.setattr("shutil.disk_usage", lambda _path: Usage(1 << 30, 1 << 30, 5 << 20))
    with pytest.raises(OpsError, match=r"is full: 5 MiB free, 256 MiB needed"):
        datadir.prepare(tmp_path / "data")


def test_fresh_never_empties_a_stranger(tmp_path: Path) -> None:
    """--fresh on a folder that no `up` made is refused, and its files stay."""
    (tmp_path / "thesis.tex").write_text("years of work")
    done = _up(tmp_path, "--fresh")

    assert done.returncode == 1
    assert "--fresh will not empty it" in _one_line(done)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_fresh_throws_data_away_and_keeps_identities(tmp_path: Path) -> None:
    """Databases, logs and state go; keys, token and lock stay, so that clients' settings stay good."""
    data = tmp_path / "data"
    datadir.prepare(data)
    secrets.load_or_make(data, {})
    for name in ("postgres/base", "redis-durable", "logs"):
        (data / name).mkdir(parents=True)
    (data / "postgres" / "PG_VERSION").touch()
    datadir.write_state(data, {"ports": {"shop": 1}})

    assert datadir.is_ours(data)
    datadir.empty(data)

    assert {path.name for path in data.iterdir()} == {".tidegate", "admin-token", "keys"}
    assert datadir.read_state(data) == {}


def test_a_damaged_state_file_is_as_good_as_none(tmp_path: Path) -> None:
    """Half a stack.json, or one of another shape, stops nothing."""
    for text in ("", "{", "[]", "null", '"x"'):
        (tmp_path / "stack.json").write_text(text)

        assert datadir.read_state(tmp_path) == {}


def test_a_missing_config_is_one_line(tmp_path: Path) -> None:
    """The config is looked for first."""
    done = _up(tmp_path / "data", "--config", str(tmp_path / "none.yaml"))

    assert done.returncode == 1
    assert "none.yaml not found" in _one_line(done)


def test_a_broken_config_stops_the_start_and_leaves_nothing(
    tmp_path: Path, short_tmp: Path, free_port: Callable[[], int]
) -> None:
    """The gateway's own words about its config come through, and every process is gone again."""
    config = tmp_path / "gateway.yaml"
    config.write_text("listen: {prot: 1}\n")
    data = short_tmp / "broken"
    words = ("--port", str(free_port()), "--admin-port", str(free_port()), "--config", str(config))
    done = _up(data, *words)

    assert done.returncode == 6, done.stdout + done.stderr
    line = _one_line(done)
    assert f"{config}:1: upstreams: missing" in line
    assert not (data / "postgres").exists()
    assert _below(data) == []


def _below(data: Path) -> list[psutil.Process]:
    """Processes whose command line or environment names the folder."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error):
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            environment = process.environ()
            mine = (
                environment.get("TIDEGATE_DATA_DIR") == str(data) and "PYTEST_CURRENT_TEST" not in environment
            )
            if mine or any(str(data) in word for word in process.cmdline()):
                found.append(process)
    return found


def test_a_second_up_on_the_same_folder_is_refused(stack: Any, free_port: Callable[[], int]) -> None:
    """One line with the process that holds the folder: exit 5, and the first goes on."""
    done = _up(stack.data_dir, "--port", str(free_port()), "--admin-port", str(free_port()))

    assert done.returncode == 5
    assert f"(process {stack.pid})" in _one_line(done)
    assert httpx.get(f"{stack.url}/api/products").status_code == 200


# ---- what it keeps, what it stops -----------------------------------------------------------------


def test_a_killed_stack_is_cleared_and_its_data_carried_on(
    start_stack: Callable[..., Any], short_tmp: Path, wait_until: Callable[..., Any]
) -> None:
    """SIGKILL of `up` leaves no process; the next has the same orders, token and addresses, and stops."""
    first = start_stack(data=short_tmp / "kept")
    http = httpx.Client(base_url=first.url)
    http.post("/api/session", json={})
    body = {"sku": "steam-50", "quantity": 1, "email": "ann@example.org"}
    order = http.post("/api/orders", json=body, headers={"Idempotency-Key": "k"}).json()
    pids = [*first.state()["pids"].values()]
    assert len(pids) == 7
    os.kill(first.pid, signal.SIGKILL)
    first.process.wait()
    wait_until(lambda: not _alive(pids), what="every process gone")

    second = start_stack(data=short_tmp / "kept")
    found = httpx.get(f"{second.url}/api/orders/{order['order_id']}", params={"token": order["token"]})
    pids = [*second.state()["pids"].values()]
    status = second.stop()

    assert found.status_code == 200
    assert second.admin_token == first.admin_token
    assert second.sandbox_url == first.sandbox_url
    assert status == 0
    assert _alive(pids) == []
    # What was killed with its group may need a turn of a busy machine to be gone.
    wait_until(lambda: not _below(short_tmp / "kept"), within=10.0, what="nothing is left behind")


def test_ready_is_one_line_with_every_address(stack: Any) -> None:
    """What a script waits for: the shop, the admin API, the sandbox, and where the token is."""
    lines = (stack.data_dir / "console.log").read_text().splitlines()
    ready = [line for line in lines if line.startswith("ready")]

    assert len(ready) == 1
    assert all(re.match(TIME, line) for line in lines if line not in ready)
    for word in (stack.url, stack.admin_url, stack.sandbox_url, str(stack.data_dir / "admin-token")):
        assert word in ready[0]
    assert stack.admin_token not in "\n".join(lines)


def test_secrets_are_private_and_stay(stack: Any) -> None:
    """Only their owner reads them, and no log or state file repeats them."""
    names = ["admin-token", "stack.json", "keys/card-key", "keys/session.pem", "keys/sandbox-secret"]
    hidden = [stack.admin_token]
    for path in [*(stack.data_dir / "logs").iterdir(), stack.data_dir / "sandbox.sqlite3"]:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path
    for name in names:
        assert stat.S_IMODE((stack.data_dir / name).stat().st_mode) == 0o600, name
        if name.startswith("keys/"):
            hidden.append((stack.data_dir / name).read_text().strip().splitlines()[-1])
    for log in [*(stack.data_dir / "logs").iterdir(), stack.data_dir / "stack.json"]:
        text = log.read_text(errors="replace")
        assert not [secret for secret in hidden if secret in text], log


def test_the_console_tells_of_config_edits(stack: Any, wait_until: Callable[..., Any]) -> None:
    """A broken edit and a good one, each told on the console of `up`."""
    console = stack.data_dir / "console.log"
    start = len(console.read_text())
    before = stack.config.read_text()
    line = before.count("\n") + 2

    def told(pattern: str) -> Any:
        return re.search(pattern, console.read_text()[start:], re.MULTILINE)

    try:
        stack.edit(before + "\nlimts: {}\n")
        wait_until(lambda: told(rf"^{TIME}  \S*{stack.config.name}:{line}: limts: "), what="the mistake")
        stack.edit(before.replace("rate: 1000/second", "rate: 1001/second"))
        good = rf"^{TIME}gateway: file changed: configuration \d+ holds in "
        wait_until(lambda: told(good), what="the good edit")
    finally:
        stack.edit(before)
    assert told(rf"^{TIME}gateway: file changed: the new configuration is not used; the one before holds$")


# ---- small parts ------------------------------------------------------------------------------------


def test_secrets_are_made_once(tmp_path: Path) -> None:
    """The second start reads what the first one made; the environment wins over both."""
    first = secrets.load_or_make(tmp_path, {})
    second = secrets.load_or_make(tmp_path, {})
    told = secrets.load_or_make(tmp_path, {"TIDEGATE_ADMIN_TOKEN": "mine", "TIDEGATE_CARD_KEY": "k9:x"})

    assert first == second
    assert first.admin_token not in repr(first)
    assert (told.admin_token, told.card_key) == ("mine", "k9:x")


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as door:
        door.bind(("127.0.0.1", 0))
        door.listen()
        yield door.getsockname()[1]


def test_a_taken_port_gives_way_to_a_free_one(taken: int) -> None:
    """Ports the operator did not ask for shift; none is given twice."""
    given: set[int] = set()
    chosen = [ports.choose(taken, given), ports.choose(None, given), ports.choose(None, given)]

    assert taken not in chosen
    assert len(set(chosen)) == 3
    with pytest.raises(PortInUse, match=str(taken)):
        ports.require(taken, "gateway", "--port")


def test_a_free_port_is_none_that_outgoing_connections_take() -> None:
    """Between choosing a port and listening there, a client of somebody else must not be given it."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])

    assert all(ports.choose(None, set()) < first for _ in range(50))


def test_a_moved_port_is_told(
    short_tmp: Path, taken: int, free_port: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    """A port that this folder had before, held by somebody else now: one line with the new one."""
    data = short_tmp / "moved"
    datadir.prepare(data)
    options = Options(data, free_port(), free_port())
    plan = Plan.make(options, data, ROOT / "config/gateway.yaml", {"sandbox": taken})

    said = capsys.readouterr().out
    assert said.count("\n") == 1
    assert re.match(rf"{TIME}port {taken} of the sandbox is in use by process {os.getpid()} ", said)
    assert said.endswith(f"; it takes {plan.ports['sandbox']}\n")


@given(pieces=st.lists(st.binary(max_size=20)))
def test_a_followed_log_survives_any_bytes(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[bytes]
) -> None:
    """However its bytes come, only whole records of the one logger are told, each once."""
    log = tmp_path_factory.mktemp("log") / "x.log"
    follower = logs.Follower(log, "a.b")
    record = b"\n2026-11-23 13:00:00,123 ERROR a.b: not used:\n/etc/x:3: wrong\n"
    heard = []
    for piece in [*pieces, record, b"2026-11-23 13:00:00,123 INFO a: more:\n  else\n"]:
        with log.open("ab") as file:
            file.write(piece)
        heard += follower.read()

    assert heard == ["not used", "  /etc/x:3: wrong"]
    os.truncate(log, 0)
    assert follower.read() == []
    log.write_bytes(record[1:10])
    assert follower.read() == []
    log.write_bytes(record[1:])
    assert follower.read() == ["not used", "  /etc/x:3: wrong"]


def test_stores_of_the_environment_win(short_tmp: Path) -> None:
    """A URL that is given needs no embedded server."""
    given = {
        "TIDEGATE_REDIS_URL": "redis://a/0",
        "TIDEGATE_STOCK_REDIS_URL": "redis://b/0",
        "TIDEGATE_DATABASE_URL": "postgresql://c/d",
    }
    urls, servers = stores.choose_stores(short_tmp / "given", given)
    _, embedded = stores.choose_stores(short_tmp / "given", {})

    assert servers == ()
    assert urls == {**given, "TIDEGATE_SESSION_REDIS_URL": "redis://a/0"}
    assert len(embedded) == 3


def test_sessions_get_a_redis_of_their_own_when_asked_for(short_tmp: Path) -> None:
    """One more server, for nothing else; a URL that is given wins."""
    folder, theirs = short_tmp / "own", {"TIDEGATE_SESSION_REDIS_URL": "redis://s/0"}
    urls, servers = stores.choose_stores(folder, {}, own_sessions=True)
    given, without = stores.choose_stores(folder, theirs, own_sessions=True)

    assert [server.kind for server in servers if isinstance(server, EmbeddedRedis)] == [
        "durable",
        "sessions",
        "volatile",
    ]
    assert urls["TIDEGATE_SESSION_REDIS_URL"].startswith("unix://")
    assert "redis-sessions.sock" in urls["TIDEGATE_SESSION_REDIS_URL"]
    assert given["TIDEGATE_SESSION_REDIS_URL"] == "redis://s/0"
    assert len(without) == 3
