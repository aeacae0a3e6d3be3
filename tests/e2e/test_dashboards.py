"""The dashboards before a live Prometheus that scrapes a selling stack: every query returns data."""

from __future__ import annotations

import json
import math
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
GRAFANA = ROOT / "config/grafana"
PROMETHEUS = ROOT / "config/prometheus"
DASHBOARDS = {file.name: json.loads(file.read_text()) for file in sorted(GRAFANA.glob("dashboards/*.json"))}


@pytest.fixture(scope="module")
def prometheus(
    stack: Any,
    prometheus_program: Callable[[str], str],
    tmp_path_factory: pytest.TempPathFactory,
    free_port: Callable[[], int],
    wait_until: Callable[..., Any],
) -> Iterator[str]:
    """URL of a Prometheus with our rules that scrapes the stack every second."""
    program = prometheus_program("prometheus")
    folder, urls = tmp_path_factory.mktemp("prometheus"), stack.state()["urls"]
    targets = {"gateway": stack.admin_url, "shop": urls["shop_metrics"], "worker": urls["worker_metrics"]}
    config = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(PROMETHEUS / name) for name in config["rule_files"]]
    for job in config["scrape_configs"]:
        job["static_configs"] = [{"targets": [targets[job["job_name"]].removeprefix("http://")]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    port = free_port()
    words = ["--config.file=prometheus.yml", f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [program, *words, "--storage.tsdb.path=data"], cwd=folder, stdout=log, stderr=log
        )
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: len(ask(url, "up == 1")) == 3, what=f"three targets; see {folder / 'log'}")
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


@pytest.fixture(scope="module")
def sale(
    prometheus: str, stack: Any, trade: Callable[[Any], None], wait_until: Callable[..., Any]
) -> Iterator[str]:
    """The same after some trade that it saw beginning and going on, and with one alert firing."""
    trade(stack)
    wait_until(
        lambda: ask(prometheus, 'tidegate_requests_total{route="/api/orders",code="429"}'), what="a scrape"
    )
    trade(stack)
    good = stack.config.read_text()
    stack.edit(good + "nonsense: true\n")
    try:
        wait_until(lambda: ask(prometheus, 'ALERTS{alertname="ConfigRefused"}'), what="an alert")
    finally:
        stack.edit(good)
    yield prometheus
    reloaded = 'tidegate_config_reloads_total{result="success"} > 0'
    wait_until(lambda: ask(prometheus, reloaded), what="the good configuration taken again")


def ask(url: str, query: str) -> list[float]:
    """The values of an instant query; none while Prometheus starts."""
    try:
        answer = httpx.get(f"{url}/api/v1/query", params={"query": query})
    except httpx.TransportError:
        return []
    body = answer.json() if answer.status_code != 503 else {"status": "success", "data": {"result": []}}
    assert body["status"] == "success", f"{query}: {body}"
    return [float(row["value"][1]) for row in body["data"]["result"]]


def queries(board: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Panel's title and query, with what Grafana would put in for its variables."""
    for panel in board["panels"]:
        for target in panel["targets"]:
            expr = target["expr"].replace("$__rate_interval", "1m").replace("$__range", "5m")
            for variable in board["templating"]["list"]:
                expr = expr.replace("$" + variable["name"], variable["allValue"])
            assert "$" not in expr, expr
            yield panel["title"], expr


def has_data(url: str, query: str) -> bool:
    return any(math.isfinite(value) for value in ask(url, query))


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_query_returns_data(sale: str, name: str, wait_until: Callable[..., Any]) -> None:
    """No panel stays empty on the night of the sale because a name in it is wrong."""
    for title, query in queries(DASHBOARDS[name]):
        wait_until(lambda query=query: has_data(sale, query), what=f"data for {title}: {query}")


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_choice_is_filled(sale: str, name: str) -> None:
    """The variables above a dashboard offer something."""
    for variable in DASHBOARDS[name]["templating"]["list"]:
        asked = re.fullmatch(r"label_values\((\w+), (\w+)\)", variable["query"]["query"])
        assert asked is not None
        values = httpx.get(f"{sale}/api/v1/label/{asked[2]}/values", params={"match[]": asked[1]}).json()
        assert values["data"], variable["name"]


def test_rules_are_evaluated_without_an_error(sale: str) -> None:
    """Each rule has been worked out on real series, its templates too."""
    groups = httpx.get(f"{sale}/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]

    assert rules
    assert not [(rule["name"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"]


def test_the_files_are_what_the_generator_writes() -> None:
    """Nobody edited the JSON by hand, or forgot to write it."""
    done = subprocess.run(
        [sys.executable, GRAFANA / "generate.py", "--check"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", DASHBOARDS)
def test_dashboards_are_whole(name: str) -> None:
    """Panels don't overlap and say what they show; their source is the provisioned one."""
    board = DASHBOARDS[name]
    sources = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yml").read_text())["datasources"]
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
        assert not cells & taken, panel["title"]
        assert max(x for x, _ in cells) < 24, panel["title"]
        taken |= cells
        assert panel["description"]
        assert panel["datasource"]["uid"] == sources[0]["uid"]
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    assert len({b["uid"] for b in DASHBOARDS.values()}) == len(DASHBOARDS) == 3
