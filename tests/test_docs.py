"""What is written for people and editors is what the code does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator
from prometheus_client.process_collector import ProcessCollector

from gateway import config, schema
from gateway.metrics import METRICS
from shop_backend import config as shop_config
from shop_backend.metrics import OUTBOX, OUTBOX_DEAD, REFUNDS, REGISTRY, PoolCollector

ROOT = Path(__file__).resolve().parent.parent
GATEWAY, SHOP = schema.json_schema(), shop_config.json_schema()


class _EditorsYaml(yaml.SafeLoader):
    """YAML 1.2, as editors read it: on and off are words."""


_EditorsYaml.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:bool"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_EditorsYaml.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(true|false)$"), list("tf"))


def complaints(shape: dict[str, Any], text: str) -> list[str]:
    """What an editor would underline, as `path: message`."""
    found = Draft202012Validator(shape).iter_errors(yaml.load(text, _EditorsYaml))  # noqa: S506 - a safe one
    return [f"{error.json_path}: {error.message}" for error in found]


def test_what_is_generated_is_current() -> None:
    """docs/configure.md and the schemas in config/ are those of the models."""
    done = subprocess.run(
        [sys.executable, ROOT / "docs/generate.py", "--check"], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("shape", [GATEWAY, SHOP], ids=["gateway", "shop"])
def test_every_key_says_what_it_means(shape: dict[str, Any]) -> None:
    """A docstring below the key, in its model."""
    silent = [
        f"{block}.{key}"
        for block, content in {"": shape, **shape["$defs"]}.items()
        for key, value in content["properties"].items()
        if not value.get("description")
    ]

    assert not silent


@pytest.mark.parametrize(("shape", "file"), [(GATEWAY, "gateway"), (SHOP, "shop")])
def test_editors_find_nothing_wrong_with_our_own_files(shape: dict[str, Any], file: str) -> None:
    """The schema is valid, stands in the file's first line, and takes the file with its variables."""
    text = (ROOT / f"config/{file}.yaml").read_text(encoding="utf-8")

    Draft202012Validator.check_schema(shape)
    assert text.startswith(f"# yaml-language-server: $schema={file}.schema.json\n")
    assert complaints(shape, text) == []


def whole(upstream: str = "", route: str = "", rest: str = "") -> str:
    """A small gateway file with something more in its upstream, its route, or beside them."""
    upstreams = f"upstreams: {{a: {{servers: ['http://127.0.0.1:1']{upstream}}}}}\n"
    return f"{upstreams}routes: [{{match: /**, upstream: a{route}}}]\n{rest}"


@pytest.mark.parametrize(
    "text",
    [
        whole(),
        whole(", timeout: {total: 5s}, breaker: {}, concurrency: {max: '${MAX:-200}'}"),
        whole(", breaker: {window: 10, slow_after: 500ms}, tls: {verify: '${VERIFY:-true}'}"),
        whole(rest="limits: {u: {rate: 5/second, per: [user, route], mode: off}}\n"),
        whole(rest="features: {f: {state: off, fallback: {json: {items: []}}}}\n"),
        whole(rest="degradation: {signals: {cpu: off}}\nlisten: {max_body: 64KiB}\n"),
    ],
)
def test_editors_take_what_the_gateway_takes(text: str) -> None:
    """No red line under what works: units, variables, one or more, on and off."""
    config.load(text.encode(), "test.yaml", {})

    assert complaints(GATEWAY, text) == []


@pytest.mark.parametrize(
    ("text", "at"),
    [
        (whole(rest="listen: {prot: 80}\n"), "listen"),
        (whole(rest="listen: {port: 80000}\n"), "port"),
        (whole(rest="listen: {max_body: 1 elephant}\n"), "max_body"),
        (whole(", timeout: {total: 5 parsecs}"), "total"),
        (whole(route=", priority: urgent"), "priority"),
        (whole(route=", cost: 0"), "cost"),
        ("routes: [{match: /**, upstream: a}]\n", "upstreams"),
    ],
)
def test_editors_see_mistakes_as_they_are_typed(text: str, at: str) -> None:
    """What the gateway would refuse for its shape alone is underlined, at its place."""
    with pytest.raises(config.ConfigError):
        config.load(text.encode(), "test.yaml", {})

    assert any(at in said for said in complaints(GATEWAY, text))


def test_shop_settings_are_checked_too() -> None:
    """A unit, a misspelt key, a number that is too small."""
    assert complaints(SHOP, "stock: {hold_for: 10m}\ndatabase: {max_size: 4}\n") == []
    assert complaints(SHOP, "stock: {hold_for: ten minutes}\n")
    assert complaints(SHOP, "stock: {hold_fro: 10m}\n")
    assert complaints(SHOP, "database: {max_size: 0}\n")


def test_defaults_are_told_as_they_are() -> None:
    """Spot checks of the generated page against the models."""
    page = (ROOT / "docs/configure.md").read_text(encoding="utf-8")

    assert "| `header_timeout` | `5s` |" in page
    assert "| `max_body` | `1MiB` |" in page
    assert "| `hold_for` | `10m` |" in page
    assert f"| `max_size` | `{shop_config.DatabaseSettings().max_size}` |" in page
    assert json.loads((ROOT / "config/gateway.schema.json").read_text()) == GATEWAY


def test_every_metric_and_alert_is_explained() -> None:
    """docs/observe.md names what is served and what can fire, and nothing that is not there any more."""
    page = (ROOT / "docs/observe.md").read_text(encoding="utf-8")
    served = {*METRICS, "shop_server_up"}
    waits = {"primary": (1, 0.5, 1)}
    pool = PoolCollector(lambda: {("primary", "idle"): 1}, lambda: {"primary": 1}, lambda: waits)
    for collector in (*REGISTRY._collector_to_names, OUTBOX, OUTBOX_DEAD, REFUNDS, pool):
        for family in () if isinstance(collector, ProcessCollector) else collector.collect():
            served.add(f"{family.name}_total" if family.type == "counter" else family.name)
    alerts = yaml.safe_load((ROOT / "config/prometheus/alerts.yml").read_text(encoding="utf-8"))
    fire = {
        rule["alert"]: rule["labels"]["severity"] for group in alerts["groups"] for rule in group["rules"]
    }

    explained = set(re.findall(r"`((?:tidegate|shop)_[a-z_]+)`", page.partition("## Alerts")[0]))
    assert explained == served
    assert dict(re.findall(r"^### (\w+)\n\*(\w+)\.\*", page, re.MULTILINE)) == fire


def test_links_of_the_docs_lead_somewhere() -> None:
    """Files that are linked exist; sections too."""
    broken = []
    for page in (*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
            path, _, section = target.partition("#")
            file = page.parent / path if path else page
            if "://" not in path and not (file.exists() and (not section or section in _anchors(file))):
                broken.append(f"{page.name}: {target}")

    assert not broken


def _anchors(page: Path) -> list[str]:
    """Its headings' anchors, as GitHub and GitLab make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles]
