"""The measuring harness: its arithmetic, its reading of wrk, every peer's configuration; never its timing."""

from __future__ import annotations

import shutil
import socket
import string
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import harness, load, report, scale
from benchmarks.instance import Reading
from benchmarks.peers import PEERS, choose
from benchmarks.peers.__main__ import main as list_peers
from benchmarks.peers.peer import Peer
from benchmarks.peers.tidegate import Tidegate, new_build
from benchmarks.processes import Command, Process, StartError, tree
from benchmarks.proxy import main
from benchmarks.site import TIGHT, WIDE, Rate, Site, render
from benchmarks.upstream import LARGE, SMALL, Upstream
from gateway.compiled import VARIABLE

figures = st.floats(min_value=0.1, max_value=1e5)


def reading(cpu: float, *, answered: int = 100, seconds: float = 2.0, calls: float | None = None) -> Reading:
    outcome = load.Outcome(answered=answered, seconds=seconds, refused=0, broken=0, p50=1.0, p99=3.0)
    return Reading(outcome, cpu, redis_calls=calls, redis_cpu=calls)


def site(folder: Path, *, user: Rate = WIDE, routes: int = 3) -> Site:
    return Site(
        folder=folder,
        port=18001,
        admin_port=18002,
        upstreams=(18003, 18004),
        user=user,
        routes=routes,
        redis=folder / "redis.sock",
    )


# ---- arithmetic -------------------------------------------------------------------------------


def test_a_summary_holds_medians_and_both_ends() -> None:
    """One wild round doesn't move the figure, but it is shown."""
    found = harness.summarise("us", "get", [reading(40.0), reading(900.0), reading(50.0, answered=200)])

    assert (found.cpu, found.cpu_low, found.cpu_high, found.rounds) == (50.0, 40.0, 900.0, 3)
    assert found.rate == 50.0
    assert found.redis_calls is None


@given(st.lists(figures, min_size=1, max_size=9))
def test_a_median_lies_between_its_ends(cpu: list[float]) -> None:
    """Whatever the rounds were, low ≤ median ≤ high, and their order doesn't matter."""
    found = harness.summarise("us", "get", [reading(one) for one in cpu])

    assert found.cpu_low <= found.cpu <= found.cpu_high
    assert harness.summarise("us", "get", [reading(one) for one in reversed(cpu)]) == found


def test_no_round_is_no_summary() -> None:
    """Without a round there is nothing to say."""
    with pytest.raises(ValueError, match="no round"):
        harness.summarise("us", "get", [])


def test_redis_calls_are_summarised_where_there_are_some() -> None:
    """Round trips per request get a median of their own."""
    found = harness.summarise("us", "get", [reading(1.0, calls=0.2), reading(1.0, calls=0.4)])

    assert found.redis_calls == pytest.approx(0.3)


@given(figures, figures)
def test_a_ratio_is_ours_over_theirs(ours: float, theirs: float) -> None:
    """Ratios are taken within one case, and turn over when the peers do."""
    results = harness.Results(machine={}, settings={})
    results.summaries = [
        harness.summarise("us", "get", [reading(ours)]),
        harness.summarise("them", "get", [reading(theirs)]),
        harness.summarise("them", "post", [reading(1.0)]),
    ]

    assert results.ratio("us", "get", "them") == pytest.approx(ours / theirs)
    assert results.ratio("them", "get", "us") == pytest.approx(theirs / ours)
    assert results.ratio("us", "post", "them") is None


def test_growth_is_told_against_the_first_point_of_the_same_axis() -> None:
    """64 connections are the measure of 1,000, and no other axis is."""
    points = [
        scale.Point("us", axis, amount, cpu, cpu, cpu, 1.0, 8.0)
        for axis, amount, cpu in (("users", 10, 9.0), ("connections", 64, 50.0), ("connections", 1000, 60.0))
    ]
    results = scale.Growth(
        machine={"date": "d", "cores": 2, "cpu": "c", "memory": "m", "system": "s", "kernel": "k"}
        | {"python": "3", "load_before": 0.1},
        settings={"rounds": 1},
        points=points,
        missing={"envoy": "not installed"},
    )

    assert [results.ratio(point) for point in points] == [1.0, 1.0, pytest.approx(1.2)]
    told = report.growth(results, flat=0.1)
    assert " 1.20 |         no |    8.0 |    1.00 |" in told
    assert "- envoy: not installed" in told


# ---- what wrk and peers say -------------------------------------------------------------------


@given(st.integers(0, 10**9), st.integers(1, 10**9), st.integers(0, 10**6))
def test_the_line_of_wrk_is_read_in_our_units(requests: int, microseconds: int, refused: int) -> None:
    """Microseconds become seconds and milliseconds; what wrk prints around the line is left aside."""
    output = (
        f'Running 1s test\n\nRESULT {{"requests": {requests}, "microseconds": {microseconds}, '
        f'"refused": {refused}, "broken": 2, "p50": 1500, "p99": 20000}}\n'
    )

    found = load.parse(output)

    assert (found.answered, found.refused, found.broken) == (requests, refused, 2)
    assert found.seconds == pytest.approx(microseconds / 1e6)
    assert (found.p50, found.p99) == (1.5, 20.0)


def test_wrk_without_a_result_is_an_error() -> None:
    """A run that printed nothing isn't taken for a run of nothing."""
    with pytest.raises(load.LoadError, match="no result"):
        load.parse("unable to connect")


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), max_size=20), st.booleans())
def test_answers_are_read_whole_however_they_are_cut(body: bytes, cuts: list[int], chunked: bool) -> None:
    """Framed by length or in chunks, whatever bytes it holds: the body comes out as it went in."""
    if chunked:
        parts, rest = [], body
        for cut in [*cuts, len(body) or 1]:
            parts.append(rest[:cut])
            rest = rest[cut:]
        framed = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (*parts, rest) if part)
        wire = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + framed + b"0\r\n\r\n"
    else:
        wire = b"HTTP/1.1 429 No\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(wire)
        seen = load.request(ours, "POST", "/x", user="u", body=64)
        sent = theirs.recv(4096)

    assert seen == (200 if chunked else 429, body)
    assert b"Content-Length: 64\r\n" in sent
    assert len(sent.partition(b"\r\n\r\n")[2]) == 64


def test_an_answer_cut_short_is_an_error() -> None:
    """A peer that hangs up in mid-answer isn't counted as having answered."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        theirs.shutdown(socket.SHUT_WR)
        with pytest.raises(ConnectionResetError):
            load.request(ours, "GET", "/", user="u")


def test_bodies_have_the_sizes_they_are_named_for() -> None:
    """292 bytes and 16 KiB, as the tables say."""
    assert (len(SMALL), len(LARGE)) == (292, 16384)


# ---- peers ------------------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_the_upstream_counts_what_it_answers(tmp_path: Path) -> None:
    """By which the cost of a request is found while requests go on; asking for the count is one too."""
    with Upstream(tmp_path / "upstream") as upstream:
        before = upstream.answered()
        for port in upstream.ports:
            assert httpx.get(f"http://127.0.0.1:{port}/api/small").text == SMALL
        assert upstream.answered() == before + len(upstream.ports) + 1


@pytest.mark.parametrize("user", [WIDE, TIGHT], ids=["wide", "tight"])
@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
def test_every_configuration_is_filled_in(
    peer: Peer, user: Rate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No placeholder is left, and the peer is told its port and its upstreams."""
    monkeypatch.setattr(type(peer), "installed", lambda _: "/bin/true")  # rendering needs no binary

    command = peer.command(site(tmp_path, user=user))

    told = "\n".join(
        [*command.arguments, *command.environment.values()]
        + [path.read_text(encoding="utf-8") for path in tmp_path.iterdir()]
    )
    assert "@{" not in told
    assert "18001" in told
    assert not peer.proxies or "18003" in told
    assert not peer.limits or str(user.count) in told


@pytest.mark.parametrize("user", [WIDE, TIGHT], ids=["wide", "tight"])
def test_our_configuration_is_valid(user: Rate, tmp_path: Path) -> None:
    """The gateway itself accepts what we measure it with, a thousand routes included."""
    Tidegate().command(site(tmp_path, user=user, routes=1000))
    config = tmp_path / "tidegate.yaml"

    subprocess.run([sys.executable, "-m", "gateway", "check", str(config)], check=True, cwd=tmp_path)

    assert len(yaml.safe_load(config.read_text(encoding="utf-8"))["routes"]) == 1000


def test_envoys_configuration_limits_all_and_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both limits are enforced, not only counted."""
    envoy = choose("envoy")[0]
    monkeypatch.setattr(type(envoy), "installed", lambda _: "/bin/true")
    envoy.command(site(tmp_path, user=TIGHT))

    config = yaml.safe_load((tmp_path / "envoy.yaml").read_text(encoding="utf-8"))

    chain = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    limit = chain["http_filters"][0]["typed_config"]
    assert limit["filter_enforced"]["default_value"]["numerator"] == 100
    assert limit["token_bucket"]["max_tokens"] == WIDE.count
    assert limit["descriptors"][0]["token_bucket"]["max_tokens"] == TIGHT.count


@given(st.text(alphabet=string.printable.replace("@", ""), max_size=100))
def test_only_our_own_placeholders_are_replaced(text: str) -> None:
    """Dollars, braces and percent signs belong to the peers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Path, "read_text", lambda *_, **__: text + "@{port}")

        assert render(Path("any"), port=7) == text + "7"


def test_a_missing_peer_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With an empty cache the wheels' peers are told as missing, and the exit code says so."""
    monkeypatch.setenv("TIDEGATE_BENCH_CACHE", str(tmp_path))

    assert list_peers(["list"]) == 1

    told = capsys.readouterr().out
    for name in ("envoy", "caddy", "starlette+httpx"):
        assert f"missing: {name} is not installed" in told


def test_the_sources_are_measured_when_they_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """TIDEGATE_COMPILED=0: nothing is built, nothing said."""
    monkeypatch.setenv(VARIABLE, "0")
    said: list[str] = []
    assert not new_build(said.append)
    assert not said


def test_an_unknown_peer_or_case_is_told_before_anything_starts(capsys: pytest.CaptureFixture[str]) -> None:
    """The message names what there is."""
    assert main(["--peers", "envoi"]) == 1
    assert "'envoi'; there are tidegate" in capsys.readouterr().err
    assert main(["--peers", "envoy", "--cases", "got"]) == 1
    assert "'got'; there are get-292" in capsys.readouterr().err


# ---- processes --------------------------------------------------------------------------------

_PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
child.wait()
"""


def test_the_whole_tree_is_measured_and_stopped(tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    """A child's time and memory count as its parent's, and it goes when the parent goes."""
    with Process(Command((sys.executable, "-c", _PARENT), {}), core=0, folder=tmp_path, name="p") as process:
        wait_until(lambda: len(tree(process.pid)) == 2, what="the child to start")
        wait_until(lambda: process.cpu_seconds() > 0.1, what="the child's time to be seen")
        pids = tree(process.pid)
        assert process.memory_bytes() > 1 << 20

    wait_until(lambda: not any(Path(f"/proc/{pid}/cmdline").exists() for pid in pids), what="both to be gone")


def test_a_process_that_ends_while_starting_shows_its_last_words(tmp_path: Path) -> None:
    """Its exit code and the end of its log are in the error."""
    command = Command((sys.executable, "-c", "print('no such port'); exit(3)"), {})
    with (
        Process(command, core=0, folder=tmp_path, name="peer") as process,
        pytest.raises(StartError, match=r"(?s)peer ended with exit code 3.*no such port"),
    ):
        process.wait_until(lambda: False)


# ---- tables -----------------------------------------------------------------------------------


@given(st.lists(st.tuples(*[st.text(alphabet=string.ascii_letters, max_size=12)] * 3), max_size=5))
def test_tables_line_up(rows: list[tuple[str, str, str]]) -> None:
    """Every line is as long as the others, so that a terminal shows columns."""
    lines = report.table(("peer", "a", "b"), rows).splitlines()

    assert len({len(line) for line in lines}) == 1
    assert len(lines) == len(rows) + 2
