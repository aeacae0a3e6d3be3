"""The overload benchmark: its backend, its crowd, its figures, its gates; never its timing."""

from __future__ import annotations

import math
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.overload.__main__ import main
from benchmarks.overload.backend import Capacity
from benchmarks.overload.crowd import BROKEN, FALLBACK, GAVE_UP, OK, Crowd, Phase, Plan, Records
from benchmarks.overload.findings import find
from benchmarks.overload.gates import Bare, NginxGate, SplitNginxGate, TidegateGate
from benchmarks.overload.scene import Pulse, Scene
from benchmarks.processes import free_port
from benchmarks.report import percentile
from benchmarks.site import Site
from gateway import config
from tests.waiting import PATIENCE, wait_until

# ---- the backend -----------------------------------------------------------------------------


@given(st.integers(1, 20), st.lists(st.floats(0, 0.05), min_size=1, max_size=200))
def test_the_backend_works_on_so_many_at_once(slots: int, gaps: list[float]) -> None:
    """At no moment on more than its slots, and it never idles while somebody waits."""
    capacity, now, spans = Capacity(slots, 0.02), 0.0, []
    for gap in gaps:
        now += gap
        ends = capacity.take(now)
        assert ends >= now + 0.01
        spans.append((now, ends))
    for _, ends in spans:  # each is worked on in the last 10 ms before its end, at the least
        assert sum(end - 0.01 < ends < end for _, end in spans) <= slots
    assert max(end for _, end in spans) <= now + 0.03 * math.ceil(len(gaps) / slots)


def test_the_backend_that_degrades_does_less_the_more_it_holds() -> None:
    """Twice the service time at 66 held beyond 16 slots, and no more than its worst."""
    well, sick = Capacity(16, 0.02), Capacity(16, 0.02, 0.02)
    assert [well.take(0.0) for _ in range(16)] == [sick.take(0.0) for _ in range(16)]
    last_well, last_sick = ([one.take(0.0) for _ in range(200)][-1] for one in (well, sick))
    assert last_sick > 2 * last_well


# ---- the crowd -------------------------------------------------------------------------------


@contextmanager
def server(answer: Callable[[socket.socket, bytes], None]) -> Iterator[tuple[int, list[bytes]]]:
    """A server that answers each request of a connection in a thread of its own."""
    seen: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0), backlog=256) as door:

        def serve(line: socket.socket) -> None:
            with line:
                try:
                    while data := line.recv(4096):
                        seen.append(data)
                        answer(line, data)
                except OSError:
                    pass

        def accept() -> None:
            try:
                while True:
                    threading.Thread(target=serve, args=(door.accept()[0],), daemon=True).start()
            except OSError:
                pass

        threading.Thread(target=accept, daemon=True).start()
        yield door.getsockname()[1], seen
        door.shutdown(socket.SHUT_RDWR)


def _ok(line: socket.socket, _: bytes) -> None:
    line.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n")
    line.sendall(b"ok")


def plan(port: int, **more: Any) -> Plan:
    return Plan(port, (Phase(400, 0.25), Phase(100, 0.25)), **{"deadline": PATIENCE} | more)


def test_everybody_is_answered_and_told_apart() -> None:
    """Answers that come in pieces, by priority and user, over connections that are used again."""
    with server(_ok) as (port, seen):
        records = Crowd(plan(port, users=3)).run()
    assert set(records.status) == {OK}
    assert len(records) == len(seen)
    for n, data in enumerate(sorted(seen)):
        assert data.startswith((b"GET /critical/", b"GET /normal/", b"GET /optional/")), n
        assert b"X-Forwarded-For: 10.1.0." in data
    assert {data.partition(b"10.1.0.")[2][:1] for data in seen} == {b"0", b"1", b"2"}


def test_nobody_waits_for_anybody() -> None:
    """Before a server that never answers all come all the same; each leaves when its time is over."""
    with server(lambda *_: None) as (port, seen):
        records = Crowd(plan(port, deadline=3.0)).run()
        wait_until(lambda: len(seen) == len(records), what="all have come")
    assert set(records.status) == {GAVE_UP}
    assert all(took >= 3.0 for took in records.took)


def test_held_connections_carry_requests_in_turn() -> None:
    """All are open before the first comes, and none is opened later; each asks as it is told to."""
    used: list[int] = []

    def ok(line: socket.socket, data: bytes) -> None:
        used.append(line.getpeername()[1])
        _ok(line, data)

    with server(ok) as (port, seen):
        records = Crowd(plan(port, held=7, users=2, request="GET /{user} HTTP/1.1\r\n\r\n")).run()
    assert set(records.status) == {OK}
    assert set(seen) == {b"GET /0 HTTP/1.1\r\n\r\n", b"GET /1 HTTP/1.1\r\n\r\n"}
    times = [used.count(one) for one in set(used)]
    assert len(times) == 7
    # In turn, but for those whose answer is late.
    assert min(times) > len(records) / 14


def test_who_finds_the_door_shut_is_broken() -> None:
    """Nobody listens."""
    assert set(Crowd(plan(free_port())).run().status) == {BROKEN}


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\nconnection: close\r\n\r\n", 503),
        (b"HTTP/1.1 200 OK\r\nTidegate-Degraded: extras\r\nContent-Length: 0\r\n\r\n", FALLBACK),
    ],
)
def test_what_is_no_answer_of_the_backend_is_told_apart(answer: bytes, status: int) -> None:
    """A refusal, and a fallback."""
    with server(lambda line, _: line.sendall(answer)) as (port, _):
        assert set(Crowd(plan(port)).run().status) == {status}


def test_the_greedy_ask_more() -> None:
    """Fifty times as often as any other."""
    crowd = Crowd(Plan(1, (Phase(10_000, 5.0),), users=51, greedy=50.0))
    assert crowd.records.user.count(0) == pytest.approx(len(crowd.records) / 2, rel=0.1)


def test_records_and_plans_pass_between_processes(tmp_path: Path) -> None:
    """As they were."""
    one = plan(80, greedy=3.0)
    assert Plan.from_json(one.to_json()) == one
    records = Crowd(one).records
    records.began = 7.5
    records.write(tmp_path / "records")
    assert Records.read(tmp_path / "records") == records


# ---- figures ---------------------------------------------------------------------------------


@given(st.lists(st.floats(0, 1e3), min_size=1), st.floats(0.01, 1))
def test_so_many_are_not_above_a_percentile(values: list[float], share: float) -> None:
    """And it is one of them."""
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


def scene(after: Callable[[float], int], steps: dict[float, float] | None = None) -> Scene:
    """A hundred a second; in the pulse, from 2 s to 4 s, nine of ten normal ones are refused."""
    records = Records()
    for n in range(800):
        due = n / 100
        status = OK
        if 2 <= due < 4 and n % 10:
            status = 503
        elif due >= 4:
            status = after(due - 4)
        for column, value in zip(records._columns(), (due, 0.0, 0.02, status, 1, n % 2), strict=True):
            column.append(value)
    samples = [{"at": at, "step": step} for at, step in (steps or {}).items()]
    return Scene("us", "fixed", Pulse(10, 2, 2, 4), 10.0, 1.0, records, samples)


def test_goodput_counts_the_backends_answers() -> None:
    """In capacities; refusals are no answers, and each priority stands for itself."""
    found = find(scene(lambda _: OK))
    assert found.goodput == 1.0
    assert found.offered == 100
    assert (found.served["normal"].ok, found.served["normal"].refused) == (0.1, 0.9)
    assert found.served["critical"].offered == 0
    assert (found.recovered, found.step_zero) == (0.0, None)


def test_recovery_ends_with_the_last_that_is_not_normal() -> None:
    """In half seconds; fallbacks count as answers, but not as everything being back; the ladder too."""
    found = find(scene(lambda since: 503 if since < 1.2 else FALLBACK if since < 2.1 else OK, {5: 1, 7.5: 0}))
    assert (found.recovered, found.whole) == (1.5, 2.5)
    assert (found.top_step, found.step_zero) == (1, 1)
    assert math.isinf(find(scene(lambda _: 503)).recovered)


# ---- gates and command -----------------------------------------------------------------------


def site(folder: Path) -> Site:
    return Site(folder=folder, port=18001, admin_port=18002, upstreams=(18003, 18003))


def test_tidegates_configuration_is_valid(tmp_path: Path) -> None:
    """Three priorities, and a last rung for the critical only."""
    command = TidegateGate().command(site(tmp_path))
    path = Path(command.arguments[command.arguments.index("--config") + 1])
    read = config.load(path.read_bytes(), path.name, {})
    assert {route.priority for route in read.routes} == {"critical", "normal", "optional"}
    assert read.degradation.steps[-1].only == "critical"


@pytest.mark.parametrize(("kind", "rates"), [(NginxGate, {"95", "1"}), (SplitNginxGate, {"40", "55"})])
def test_nginx_is_told_the_capacity(kind: type[NginxGate], rates: set[str], tmp_path: Path) -> None:
    """And takes its configuration, where it is installed."""
    gate = kind()
    gate.capacity = 100.0
    if gate.program() is None:
        pytest.skip("nginx is not installed")
    command = gate.command(site(tmp_path))
    read = (tmp_path / "nginx.conf").read_text()
    assert {
        line.partition("rate=")[2].partition("r/s")[0] for line in read.splitlines() if "rate=" in line
    } == rates
    subprocess.run([*command.arguments, "-t"], check=True, capture_output=True)


def test_without_a_gate_nothing_is_started() -> None:
    """The backend itself is asked."""
    with pytest.raises(NotImplementedError):
        Bare().command(site(Path()))


def test_an_unknown_gate_is_a_mistake(capsys: pytest.CaptureFixture[str]) -> None:
    """Told with those that there are."""
    assert main(["--gates", "apache"]) == 1
    assert "no gate is called 'apache'; there are tidegate, envoy" in capsys.readouterr().err
