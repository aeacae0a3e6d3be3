"""The rehearsal: its crowd, its judgement, and one played against a real stack."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, LiteralString

import httpx
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ops import stores
from ops.rehearsal import page, pulse, timeline
from ops.rehearsal.crowd import Scene, walk_through
from ops.rehearsal.notes import Buyer, Note, Notes, percentile
from ops.rehearsal.promises import judge
from ops.rehearsal.report import Report, show
from ops.rehearsal.watch import Glance
from tests.waiting import PATIENCE

NIGHT = datetime(2026, 11, 27, 20, 0, 30, tzinfo=UTC)

# ---- the crowd ------------------------------------------------------------------------------------


@given(people=st.integers(1, 500), seconds=st.floats(1, 3600), seed=st.integers())
def test_everybody_comes_once_and_in_time(people: int, seconds: float, seed: int) -> None:
    """As many as asked, in order, within the time; the same seed is the same crowd."""
    plan = pulse.arrivals(people, seconds, seed)

    assert len(plan) == people
    assert plan == sorted(plan)
    assert plan[0] >= 0
    assert plan[-1] <= seconds
    assert plan == pulse.arrivals(people, seconds, seed)


def test_the_crowd_is_a_pulse() -> None:
    """More than half come within a seventh of the time, at the opening; some before and after."""
    plan = pulse.arrivals(10_000, 100.0)
    wall = [at for at in plan if 25 <= at < 40]

    assert 0.55 < len(wall) / len(plan) < 0.8
    assert sum(at < 25 for at in plan) > 500
    assert sum(at > 40 for at in plan) > 500
    assert sum(at < 30 for at in wall) > len(wall) / 2  # densest at the opening


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.01, 1))
def test_a_percentile_is_exceeded_by_few(values: list[float], share: float) -> None:
    """It is one of the values, and so many of them are not above it."""
    found = percentile(values, share)

    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


# ---- the judgement --------------------------------------------------------------------------------


def good() -> Notes:
    """A small sale without fault: two cards, three buyers."""
    notes = Notes(cards=2, late=[0.0])
    notes.requests = [
        Note("page", 0.1, 0.01, 200),
        Note("order", 1.0, 0.05, 202),
        Note("order", 2.0, 0.05, 410),
    ]
    notes.requests.append(Note("page", 2.0, 0.001, 429, told_when=True))
    notes.buyers = [
        Buyer(0, end="delivered", order_id="a", paid=True, keys=["K1"], waited=1.0),
        Buyer(1, end="delivered", order_id="b", paid=True, keys=["K2"], waited=1.5),
        Buyer(2, end="sold out"),
    ]
    return notes


def broken(notes: Notes, violations: dict[str, list[str]] | None = None, *, calm: bool = True) -> list[str]:
    """The promises that were not kept."""
    return [v.promise for v in judge(notes, violations or {"I1": []}, calm=calm) if not v.kept]


def test_a_good_sale_keeps_every_promise() -> None:
    """Turning people away is no fault as long as they are told when to come back."""
    assert broken(good()) == []


def _lost(notes: Notes) -> None:
    notes.requests.append(Note("read", 3.0, 10.0, None))


def _untold(notes: Notes) -> None:
    notes.requests.append(Note("page", 3.0, 0.01, 503, told_when=False))


def _failed(notes: Notes) -> None:
    notes.requests.append(Note("order", 3.0, 0.01, 502))


def _slow(notes: Notes) -> None:
    notes.requests.append(Note("order", 3.0, 1.2, 202))


def _gave_up(notes: Notes) -> None:
    notes.buyers.append(Buyer(3, end="gave up"))


def _sold_out_too_early(notes: Notes) -> None:
    notes.cards = 3


def _paid_for_nothing(notes: Notes) -> None:
    notes.cards = 3
    notes.buyers.append(Buyer(3, end="delivered", order_id="c", paid=True))


def _twice(notes: Notes) -> None:
    notes.buyers[1].keys = ["K1"]


def test_what_comes_back_of_before_may_be_sold_too() -> None:
    """Keys that were held for an earlier crowd's unpaid orders are no keys that are not there."""
    notes = good()
    notes.cards, notes.returning = 1, 1
    assert "No key is sold twice, and none that is not there" not in broken(notes)
    notes.returning = 0
    assert "No key is sold twice, and none that is not there" in broken(notes)


def _too_many(notes: Notes) -> None:
    notes.cards = 1


@pytest.mark.parametrize(
    ("fault", "promise"),
    [
        (_lost, "Everybody is answered"),
        (_untold, "Who is turned away is told when to come back"),
        (_failed, "Ordering works"),
        (_slow, "An order is answered within 1 s (95 of 100)"),
        (_gave_up, "Every buyer gets a key or hears that it is sold out"),
        (_sold_out_too_early, "Every buyer gets a key or hears that it is sold out"),
        (_paid_for_nothing, "Whoever pays gets a key"),
        (_twice, "No key is sold twice, and none that is not there"),
        (_too_many, "No key is sold twice, and none that is not there"),
    ],
)
def test_each_fault_breaks_its_promise(fault: Callable[[Notes], None], promise: str) -> None:
    """Seeded one by one: the judge names the promise, and only that."""
    notes = good()
    fault(notes)

    assert broken(notes) == [promise]


def test_the_audit_and_the_rest_are_judged_too() -> None:
    """A violation is told with its name; a ladder that stays up is no good end."""
    verdicts = judge(good(), {"I1": [], "I5": ["payment p funded nothing"]}, calm=False)

    assert [verdict.figure for verdict in verdicts if not verdict.kept] == [
        "not within the time given; see `tidegate status`",
        "I5: payment p funded nothing",
    ]


# ---- the report -----------------------------------------------------------------------------------


def test_the_timeline_counts_every_request_once() -> None:
    """Seconds without an answer are there too; the ladder stands where it was last seen."""
    notes = [Note("page", 0.2, 0.1, 200), Note("page", 0.9, 0.2, 429), Note("page", 3.0, 0.5, None)]
    seconds = timeline.seconds(notes, [Glance(0.5, 0, 0.1, ()), Glance(1.5, 2, 0.9, ())])

    assert [second.requests for second in seconds] == [1, 1, 0, 1]
    assert [dict(second.kinds) for second in seconds] == [{"good": 1}, {"limited": 1}, {}, {"lost": 1}]
    assert [second.step for second in seconds] == [0, 2, 2, 2]


@given(st.lists(st.floats(0, 1e6), max_size=300))
def test_bars_fit_and_show_the_highest(values: list[float]) -> None:
    """Never wider than a terminal; something stands wherever something was; the highest is full."""
    drawn = timeline.bars(values)

    assert len(drawn) == min(len(values), -(-len(values) // -(-len(values) // 60))) if values else drawn == ""
    if any(value >= 0.001 for value in values):
        assert "█" in drawn


@given(st.integers(1, 4000))
def test_an_axis_names_a_few_round_seconds(count: int) -> None:
    """From 0, evenly, none beyond the last, at most eight; the text below the bars is as wide as they are."""
    named = timeline.marks(count)

    assert named[0] == 0
    assert named[-1] < count
    assert len(named) <= 8
    assert len({b - a for a, b in pairwise(named)}) <= 1
    assert len(timeline.axis(count)) == len(timeline.bars([1.0] * count))
    if count > 8:
        assert f"{count - 1} s" in timeline.axis(count)


def test_a_report_says_when_and_in_which_second(capsys: pytest.CaptureFixture[str]) -> None:
    """Date and seconds stand on the page, in the terminal and in the document."""
    notes = good()
    notes.requests.append(Note("page", 29.5, 0.1, 200))
    seconds = timeline.seconds(notes.requests, [])
    report = Report(NIGHT, "steam", 9, 30.0, notes, seconds, judge(notes, {"I1": []}, calm=True))
    text = page.render(report)
    show(report)
    printed = capsys.readouterr().out

    assert "2026-11-27 20:00 UTC" in text
    assert "from 20:00:30 UTC" in text
    assert re.findall(r">(\d+ s)</text>", text) == [f"{n} s" for n in range(0, 30, 5)] * 3
    assert printed.startswith("2026-11-27 20:00 UTC: 3 buyers")
    assert re.search(r"^ +0 s +29 s *$", printed, re.MULTILINE)
    assert report.document()["began"] == "2026-11-27T20:00:30Z"


def test_the_page_needs_nothing_and_escapes() -> None:
    """One file for a mail: no script, no address, no markup from outside."""
    notes = good()
    seconds = timeline.seconds(notes.requests, [])
    verdicts = [replace(v, figure="<script>alert(1)</script>") for v in judge(notes, {"I1": []}, calm=True)]
    text = page.render(Report(NIGHT, "a<b", 9, 30.0, notes, seconds, verdicts))

    assert "<script" not in text
    assert "http" not in text
    assert "a&lt;b" in text
    assert text.count("<svg") == 3


def test_a_pipe_gets_a_line_for_each_promise(capsys: pytest.CaptureFixture[str]) -> None:
    """However long its figure: a log is read by programs too."""
    verdicts = [replace(verdict, figure="x" * 200) for verdict in judge(good(), {"I1": []}, calm=True)]
    show(Report(NIGHT, "steam", 9, 30.0, good(), [], verdicts))

    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert [(line[0], line[-1]) for line in lines if line and line[0] == "kept"] == [("kept", "x" * 200)] * 9


# ---- against a real stack -------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_a_rehearsal_on_a_running_stack(
    start_stack: Callable[..., Any], tmp_path: Path, wait_until: Callable[..., Any]
) -> None:
    """A crowd buys what was made up for it; verdicts and figures agree; then nothing of it is to be seen.

    One that was killed in the middle had been there before it.
    """
    stack = start_stack()
    _rehearse_and_kill(stack, wait_until)
    with httpx.Client(base_url=stack.url) as shopper:
        assert "Rehearsal" not in shopper.get("/").text
    report = tmp_path / "report.html"
    words = ("--buyers", "30", "--onlookers", "1", "--cards", "12", "--seconds", "5", "--json")
    done = stack.tidegate("rehearse", *words, "--report", str(report), timeout=110)

    said = json.loads(done.stdout)
    assert done.returncode == (0 if said["kept"] else 1), done.stderr
    verdicts = {verdict["promise"]: verdict for verdict in said["promises"]}
    assert len(verdicts) == 9
    assert verdicts["No key is sold twice, and none that is not there"]["kept"], said
    assert verdicts["The books balance: cards, orders, payments"]["kept"], said
    assert said["cards"] >= 12  # what the killed one left is sold too
    assert sum(said["buyers"].values()) == 30
    assert said["buyers"]["delivered"] <= said["cards"]
    assert sum(said["requests"].values()) > 200
    assert "<svg" in report.read_text()
    body = {"sku": "rehearsal", "quantity": 1, "email": "late@example.org"}
    with httpx.Client(base_url=stack.url) as late:
        late.post("/api/session", json={}).raise_for_status()
        wait_until(lambda: late.get("/p/rehearsal").status_code == 404, what="its page is gone")
        assert late.post("/api/orders", json=body, headers={"Idempotency-Key": "k"}).status_code == 404
        assert "ehearsal" not in late.get("/api/products").text
        assert "Rehearsal" not in late.get("/").text
    metrics = stack.state()["urls"]["worker_metrics"]
    wait_until(lambda: "rehearsal" not in httpx.get(metrics).text, what="its stock is gone from the console")
    assert "rehearsal" not in stack.tidegate("status").stdout
    audit = stack.tidegate("audit")
    assert audit.returncode == 0, audit.stdout
    stack.stop()


@contextmanager
def _under_way(
    stack: Any, wait_until: Callable[..., Any], *, seconds: int, ordered: int
) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[str], Any]]]:
    """A rehearsal in which so many have ordered: its process, and what asks its database for a figure."""
    words = ("--buyers", "30", "--onlookers", "1", "--cards", "40", "--seconds", str(seconds))
    begun = subprocess.Popen([sys.executable, "-m", "ops.cli", "rehearse", *words], env=stack.env)
    url = stores.client_environment(stack.data_dir, stack.env)["TIDEGATE_DATABASE_URL"]
    try:
        with psycopg.connect(url, autocommit=True) as connection:

            def ask(figure: LiteralString) -> Any:
                row = connection.execute(figure).fetchone()
                return row and row[0]

            sold = "SELECT count(*) FROM orders WHERE sku = 'rehearsal'"
            wait_until(lambda: ask(sold) >= ordered, what="some have ordered")
            yield begun, ask
    finally:
        begun.kill()
        begun.wait()


def _rehearse_and_kill(stack: Any, wait_until: Callable[..., Any]) -> None:
    """Begin a rehearsal; kill it when some have bought, and others not yet paid."""
    with _under_way(stack, wait_until, seconds=5, ordered=5) as (begun, ask):
        begun.kill()
        begun.wait()
        left = ask("SELECT sale_ends_at - now() FROM products WHERE sku = 'rehearsal'")
        assert left < timedelta(minutes=10)  # then it ends by itself


@pytest.mark.slow
def test_a_rehearsal_that_is_told_to_stop_closes_its_sale(
    start_stack: Callable[..., Any], wait_until: Callable[..., Any]
) -> None:
    """SIGTERM in the middle: what it had put on sale is off again at once."""
    stack = start_stack()
    with _under_way(stack, wait_until, seconds=60, ordered=1) as (begun, ask):
        begun.terminate()
        assert begun.wait(PATIENCE) == 128 + signal.SIGTERM
        assert ask("SELECT sale_ends_at <= now() FROM products WHERE sku = 'rehearsal'")
    stack.stop()


def test_an_unknown_product_is_one_line(stack: Any) -> None:
    """Nothing is sold, nothing is made."""
    done = stack.tidegate("rehearse", "--sku", "no-such")

    assert done.returncode == 1
    assert done.stderr.startswith("tidegate: there is no product no-such;")
    assert done.stderr.count("\n") == 1


def test_no_stack_is_one_line(tmp_path: Path, stack: Any) -> None:
    """A folder where nothing ran."""
    done = stack.tidegate("rehearse", "--data", str(tmp_path))

    assert done.returncode == 9
    assert f"no stack has run in {tmp_path}" in done.stderr


async def test_real_money_is_never_spent(stack: Any) -> None:
    """Where orders are paid elsewhere than at the sandbox, the first buyer stops before paying."""
    from ops.errors import OpsError

    with pytest.raises(OpsError, match="a rehearsal spends no real money"):
        await walk_through(Scene(stack.url, "http://127.0.0.1:1", "steam-20"))


def test_a_shop_where_nobody_can_buy_is_not_rehearsed(stack: Any) -> None:
    """The first buyer fails, and it is said why; no crowd comes."""
    done = stack.tidegate("rehearse", "--sku", "emberfall-deluxe")

    assert done.returncode == 1
    assert (
        "one buyer alone could not buy emberfall-deluxe: refused (the order was answered 403)" in done.stderr
    )
