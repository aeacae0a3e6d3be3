"""What is written for people and editors is what the code does."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import click
import pytest
import yaml
from jsonschema import Draft202012Validator
from prometheus_client.process_collector import ProcessCollector

from gateway import config, schema
from gateway.metrics import METRICS
from ops.cli import main
from ops.commands.group import EXIT_CODES
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


def _commands_of(page: str) -> set[tuple[str, ...]]:
    """What a page says to type: every `tidegate ...` in code, up to its first sign that ends a command."""
    code = re.findall(r"```sh\n(.*?)```", page, re.DOTALL) + re.findall(r"`([^`\n]+)`", page)
    found = set()
    for line in "\n".join(code).splitlines():
        for typed in re.findall(r"(?:^|[ /$(])tidegate((?: [^\s|&;#)`]+)+)", line.strip()):
            found.add(tuple(shlex.split(typed, posix=True) if typed.count('"') % 2 == 0 else typed.split()))
    return found


def _objection(words: tuple[str, ...]) -> str:
    """What is wrong with a command that people are told to type; empty when nothing is."""
    command: click.Command = main
    left = list(words)
    while isinstance(command, click.Group) and left and not left[0].startswith("-"):
        known = command.commands
        if left[0] not in known:
            return f"no command {left[0]}"
        command = known[left.pop(0)]
    options = {name: option for option in command.params for name in option.opts}
    for word in left:
        if word.startswith("--") and word.partition("=")[0] not in options and word != "--help":
            return f"no option {word}"
    arguments = [param for param in command.params if isinstance(param, click.Argument)]
    takes = {name for name, option in options.items() if not getattr(option, "is_flag", False)}
    given = [
        word
        for at, word in enumerate(left)
        if not word.startswith("--") and not (at and left[at - 1] in takes and left[at - 1].startswith("--"))
    ]
    for argument, word in zip(arguments, given, strict=False):
        choices = getattr(argument.type, "choices", None)
        if choices and word.isascii() and word not in choices and not word.isupper() and "|" not in word:
            return f"{word} is none of {', '.join(choices)}"
    return ""


PAGES = ("README.md", "README.zh-CN.md", "CHANGELOG.md", "docs/operate.md", "docs/observe.md")


@pytest.mark.parametrize("page", PAGES)
def test_commands_in_the_docs_exist(page: str) -> None:
    """Whatever a page says to type is a command of ours, with options it has and words it takes."""
    text = (ROOT / page).read_text(encoding="utf-8")
    commands = _commands_of(text)

    assert commands
    assert not [f"tidegate {' '.join(words)}: {why}" for words in commands if (why := _objection(words))]


@pytest.mark.parametrize(
    "typed", ["swich x off", "switch x of", "switch x off --fro 10m", "dead-letters lst", "breaker shop auti"]
)
def test_a_wrong_command_in_a_page_would_be_seen(typed: str) -> None:
    """The check itself works."""
    (words,) = _commands_of(f"see `tidegate {typed}` there")

    assert _objection(words)


def test_the_night_of_the_sale_knows_every_alert_switch_and_exit_status() -> None:
    """docs/operate.md has a line for each alert that can fire, and tells every exit status as --help does."""
    page = (ROOT / "docs/operate.md").read_text(encoding="utf-8")
    alerts = yaml.safe_load((ROOT / "config/prometheus/alerts.yml").read_text(encoding="utf-8"))
    fire = {
        rule["alert"]: rule["labels"]["severity"] for group in alerts["groups"] for rule in group["rules"]
    }
    statuses = set(re.findall(r"^  (\d)  ", EXIT_CODES, re.MULTILINE))

    assert dict(re.findall(r"^\| \[(\w+)\]\(observe\.md#\w+\) \*(\w+)\*", page, re.MULTILINE)) == fire
    assert set(re.findall(r"^\| (\d) \|", page, re.MULTILINE)) == statuses


def test_both_readmes_say_the_same() -> None:
    """The Chinese README has every section, command, link and picture of the English one."""
    english, chinese = ((ROOT / name).read_text("utf-8") for name in ("README.md", "README.zh-CN.md"))

    def code(page: str) -> list[str]:
        blocks = re.findall(r"```\w*\n(.*?)```", page, re.DOTALL)
        return [re.sub(r"\s*#.*", "", line) for line in "".join(blocks).splitlines()]

    def links(page: str) -> Counter[str]:
        return Counter(re.findall(r"\]\(([^)\s]+)\)", page)) - Counter(["README.md", "README.zh-CN.md"])

    assert code(chinese) == code(english)
    assert links(chinese) == links(english)
    assert re.findall(r"^#+ ", chinese, re.MULTILINE) == re.findall(r"^#+ ", english, re.MULTILINE)
    assert chinese.count("\n- ") == english.count("\n- ")  # what is there, and what is not there yet
    assert chinese.count("\n|") == english.count("\n|")


def test_pictures_are_small_and_used() -> None:
    """PNG, below 200 kB each, with a text for who does not see them; none that no page shows."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    pictures = sorted((ROOT / "docs/pictures").iterdir())

    assert pictures
    for picture in pictures:
        assert picture.read_bytes().startswith(b"\x89PNG"), picture.name
        assert picture.stat().st_size < 200_000, picture.name
        assert f"pictures/{picture.name})" in text, picture.name
    assert not re.findall(r"!\[\]\(", text)


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
