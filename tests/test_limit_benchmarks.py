"""The commands that measure limits from outside: that they see what they are to see; never their timing."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import cancellations, metrics, store_lost, switches, users
from benchmarks.outage import Round, Sample
from benchmarks.report import percentile


def test_percentiles_by_nearest_rank() -> None:
    """The hundredth of a hundred is the largest, the ninety-ninth not."""
    values = [float(n) for n in range(100, 0, -1)]
    assert (percentile(values, 0.5), percentile(values, 0.99), percentile(values, 1.0)) == (50.0, 99.0, 100.0)
    assert percentile([7.0], 0.99) == 7.0
    assert math.isnan(percentile([], 0.5))


def test_cancellations(capsys: pytest.CaptureFixture[str]) -> None:
    """Two thousand callers leave a real Redis in mid-call; nobody gets another's reply."""
    assert cancellations.main(["--calls", "2000"]) == 0
    assert "replies swapped 0" in capsys.readouterr().out
    assert not cancellations.Found(calls=2, cancelled=1, served=0, swapped=1).well
    assert not cancellations.Found(calls=2, cancelled=1, served=1, connections=1).well
    assert not cancellations.Found(calls=2, cancelled=1, served=0).well


async def test_switches(tmp_path: Path) -> None:
    """Two gateways, every worker of both: each change is seen by all."""
    found = await switches.measure(tmp_path, 2)
    assert {what: len(times) for what, times in found.items()} == {
        "a feature's switch": 2,
        "a limit's rate": 2,
    }
    assert all(time > 0 for times in found.values() for time in times)


def test_switches_are_judged_by_the_slowest() -> None:
    """Within half a second or not, by the last worker of the slowest change."""
    rows = switches.text({"a feature's switch": [1.0, 500.0], "a limit's rate": [1.0, 500.1]}).splitlines()
    verdicts = {row.split("|")[1].strip(): row.split("|")[-2].strip() for row in rows}
    assert (verdicts["a feature's switch"], verdicts["a limit's rate"]) == ("yes", "no")


@pytest.mark.skipif(
    shutil.which("wrk") is None, reason="wrk is installed by python -m benchmarks.peers install"
)
@pytest.mark.parametrize("kind", users.KINDS)
def test_a_small_crowd(tmp_path: Path, kind: str) -> None:
    """Some thousand users, each kind as it is meant: all admitted, each counted for itself."""
    crowd = users.weigh(tmp_path / kind, "shared", kind, 2000)
    assert crowd.users >= 2000
    assert crowd.failed == 0
    # All forgers are one client; a busy machine may have lost sight of Redis for some of the others.
    assert crowd.counters < 20 if kind == "forged" else crowd.counters > 200


@pytest.mark.parametrize(("store", "kind"), [("shared", "token"), ("local", "address"), ("local", "forged")])
def test_a_small_crowd_without_sockets(tmp_path: Path, store: str, kind: str) -> None:
    """The same users meet the app itself."""
    crowd = users.weigh_direct(tmp_path / kind, store, kind, 2000)
    assert (crowd.users, crowd.failed) == (2000, 0)
    assert crowd.counters > 200 if store == "shared" else crowd.counters == 0


# ---- what store_lost makes of its samples --------------------------------------------------------


def lost(*samples: tuple[int, float, float, bool]) -> Round:
    """A round that stops at 3 and resumes at 8."""
    return Round(3.0, 8.0, 8.5, 11.5, [Sample(*one) for one in samples])


@given(st.lists(st.floats(8.0, 11.0), max_size=60))
def test_the_fullest_second(times: list[float]) -> None:
    """As counted by hand from each admission on."""
    found = lost(*[(0, at, at, True) for at in times])
    by_hand = max((sum(at <= other < at + 1.0 for other in times) for at in times), default=0)
    assert found.fullest_second(8.0, 11.5) == by_hand


def test_findings_name_what_is_wrong() -> None:
    """A host beyond its share, a slow second and a burst on return are each said."""
    quick: list[Any] = [(host, n / 100, n / 100 + 0.001, n % 2 == 0) for n in range(1150) for host in (0, 1)]
    well = {one.says: one for one in store_lost.findings([lost(*quick)], 0)}
    assert all(one.figure <= one.most for one in well.values())
    slow = [(0, 5.0, 5.5, False)] * 30
    greedy = [(0, 4.5 + n / 1000, 4.5 + n / 1000, True) for n in range(2000)]
    burst = [(1, 8.1, 8.1 + n / 1000, True) for n in range(900)]
    wrong = {
        one.says
        for one in store_lost.findings([lost(*quick, *slow, *greedy, *burst)], 1)
        if one.figure > one.most
    }
    assert {says.split()[0] for says in wrong} >= {"added", "admitted", "fullest", "answers"}


def test_a_load_that_pauses_on_return_is_told() -> None:
    """What it left out meanwhile is admitted at once: that is no fault of the limit's."""
    steady: list[Any] = [(host, n / 100, n / 100 + 0.001, True) for n in range(1150) for host in (0, 1)]
    paused = [one for one in steady if not 8.2 < one[1] < 8.3]
    assert lost(*paused).longest_pause(8.0, 11.5) == pytest.approx(100)
    wrong = [one.says for one in store_lost.findings([lost(*paused)], 0) if one.figure > one.most]
    assert len(wrong) == 1
    assert "pause" in wrong[0]


async def test_metrics(tmp_path: Path) -> None:
    """A small gateway: both pages are asked for, and counting a request costs something."""
    pages = await metrics.scrape(tmp_path, 2, 3, 2)

    assert [(page.name, len(page.taken)) for page in pages] == [("a scrape", 2), ("the status", 2)]
    assert all(page.size > 1000 for page in pages)
    counted = metrics.count(3, 2)
    assert len(counted) == 2
    assert "a scrape" in metrics.text(pages, counted)
