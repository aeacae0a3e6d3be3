"""Recording and alerting rules: valid, about metrics that exist, and each tried out by promtool."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "config/prometheus"
SCENARIOS = sorted((Path(__file__).parent / "prometheus").glob("*.yml"))
RULES: list[dict[str, Any]] = [
    rule
    for file in sorted(CONFIG.glob("*.yml"))
    for group in yaml.safe_load(file.read_text(encoding="utf-8")).get("groups", ())
    for rule in group["rules"]
]
RECORDED = [rule["record"] for rule in RULES if "record" in rule]
ALERTS = [rule for rule in RULES if "alert" in rule]


Promtool = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def promtool(prometheus_program: Callable[[str], str]) -> Promtool:
    """`promtool(*words)`: what it came to."""

    def run(*words: str | Path) -> subprocess.CompletedProcess[str]:
        argv = [prometheus_program("promtool"), *words]
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.mark.parametrize("name", ["prometheus.yml", "local.yml"])
def test_the_configuration_is_good(promtool: Promtool, name: str) -> None:
    """`promtool check config` takes it, with its rule files."""
    done = promtool("check", "config", CONFIG / name)

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("file", SCENARIOS, ids=lambda file: file.stem)
def test_rules_do_what_they_say(promtool: Promtool, file: Path) -> None:
    """`promtool test rules`: what is recorded, when each alert fires, and when it does not."""
    done = promtool("test", "rules", file)

    assert done.returncode == 0, done.stdout + done.stderr


def test_no_rule_goes_untried() -> None:
    """Each alert and each recorded series is named in a scenario's expectations."""
    expected = {"recording": "", "alerts": ""}
    for file in SCENARIOS:
        for test in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]:
            expected[file.stem] += str([test.get("alert_rule_test"), test.get("promql_expr_test")])

    assert RECORDED
    assert ALERTS
    assert not [name for name in RECORDED if name not in expected["recording"]]
    assert not [rule["alert"] for rule in ALERTS if rule["alert"] not in expected["alerts"]]


def test_rules_are_about_metrics_we_have() -> None:
    """A metric nobody exports would never fire."""
    code = "".join(
        path.read_text(encoding="utf-8")
        for package in ("gateway", "shop_backend")
        for path in (ROOT / package).rglob("*.py")
    )

    for rule in RULES:
        for metric in re.findall(r"(?<![\w:])(?:tidegate|shop)_[a-z_]+(?![\w:])", rule["expr"]):
            # prometheus_client appends _total to counters, and the parts of a histogram, by itself
            assert metric in code or re.sub(r"_(total|bucket|count)$", "", metric) in code, metric
        for recorded in re.findall(r"\w+:\w+:\w+", rule["expr"]):
            assert recorded in RECORDED


def test_alerts_say_what_to_do() -> None:
    """Each has a severity, a summary and an action, and its name only once."""
    assert len({rule["alert"] for rule in ALERTS}) == len(ALERTS)
    for rule in ALERTS:
        assert set(rule["annotations"]) == {"summary", "action"}, rule["alert"]
        assert rule["labels"]["severity"] in {"page", "ticket"}
