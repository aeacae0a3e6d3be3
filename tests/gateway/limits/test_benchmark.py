"""What `python -m benchmarks.limits` makes of its figures; never its timing."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.harness import Summary
from benchmarks.limits import ADMITTED, REFUSED, Crowd, Findings, goals, main, text

FIGURES: dict[str, Any] = {"cpu_low": 1.0, "cpu_high": 1.0, "rate": 1.0, "p50": 1.0, "p99": 1.0, "rounds": 1}


def findings(*summaries: Summary) -> Findings:
    machine = dict.fromkeys(("date", "cores", "cpu", "memory", "system", "kernel", "python"), "") | {
        "load_before": 0.0
    }
    return Findings(machine=machine, settings={}, summaries=list(summaries))


def test_goals_are_ratios_within_one_run() -> None:
    """Shared limits beside nginx's, refusals beside a bare answer, memory in MiB."""
    found = findings(
        Summary("tidegate+redis", ADMITTED.name, 60.0, redis_calls=0.2, **FIGURES),
        Summary("nginx+lua+redis", ADMITTED.name, 40.0, **FIGURES),
        Summary("uvicorn-bare", ADMITTED.name, 20.0, **FIGURES),
        Summary("tidegate", REFUSED.name, 30.0, **FIGURES),
    )
    found.crowds = [Crowd("tidegate", 1000, before=2**20, after=3 * 2**20)]
    told = [(goal.figure, goal.verdict) for goal in goals(found)]
    assert told == [
        (1.5, "yes"),
        (0.2, "yes"),
        (1.5, "no"),
        (None, "not measured"),
        (None, "not measured"),
        (2.0, "yes"),
    ]
    assert "growth in MiB" in text(found, (ADMITTED, REFUSED))


def test_a_peer_that_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    """A slip on the command line is told with the names there are."""
    assert main(["--peers", "nonesuch"]) == 1
    assert "nonesuch" in capsys.readouterr().err
