"""Image and compose file, as far as they can be checked without an engine."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((ROOT / "compose.yaml").read_text(encoding="utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("keys", "migrate", "shop", "worker", "sandbox", "gateway")
ONCE = ("keys", "migrate")  # end by themselves
PROMETHEUS = yaml.safe_load((ROOT / "config/prometheus/prometheus.yml").read_text(encoding="utf-8"))


def _instructions() -> list[list[str]]:
    """The Dockerfile's instructions as words, continuation lines joined."""
    joined = re.sub(r"\\\n", " ", DOCKERFILE)
    return [
        line.split() for line in joined.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]


def test_every_source_of_the_image_exists_and_is_sent() -> None:
    """COPY finds what it copies, and .dockerignore lets it through."""
    allowed = [
        line[1:].rstrip("/") for line in (ROOT / ".dockerignore").read_text().splitlines() if line[:1] == "!"
    ]
    sources = [
        word.rstrip("/")
        for words in _instructions()
        if words[0] == "COPY" and not words[1].startswith("--from=")
        for word in words[1:-1]
    ]

    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert source in allowed, f"{source} is not in .dockerignore's list"


def test_the_image_is_built_in_stages_and_runs_as_nobody_special() -> None:
    """Build tools stay behind; the process is not root; a healthcheck and pinned packages are there."""
    names = [words[0] for words in _instructions()]
    users = [words[1] for words in _instructions() if words[0] == "USER"]

    assert names.count("FROM") == 2
    assert users == ["tidegate"]
    assert names.index("USER") < names.index("CMD")
    assert "HEALTHCHECK" in names
    assert "--constraint constraints.txt" in DOCKERFILE


def test_no_image_floats() -> None:
    """Every image names a version; `latest` never."""
    bases = [words[1] for words in _instructions() if words[0] == "FROM"]
    images = [service["image"] for service in SERVICES.values()]

    for image in (*bases, *images):
        tag = image.partition(":")[2]
        assert re.search(r"\d", tag), image
        assert "latest" not in image


def test_every_part_of_the_stack_is_there() -> None:
    """Redis twice, PostgreSQL, keys, migration with seed, every process of ours, Prometheus, Grafana."""
    stores = {"redis-durable", "redis-volatile", "redis-sessions", "postgres", "prometheus", "grafana"}

    assert set(SERVICES) == {*OURS, *stores}
    assert "seed" in SERVICES["migrate"]["command"][-1]


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in ONCE])
def test_long_running_services_are_watched_and_restarted(name: str) -> None:
    """A healthcheck and a restart policy each."""
    assert SERVICES[name]["healthcheck"]["test"][0] == "CMD"
    assert SERVICES[name]["restart"] == "unless-stopped"


def test_dependencies_exist_and_wait_for_the_right_thing() -> None:
    """One-shot services are waited for to the end, servers until they are healthy."""
    for name, service in SERVICES.items():
        for needed, how in service.get("depends_on", {}).items():
            wanted = "service_completed_successfully" if needed in ONCE else "service_healthy"
            assert how["condition"] == wanted, f"{name} → {needed}"
            assert needed in SERVICES


def test_only_loopback_ports_are_published() -> None:
    """Nobody outside the machine reaches anything; stores and shop are published nowhere."""
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}

    assert set(published) == {"gateway", "sandbox", "prometheus", "grafana"}
    for ports in published.values():
        assert all(port.startswith("127.0.0.1:") for port in ports)
    assert COMPOSE["networks"]["back"] == {"internal": True}


def test_environment_names_are_known_to_the_code() -> None:
    """A misspelt variable would be ignored in silence."""
    known = set()
    for path in [
        *ROOT.glob("gateway/**/*.py"),
        *ROOT.glob("shop_backend/**/*.py"),
        *ROOT.glob("config/*.yaml"),
    ]:
        known |= set(re.findall(r"TIDEGATE_[A-Z_]+", path.read_text(encoding="utf-8")))
    entrypoint = (ROOT / "scripts/container-entrypoint").read_text(encoding="utf-8")
    by_file = set(re.findall(r"TIDEGATE_[A-Z_]+", entrypoint.partition("for name in")[2].partition(";")[0]))
    assert by_file <= known

    used = {name for service in SERVICES.values() for name in service.get("environment", {})}
    used |= set(re.findall(r"^\s+(TIDEGATE_[A-Z_]+)=", DOCKERFILE, re.MULTILINE))
    for name in used:
        if name.startswith("TIDEGATE_") and name not in known:
            assert name.endswith("_FILE"), name
            assert name.removesuffix("_FILE") in by_file, name


def test_the_gateway_gets_no_key_of_the_shop() -> None:
    """It verifies sessions and holds the admin token; cards and payments are none of its business."""
    gateway = SERVICES["gateway"]

    assert not [
        name for name in gateway["environment"] if "CARD" in name or "DATABASE" in name or "STOCK" in name
    ]
    assert not [volume for volume in gateway["volumes"] if volume.startswith("keys:")]


def test_mounted_files_and_volumes_exist() -> None:
    """Each volume is declared, each bind mount is in the checkout."""
    for name, service in SERVICES.items():
        for volume in service.get("volumes", []):
            source = volume.partition(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), f"{name}: {source}"
            else:
                assert source in COMPOSE["volumes"], f"{name}: {source}"


def test_the_entrypoint_reads_settings_from_files(tmp_path: Path) -> None:
    """TIDEGATE_X_FILE becomes TIDEGATE_X; a missing file is one clear line."""
    (tmp_path / "key").write_text('k1:it\'s "quoted" $HOME\n')
    script = str(ROOT / "scripts/container-entrypoint")
    command = ["sh", script, "sh", "-c", 'printf %s "$TIDEGATE_CARD_KEY"']
    base = {"PATH": "/usr/bin:/bin", "TIDEGATE_CARD_KEY_FILE": str(tmp_path / "key")}
    good = subprocess.run(command, env=base, capture_output=True, text=True, check=False)
    base["TIDEGATE_CARD_KEY_FILE"] = "/nonexistent"
    bad = subprocess.run(command, env=base, capture_output=True, text=True, check=False)

    assert good.stdout == 'k1:it\'s "quoted" $HOME'
    assert bad.returncode == 1
    assert bad.stderr.count("\n") == 1


def test_our_commands_are_commands_of_ours() -> None:
    """What the containers run is what the command line knows."""
    from ops.cli import main

    for name in OURS:
        words = SERVICES[name]["command"]
        words = shlex.split(words[-1]) if words[0] == "sh" else words
        if words[0] == "tidegate":
            assert words[1] in main.commands, name


def test_prometheus_scrapes_what_serves_metrics() -> None:
    """Targets are services of the compose file, on the ports their commands name."""
    for job in PROMETHEUS["scrape_configs"]:
        host, _, port = job["static_configs"][0]["targets"][0].partition(":")
        assert host in SERVICES
        assert port == "9900" if host == "gateway" else port in SERVICES[host]["command"]
    assert all((ROOT / "config/prometheus" / file).exists() for file in PROMETHEUS["rule_files"])


def test_grafana_finds_its_dashboards_where_they_are_mounted() -> None:
    """The provisioned folder, the home page and the source's address are those of the compose file."""
    grafana = ROOT / "config/grafana"
    provider = yaml.safe_load((grafana / "provisioning/dashboards/tidegate.yml").read_text())["providers"][0]
    source = yaml.safe_load((grafana / "provisioning/datasources/prometheus.yml").read_text())["datasources"][
        0
    ]
    mounts = dict(volume.removesuffix(":ro").split(":") for volume in SERVICES["grafana"]["volumes"])
    home = SERVICES["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]

    assert mounts["./config/grafana/dashboards"] == provider["options"]["path"] == str(Path(home).parent)
    assert (grafana / "dashboards" / Path(home).name).is_file()
    assert source["url"] == "http://prometheus:9090"
