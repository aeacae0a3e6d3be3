"""Lines that cannot be forged, written by a thread that cannot hold up a request."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.access_log import AccessLog, record
from gateway.exchange import Exchange


async def _nothing() -> dict[str, Any]:
    return {"type": "http.disconnect"}


def exchange(**words: Any) -> Exchange:
    made = Exchange(
        method=words.pop("method", "GET"),
        target=b"/api/orders/7?token=s3cret-token",
        path=words.pop("path", "/api/orders/7"),
        headers=[(b"cookie", b"session=s3cret-cookie"), (b"authorization", b"Bearer s3cret-bearer")],
        host=b"shop.test",
        address=words.pop("address", "2001:db8::7"),
        receive=_nothing,
        started=0.0,
        request_id=b"ab" * 16,
    )
    for name, value in words.items():
        setattr(made, name, value)
    return made


# ---- a line --------------------------------------------------------------------------------


def test_a_line_says_what_happened() -> None:
    """One JSON object with the request, who asked, what was answered, and how long it took."""
    asked = exchange(user="u-42", route="/api/orders/{id}", outcome="proxied", upstream_seconds=0.0125)
    line = json.loads(record(asked, 200, 1234, 0.5))
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "request_id": "ab" * 16,
        "address": "2001:db8::7",
        "user": "u-42",
        "method": "GET",
        "path": "/api/orders/7",
        "route": "/api/orders/{id}",
        "status": 200,
        "outcome": "proxied",
        "bytes_in": 0,
        "bytes_out": 1234,
        "seconds": 0.5,
        "upstream_seconds": 0.0125,
    }


def test_a_line_holds_no_secret() -> None:
    """Neither the query's token nor cookies nor authorization, even when the path still has its query."""
    assert b"s3cret" not in record(exchange(path="/api/orders/7?token=s3cret-token"), 200, 0, 0.0)


ANYTHING = st.text(st.characters(codec=None, exclude_categories=()))  # lone surrogates and controls too


@given(ANYTHING, ANYTHING, ANYTHING, st.none() | ANYTHING)
def test_a_line_cannot_be_forged(method: str, path: str, address: str, user: str | None) -> None:
    """Whatever a client sends, it is one line of ASCII that reads back as what was sent."""
    line = record(exchange(method=method, path=path, address=address, user=user), 400, 0, 0.001)
    assert line.count(b"\n") == 1
    assert line.endswith(b"\n")
    assert line.isascii()
    read = json.loads(line)
    assert (read["method"], read["address"], read["user"]) == (method, address, user)
    assert read["path"] == path.split("?")[0]


def test_a_line_has_a_bounded_length() -> None:
    """A path of megabytes does not fill the disk."""
    assert len(record(exchange(path="/" + "ü" * 10**6, user="u" * 10**6), 414, 0, 0.0)) < 10_000


# ---- the file ------------------------------------------------------------------------------


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the log goes."""
    return tmp_path / "access.log"


@pytest.fixture
def log(file: Path) -> Iterator[AccessLog]:
    """A log into that file."""
    made = AccessLog(file)
    yield made
    made.close()


def test_closing_writes_everything(log: AccessLog, file: Path) -> None:
    """In order, nothing lost; a line after that is dropped and counted."""
    lines = [b"%d\n" % number for number in range(5000)]
    for line in lines:
        log.write(line)
    log.close()
    log.close()
    assert file.read_bytes() == b"".join(lines)
    log.write(b"late\n")
    assert log.dropped == 1


def test_lines_appear_without_closing(log: AccessLog, file: Path, wait_until: Callable[..., Any]) -> None:
    """A single line is not held back."""
    log.write(b"one\n")
    wait_until(lambda: file.read_bytes() == b"one\n")


def test_it_appends(file: Path) -> None:
    """A restart keeps what was there; strangers may not read it."""
    for _ in range(2):
        log = AccessLog(file)
        log.write(b"line\n")
        log.close()
    assert file.read_bytes() == b"line\nline\n"
    assert file.stat().st_mode & 0o007 == 0


@pytest.mark.parametrize("announced", [True, False])
def test_rotation_loses_nothing(
    log: AccessLog, file: Path, wait_until: Callable[..., Any], announced: bool
) -> None:
    """Moved away, with or without a SIGHUP: a new file is begun and no line is lost."""
    written = 0
    old = file.with_suffix(".1")
    log.write(b"0\n")
    wait_until(lambda: file.stat().st_size > 0)
    file.rename(old)
    if announced:
        log.reopen()

    def line_in_new_file() -> bool:
        nonlocal written
        written += 1
        log.write(b"%d\n" % written)
        return file.exists() and file.stat().st_size > 0

    wait_until(line_in_new_file)
    log.close()
    assert (old.read_bytes() + file.read_bytes()).split() == [b"%d" % n for n in range(written + 1)]
    assert log.dropped == 0


# ---- a disk in trouble ---------------------------------------------------------------------


@pytest.fixture
def pipe(tmp_path: Path, wait_until: Callable[..., Any]) -> Iterator[tuple[Path, int]]:
    """A pipe in place of a file, small and read by nobody: a disk that hangs."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    fcntl.fcntl(reader, fcntl.F_SETPIPE_SZ, 4096)
    yield path, reader
    os.close(reader)  # a thread left behind gets a broken pipe, and ends
    wait_until(lambda: all(thread.name != "access-log" for thread in threading.enumerate()))


def test_a_hanging_disk_holds_up_nobody(pipe: tuple[Path, int], wait_until: Callable[..., Any]) -> None:
    """Writers go on at once, the buffer stays bounded, what is lost is counted, what is held arrives."""
    path, reader = pipe
    log = AccessLog(path, buffer=500)
    line, sent = b"x" * 99 + b"\n", 20_000
    for _ in range(sent):
        log.write(line)  # would hang here, and run into the test's time limit
    assert log.dropped > 0

    received = b""

    def drained() -> bool:
        nonlocal received
        with contextlib.suppress(BlockingIOError):
            received += os.read(reader, 1 << 20)
        return len(received) == (sent - log.dropped) * len(line)

    wait_until(drained)
    assert received == line * (sent - log.dropped)
    log.close()


def test_closing_leaves_a_hanging_disk_behind(pipe: tuple[Path, int]) -> None:
    """A gateway that stops does not wait for ever."""
    log = AccessLog(pipe[0], buffer=500)
    for _ in range(500):
        log.write(b"x" * 99 + b"\n")
    log.close(within=0.1)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_counted_and_reported_once(
    wait_until: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Every line lost is counted; the operator hears of it once, not once a line."""
    log = AccessLog("/dev/full")
    for number in range(1, 6):
        log.write(b"line\n")
        wait_until(lambda n=number: log.dropped == n)  # type: ignore[misc]  # mypy can't type the default
    log.close()
    assert [message for message in caplog.messages if "/dev/full" in message] == [
        "access log /dev/full: No space left on device; lines are dropped until it can be written again"
    ]


def test_a_disk_that_recovers_is_written_again(
    log: AccessLog, file: Path, wait_until: Callable[..., Any]
) -> None:
    """The folder vanishes and comes back: lines flow again without a restart."""
    folder = file.parent
    away = folder.with_name(folder.name + "-away")
    folder.rename(away)
    log.reopen()
    count = 0

    def lost() -> bool:
        log.write(b"lost\n")
        return log.dropped > 0

    wait_until(lost)
    folder.mkdir()

    def written() -> bool:
        nonlocal count
        count += 1
        log.write(b"line\n")
        return file.exists() and b"line\n" in file.read_bytes()

    wait_until(written)


def test_a_file_that_cannot_be_opened_is_known_at_once(tmp_path: Path) -> None:
    """A typing error in the config is told when it is read, not discovered the next morning."""
    with pytest.raises(FileNotFoundError):
        AccessLog(tmp_path / "none" / "access.log")


def test_standard_output() -> None:
    """`-` writes to standard output, and leaves it open for others."""
    code = (
        "from gateway.access_log import AccessLog\n"
        "log = AccessLog('-'); log.write(b'line\\n'); log.close(); print('after')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=True)
    assert done.stdout == b"line\nafter\n"


def test_lines_of_several_workers_stay_whole(file: Path) -> None:
    """Processes that share a file never cut each other's lines."""
    code = (
        "import sys\n"
        "from gateway.access_log import AccessLog\n"
        "log = AccessLog(sys.argv[1])\n"
        "for n in range(3000): log.write((sys.argv[2] * 200 + '\\n').encode())\n"
        "log.close()"
    )
    workers = [subprocess.Popen([sys.executable, "-c", code, str(file), name]) for name in "abc"]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    lines = file.read_bytes().split()
    assert len(lines) == 9000
    assert set(lines) == {name * 200 for name in (b"a", b"b", b"c")}


# ---- a cut line ----------------------------------------------------------------------------


def test_a_line_cut_short_does_not_swallow_the_next(tmp_path: Path) -> None:
    """Room for half a line only (a file size limit): later lines begin on a line of their own."""
    file = tmp_path / "limited.log"
    code = (
        "import resource, signal, sys, time\n"
        "from gateway.access_log import AccessLog\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "log = AccessLog(sys.argv[1])\n"
        "hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (25, hard))\n"
        "for _ in range(3): log.write(b'0123456789\\n')\n"
        "while not log.dropped: time.sleep(0.01)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))\n"
        "log.write(b'after\\n'); log.close(); print(log.dropped)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(file)], capture_output=True, timeout=30, check=True
    )
    assert file.read_bytes() == b"0123456789\n0123456789\n012\nafter\n"
    assert done.stdout == b"1\n"
