"""The command line: what it says, what it answers, and how it ends."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ops import cli, status
from ops.cli import main

ROOT = Path(__file__).resolve().parents[2]


class Api:
    """An admin API that answers with what it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, Any]] = []  # method, path, authorization, body
        self.answer: tuple[int, bytes] = (200, b"{}")

    @contextlib.contextmanager
    def serve(self) -> Iterator[str]:
        api = self

        class Handler(BaseHTTPRequestHandler):
            def _handle(self) -> None:
                raw = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                body = json.loads(raw) if raw else None
                api.asked.append((self.command, self.path, self.headers["Authorization"], body))
                self.send_response(api.answer[0])
                self.send_header("Content-Length", str(len(api.answer[1])))
                self.end_headers()
                self.wfile.write(api.answer[1])

            do_GET = do_PUT = _handle  # noqa: N815 - named by http.server

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()
            thread.join()


@pytest.fixture
def api() -> Api:
    return Api()


def _run(api: Api, *words: str) -> Result:
    with api.serve() as url:
        return CliRunner().invoke(main, [*words, "--admin-url", url, "--token", "t0ken"])


@pytest.mark.parametrize(
    ("words", "path", "body"),
    [
        (("switch", "profile", "off"), "/api/features/profile", {"state": "off"}),
        (
            ("switch", "profile", "off", "--for", "10m", "--reason", "sale"),
            "/api/features/profile",
            {"state": "off", "for": "10m", "reason": "sale"},
        ),
        (("step", "2"), "/api/step", {"step": 2}),
        (("step", "auto"), "/api/step", {"step": "auto"}),
        (("breaker", "shop", "open"), "/api/breakers/shop", {"state": "open"}),
        (("limit", "user", "5/second", "--for", "1h"), "/api/limits/user", {"rate": "5/second", "for": "1h"}),
        (("limit", "a/../b", "off"), "/api/limits/a%2F..%2Fb", {"rate": "off"}),
    ],
)
def test_words_become_the_contracts_requests(
    api: Api, words: tuple[str, ...], path: str, body: dict[str, Any]
) -> None:
    """Each command is one PUT with the token, and prints the answer as JSON."""
    done = _run(api, *words)

    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == {}
    assert api.asked == [("PUT", path, "Bearer t0ken", body)]


@pytest.mark.parametrize(
    "words",
    [
        ("switch", "profile", "maybe"),
        ("step", "-1"),
        ("step", "two"),
        ("breaker", "shop", "half"),
        ("nothing",),
    ],
)
def test_wrong_words_never_reach_the_api(api: Api, words: tuple[str, ...]) -> None:
    """Usage errors: exit 2."""
    done = _run(api, *words)

    assert done.exit_code == 2
    assert api.asked == []


def test_a_refusal_is_the_apis_own_words_on_one_line(api: Api) -> None:
    """Problem details become one line; exit 8."""
    api.answer = (404, json.dumps({"title": "Not found", "detail": "no feature\nprofil"}).encode())
    done = _run(api, "switch", "profil", "off")

    assert done.exit_code == 8
    assert done.output == "tidegate: the admin API refused with 404: Not found: no feature profil\n"


@pytest.mark.parametrize("raw", [b"", b"<html>", b"[1, 2]", b"\xff"])
def test_a_strange_answer_is_one_line(api: Api, raw: bytes) -> None:
    """Whatever stands behind the address, no stack trace."""
    api.answer = (500, raw)
    done = _run(api, "step", "1")

    assert done.exit_code == 8
    assert done.output.count("\n") == 1


def test_nobody_there_is_one_line_and_the_token_stays_secret(tmp_path: Path) -> None:
    """Exit 7, with the address and a hint."""
    words = ["status", "--admin-url", "http://127.0.0.1:1", "--token", "t0ken", "--data", str(tmp_path)]
    done = CliRunner().invoke(main, words)

    assert done.exit_code == 7
    assert "the admin API at http://127.0.0.1:1 does not answer" in done.output
    assert "t0ken" not in done.output


def test_no_stack_is_one_line(tmp_path: Path) -> None:
    """A folder where nothing ran yet: says so, and what to do."""
    done = CliRunner().invoke(main, ["status", "--data", str(tmp_path)], env={"TIDEGATE_ADMIN_URL": ""})

    assert done.exit_code == 7
    assert f"no stack has run in {tmp_path}" in done.output


def test_status_survives_an_empty_gate(api: Api) -> None:
    """A gateway that says little is still shown."""
    done = _run(api, "status")

    assert done.exit_code == 0, done.output
    assert "traffic" in done.output


def test_the_shops_metrics_are_summed_over_its_processes() -> None:
    """Shop and worker both report; one screen shows the sum."""
    page = 'shop_orders_total{state="paid"} 2.0\nshop_stock{sku="a",state="free"} 5.0\n'

    samples = status.shop_samples([f"# TYPE shop_orders counter\n{page}", page, ""])

    assert samples["shop_orders_total"][("paid",)] == 4
    assert samples["shop_stock"]["a", "free"] == 10


def test_help_lists_every_exit_status() -> None:
    """Documented where an operator looks."""
    done = CliRunner().invoke(main, ["--help"])

    for code in range(9):
        assert f"\n    {code}  " in done.output


def test_help_loads_no_drivers() -> None:
    """The command line starts quickly: heavy modules wait for the command that needs them."""
    code = (
        "import sys, ops.cli\n"
        "heavy = {'psycopg', 'redis', 'rich.console', 'cryptography', 'httpx'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)

    assert done.returncode == 0, done.stderr


def test_check_is_the_gateways_own(tmp_path: Path) -> None:
    """`tidegate check` ends with the gateway's verdict and its lines."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("listen: {prot: 1}\n")
    argv = [sys.executable, "-m", "ops.cli", "check", str(bad)]
    done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, env={**os.environ}, check=False)

    assert done.returncode == 1
    assert f"{bad}:1: listen.prot: " in done.stdout + done.stderr


def test_keys_are_made_for_containers(tmp_path: Path) -> None:
    """`tidegate keys` makes what compose mounts, and says nothing secret."""
    done = CliRunner().invoke(main, ["keys", "--data", str(tmp_path / "keys")])

    token = (tmp_path / "keys" / "admin-token").read_text().strip()
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "keys" / "keys").iterdir()} == {
        "card-key",
        "sandbox-secret",
        "session.pem",
        "session.pub.pem",
    }
    assert token not in done.output


def test_every_command_has_a_summary() -> None:
    """`--help` says what each is for."""
    assert all(command.get_short_help_str() for command in cli.main.commands.values())
