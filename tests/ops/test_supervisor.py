"""The supervisor: order, readiness, restarts, and nothing left behind."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops import supervisor as module
from ops.errors import StartFailed
from ops.logs import rotate
from ops.service import Service
from ops.supervisor import Interrupted, Supervisor, restart_delay

SLEEPER = "import signal, sys, pathlib; pathlib.Path(sys.argv[1]).touch(); signal.pause()"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEPER
PARENT = (  # a service with a child of its own that ignores SIGTERM, as a hung gateway worker would
    "import signal, subprocess, sys, pathlib\n"
    "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.signal(15, signal.SIG_IGN);"
    " print(1, flush=True); signal.pause()'], stdout=subprocess.PIPE)\n"
    "child.stdout.readline()\n"
    "pathlib.Path(sys.argv[1]).write_text(str(child.pid)); signal.pause()"
)


def _service(folder: Path, name: str, code: str = SLEEPER, **more: Any) -> Service:
    mark = folder / f"{name}.mark"
    return Service(
        name,
        (sys.executable, "-c", code, str(mark)),
        ready=lambda: mark.exists() and mark.stat().st_size >= (code == PARENT),
        prepare=lambda: mark.unlink(missing_ok=True),
        **more,
    )


def _alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_services_start_in_order_and_stop_in_reverse(tmp_path: Path) -> None:
    """What others stand on comes first and leaves last."""
    order: list[str] = []
    code = (
        "import signal, sys, pathlib; mark = pathlib.Path(sys.argv[1])\n"
        "stops = mark.parent / 'stops'\n"
        "signal.signal(15, lambda *_: (stops.open('a').write(mark.stem + ' '), sys.exit()))\n"
        "mark.touch(); signal.pause()"
    )
    with Supervisor(tmp_path / "logs", order.append) as supervisor:
        for name in ("first", "second", "third"):
            supervisor.start(_service(tmp_path, name, code))

    assert [line.split()[0] for line in order] == ["first", "second", "third"]
    assert (tmp_path / "stops").read_text().split() == ["third", "second", "first"]


def test_a_service_that_falls_is_started_again(tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    """SIGKILL is noticed, said, and answered by a restart."""
    lines: list[str] = []
    pids: dict[str, int] = {}
    with Supervisor(tmp_path / "logs", lines.append, pids.update) as supervisor:
        supervisor.start(_service(tmp_path, "shop"))
        first = pids["shop"]
        os.kill(first, signal.SIGKILL)
        _run_until(supervisor, wait_until, lambda: "shop serves again" in lines)

        assert pids["shop"] != first
    assert "shop killed by SIGKILL; starting it again in 0.2 s" in lines


def _run_until(supervisor: Supervisor, wait_until: Callable[..., Any], condition: Callable[[], Any]) -> None:
    def watch() -> None:
        try:
            wait_until(condition)
        finally:
            supervisor.request_stop()

    watcher = threading.Thread(target=watch)
    watcher.start()
    supervisor.run()
    watcher.join()
    assert condition()


def test_a_failed_start_says_why_and_leaves_nothing(tmp_path: Path) -> None:
    """The last words of the process are in the error, and the others are stopped."""
    pids: list[int] = []
    bad = _service(tmp_path, "bad", "print('no disk'); raise SystemExit(3)")
    with Supervisor(tmp_path / "logs", lambda _line: None, lambda p: pids.extend(p.values())) as supervisor:
        supervisor.start(_service(tmp_path, "good"))
        with pytest.raises(StartFailed, match=r"bad ended with status 3 \(no disk\)"):
            supervisor.start(bad)

    assert not any(_alive(pid) for pid in pids)


def test_a_service_that_never_gets_ready_is_given_up(tmp_path: Path) -> None:
    """Readiness has a limit, and the error names the log."""
    with (
        pytest.raises(StartFailed, match=r"mute was not ready after 0\.1 s .*mute\.log"),
        Supervisor(tmp_path / "logs", lambda _line: None) as supervisor,
    ):
        supervisor.start(_service(tmp_path, "mute", "import signal; signal.pause()", ready_within=0.1))


def test_stopping_while_starting_ends_the_start(tmp_path: Path) -> None:
    """Ctrl-C during a slow start does not wait for it."""
    slow = _service(tmp_path, "slow", "import signal; signal.pause()")
    with Supervisor(tmp_path / "logs", lambda _line: None) as supervisor:
        supervisor.request_stop()
        with pytest.raises(Interrupted):
            supervisor.start(slow)


def test_a_step_must_succeed(tmp_path: Path) -> None:
    """A migration that fails stops the start with its last words."""
    with Supervisor(tmp_path / "logs", lambda _line: None) as supervisor:
        supervisor.once("fine", (sys.executable, "-c", "pass"), {})
        with pytest.raises(StartFailed, match=r"migrate ended with status 1 \(ValueError: no table\)"):
            supervisor.once("migrate", (sys.executable, "-c", "raise ValueError('no table')"), {})


def test_whoever_ignores_sigterm_is_killed(tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    """Stopping has an end, whatever the services think of it, and takes their children along."""
    pids: dict[str, int] = {}
    with Supervisor(tmp_path / "logs", lambda _line: None, pids.update, stop_within=0.5) as supervisor:
        supervisor.start(_service(tmp_path, "stubborn", STUBBORN), _service(tmp_path, "parent", PARENT))
        all_pids = [*pids.values(), int((tmp_path / "parent.mark").read_text())]

    assert len(all_pids) == 3
    assert not any(_alive(pid) for pid in pids.values())
    # Killed, and nobody's whom the supervisor could wait for: gone with its next turn.
    wait_until(lambda: not _alive(all_pids[-1]), what="the child that ignores SIGTERM is gone")


def test_a_killed_supervisor_leaves_nothing_behind(tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    """SIGKILL of the supervisor: its children and their children are cleared."""
    code = (
        "import sys; from pathlib import Path; from ops.service import Service; from ops import supervisor\n"
        "folder, code = Path(sys.argv[1]), sys.argv[2]; mark = folder / 'parent.mark'\n"
        "argv = (sys.executable, '-c', code, str(mark))\n"
        "with supervisor.Supervisor(folder / 'logs', lambda _: None) as s:\n"
        "    s.start(Service('parent', argv, ready=lambda: mark.exists() and bool(mark.read_text())))\n"
        "    print(s._children[0].process.pid, mark.read_text(), s._watchdog.pid, flush=True); s.run()\n"
    )
    argv = [sys.executable, "-c", code, str(tmp_path), PARENT]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        parent.kill()

    assert len(pids) == 3
    wait_until(lambda: not any(_alive(pid) for pid in pids), what="all gone")


@given(st.integers(1, 10_000))
def test_restart_delays_grow_and_are_bounded(falls: int) -> None:
    """Exponential back-off, never shorter than the one before, never beyond the limit."""
    assert module.FIRST_DELAY <= restart_delay(falls) <= restart_delay(falls + 1) <= module.LAST_DELAY


def test_a_grown_log_is_set_aside_under_its_writer(tmp_path: Path) -> None:
    """The writer goes on in the emptied file; one older piece is kept."""
    log = tmp_path / "shop.log"
    with log.open("ab", buffering=0) as writer:
        writer.write(b"x" * 100)
        rotate(log, limit=50)
        writer.write(b"new")
        rotate(log, limit=50)

    assert log.read_bytes() == b"new"
    assert (tmp_path / "shop.log.1").read_bytes() == b"x" * 100


def test_logs_are_private(tmp_path: Path) -> None:
    """Also a folder that an earlier release left open to all."""
    for folder in (tmp_path / "new", tmp_path / "old"):
        if folder.name == "old":
            folder.mkdir(mode=0o755)
        with Supervisor(folder, lambda _line: None):
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
