"""The command line: what it says, what it answers, and how it ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.config import Admin
from ops import change, cli
from ops.admin_client import AdminClient, Token
from ops.cli import main
from tests.ops.admin_api import Api, run

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("words", "path", "body"),
    [
        (("switch", "profile", "off"), "/api/features/profile", {"state": "off"}),
        (
            ("switch", "profile", "off", "--for", "10m", "--reason", "sale"),
            "/api/features/profile",
            {"state": "off", "for": "10m", "reason": "sale"},
        ),
        (("step", "2"), "/api/step", {"step": 2}),  # a name is looked up first, see below
        (("step", "auto"), "/api/step", {"step": "auto"}),
        (("breaker", "shop", "open"), "/api/breakers/shop", {"state": "open"}),
        (("limit", "user", "5/second", "--for", "1h"), "/api/limits/user", {"rate": "5/second", "for": "1h"}),
        (("limit", "a/../b", "off"), "/api/limits/a%2F..%2Fb", {"rate": "off"}),
    ],
)
def test_words_become_the_contracts_requests(
    api: Api, words: tuple[str, ...], path: str, body: dict[str, Any]
) -> None:
    """Each command is one PUT with the token; --json prints the answer as it is."""
    done = run(api, *words, "--json")

    assert done.exit_code == 0, done.output
    assert json.loads(done.output) == {}
    assert api.asked == [("PUT", path, "Bearer t0ken", body)]


@pytest.mark.parametrize(
    "words",
    [
        ("switch", "profile", "maybe"),
        ("step", "-1"),
        ("breaker", "shop", "half"),
        ("nothing",),
    ],
)
def test_wrong_words_never_reach_the_api(api: Api, words: tuple[str, ...]) -> None:
    """Usage errors: exit 2."""
    done = run(api, *words)

    assert done.exit_code == 2
    assert api.asked == []


def test_a_refusal_is_the_apis_own_words_on_one_line(api: Api) -> None:
    """Problem details become one line; exit 8."""
    detail = "no feature of that\nname; there are: profile, recommendations"
    api.answer = (404, json.dumps({"title": "Not found", "detail": detail}).encode())
    done = run(api, "switch", "profil", "off")

    assert done.exit_code == 8
    assert done.output == (
        "tidegate: no feature of that name; there are: profile, recommendations; did you mean profile?\n"
    )


def test_nothing_is_meant_where_nothing_is(api: Api) -> None:
    """The word for an empty list is no name."""
    api.answer = (404, b'{"detail": "nothing of that id is shut off; there are: none"}')
    done = run(api, "shut-offs", "clear", "nope")

    assert done.output == "tidegate: nothing of that id is shut off; there are: none\n"


def test_a_refused_field_is_named_with_its_mistake(api: Api) -> None:
    """No data structure of ours: `FIELD: what is wrong`."""
    errors = [{"field": "for", "detail": "not a duration; write for example 5s"}]
    api.answer = (422, json.dumps({"title": "Bad", "detail": "wanted: for", "errors": errors}).encode())
    done = run(api, "switch", "profile", "off", "--for", "10")

    assert done.exit_code == 8
    assert done.output == "tidegate: for: not a duration; write for example 5s\n"


@pytest.mark.parametrize(
    ("by", "place", "remedy"),
    [
        ("variable", "TIDEGATE_ADMIN_TOKEN", "correct TIDEGATE_ADMIN_TOKEN, or unset it"),
        ("option", "--token", "give the right one by TIDEGATE_ADMIN_TOKEN"),
        ("file", "admin-token", "give the right one by TIDEGATE_ADMIN_TOKEN"),
    ],
)
def test_a_wrong_token_says_where_it_came_from(
    api: Api, tmp_path: Path, by: str, place: str, remedy: str
) -> None:
    """401: the place that holds the wrong one, and what to do; never the token."""
    (tmp_path / "admin-token").write_text("t0ken\n")
    api.answer = (401, json.dumps({"detail": "nobody has this token"}).encode())
    with api.serve() as url:
        words = ["status", "--data", str(tmp_path), "--admin-url", url]
        words += ["--token", "t0ken"] if by == "option" else []
        environment = {"TIDEGATE_ADMIN_TOKEN": "t0ken" if by == "variable" else None}
        done = CliRunner().invoke(main, words, env=environment)

    assert done.exit_code == 8
    assert f"{place} (nobody has this token); {remedy}" in done.output
    assert "t0ken" not in done.output


PIN = {"by": "operator", "reason": "database is hot", "since": 100.0, "until": 700.0, "seconds_left": 599}
IN_ALL = {"applied": 2, "workers": 2}


@pytest.mark.parametrize(
    ("words", "answer", "sentence"),
    [
        (
            ("switch", "profile", "off"),
            {"on": False, "pin": PIN, **IN_ALL},
            "profile is off for 10 min in 2 of 2 workers: database is hot",
        ),
        (
            ("switch", "profile", "auto"),
            {"on": True, "pin": {}, **IN_ALL},
            "profile is left to the ladder (now on) in 2 of 2 workers",
        ),
        (
            ("step", "2"),
            {"step": 2, "name": "high", "pin": {}, "applied": 1, "workers": 2},
            "step 2 (high) is pinned in 1 of 2 workers",
        ),
        (("step", "auto"), {"step": 0, "name": "normal"}, "the step follows the pressure (now 0 normal)"),
        (
            ("breaker", "shop", "open"),
            {"pin": PIN | {"reason": ""}},
            "the breaker of shop is held open for 10 min",
        ),
        (("breaker", "shop", "auto"), {}, "the breaker of shop judges by itself"),
        (("limit", "user", "5 per second"), {"rate": "5/second"}, "limit user is 5/second"),
        (("limit", "user", "auto"), {"configured": "9/hour"}, "limit user is as configured (now 9/hour)"),
        (("limit", "user", "off"), {"rate": "off"}, "limit user is off: it refuses nobody"),
    ],
)
def test_a_change_is_told_in_a_sentence(
    api: Api, words: tuple[str, ...], answer: dict[str, Any], sentence: str
) -> None:
    """What holds now, for how long, where, and why."""
    api.answer = (200, json.dumps(answer).encode())
    done = run(api, *words)

    assert done.exit_code == 0, done.output
    assert done.output == sentence + "\n"


@given(seconds=st.integers(0, 10**8))
def test_durations_are_exact(seconds: int) -> None:
    """The words stand for as many seconds as there were."""
    number, unit = change.duration(seconds).split()

    assert int(number) * {"s": 1, "min": 60, "h": 3600, "d": 86400}[unit] == seconds


def test_a_step_may_be_given_by_name(api: Api) -> None:
    """The ladder is asked for its rungs; an unknown name is told with what there is."""
    rungs = [{"step": 0, "name": "normal"}, {"step": 1, "name": "elevated"}]
    api.answer = (200, json.dumps({"steps": rungs}).encode())
    done = run(api, "step", "elevated")
    wrong = run(api, "step", "elevatd")

    assert done.exit_code == 0, done.output
    assert [(method, path, body) for method, path, _, body in api.asked[:2]] == [
        ("GET", "/api/step", None),
        ("PUT", "/api/step", {"step": 1}),
    ]
    assert wrong.exit_code == 8
    assert "there are: 0 normal, 1 elevated, and auto; did you mean elevated?" in wrong.output
    assert len(api.asked) == 3


@pytest.mark.parametrize("raw", [b"", b"<html>", b"[1, 2]", b"\xff"])
def test_a_strange_answer_is_one_line(api: Api, raw: bytes) -> None:
    """Whatever stands behind the address, no stack trace."""
    api.answer = (500, raw)
    done = run(api, "step", "1")

    assert done.exit_code == 8
    assert done.output.count("\n") == 1


def test_nobody_there_is_one_line_and_the_token_stays_secret(tmp_path: Path) -> None:
    """Exit 7, with the address and a hint."""
    words = ["status", "--admin-url", "http://127.0.0.1:1", "--token", "t0ken", "--data", str(tmp_path)]
    done = CliRunner().invoke(main, words)

    assert done.exit_code == 7
    assert "the admin API at http://127.0.0.1:1 does not answer" in done.output
    assert "t0ken" not in done.output


@pytest.mark.parametrize("more", [(), ("--admin-url", "http://127.0.0.1:1")])
@pytest.mark.parametrize("command", ["status", "trail"])
def test_no_token_is_one_line_and_one_status(tmp_path: Path, command: str, more: tuple[str, ...]) -> None:
    """A folder where nothing ran yet, with an address or without: says what to do; exit 9."""
    empty = {"TIDEGATE_ADMIN_URL": "", "TIDEGATE_ADMIN_TOKEN": ""}
    done = CliRunner().invoke(main, [command, "--data", str(tmp_path), *more], env=empty)

    assert done.exit_code == 9
    assert done.output.count("\n") == 1
    assert str(tmp_path) in done.output
    assert "set TIDEGATE_ADMIN_TOKEN" in done.output


def test_a_token_alone_means_the_standard_address(tmp_path: Path) -> None:
    """A gateway of its own has no stack's folder: the token is enough."""
    client = AdminClient.find(tmp_path, None, Token("t0ken", "--token"))

    assert client.url == "http://127.0.0.1:9900"
    assert client.shop_metrics == ()


def test_status_survives_an_empty_gate(api: Api) -> None:
    """A gateway that says little is still shown."""
    done = run(api, "status")

    assert done.exit_code == 0, done.output
    assert "traffic" in done.output


@pytest.mark.parametrize("name", ["vera", "v-2_x", "v" * 63, "v" * 64, "Vera", "v s", "2v", "", "v\n"])
def test_a_token_is_made_for_a_name_that_the_config_takes(name: str) -> None:
    """No other: its line would be refused, and the token is shown only once."""
    done = CliRunner().invoke(main, ["token", "--json", "--", name])
    made = {"name": name, "role": "viewer", "token_sha256": "0" * 64}
    try:
        Admin.model_validate({"tokens": [made]})
    except ValidationError:
        assert done.exit_code == 2
        assert "use lower-case letters, digits, - and _, a letter first" in done.output
    else:
        assert json.loads(done.output)["name"] == name


def test_a_token_says_where_its_line_goes() -> None:
    """The shipped config has a list of tokens already, and a key given twice is a mistake."""
    done = CliRunner().invoke(main, ["token", "vera"])
    block = yaml.safe_load(done.output[done.output.index("  tokens:") :])

    assert "in place of\n`tokens: []`, or only its last line below the tokens that are there" in done.output
    assert yaml.safe_load((ROOT / "config/gateway.yaml").read_text())["admin"]["tokens"] == []
    Admin.model_validate(block)


def test_help_lists_every_exit_status() -> None:
    """Documented where an operator looks."""
    done = CliRunner().invoke(main, ["--help"])

    for code in range(10):
        assert f"\n    {code}  " in done.output


@pytest.mark.parametrize("words", [[], ["cards"], ["dead-letters"], ["shut-offs"]])
def test_help_cuts_no_sentence(words: list[str]) -> None:
    """What a command does is told to its end, over two lines where there must be."""
    said = CliRunner().invoke(main, [*words, "--help"]).output

    assert "Commands:" in said
    assert "..." not in said.partition("Commands:")[2]


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


def test_check_speaks_of_the_file_when_there_is_no_key(tmp_path: Path) -> None:
    """A folder, an empty file, a good file: words without an odd placeholder."""
    (tmp_path / "empty.yaml").touch()
    one = 'upstreams: {a: {servers: ["http://127.0.0.1:1"]}}\nroutes: [{match: "/**", upstream: a}]\n'
    (tmp_path / "one.yaml").write_text(one)

    def said(file: Path) -> str:
        argv = [sys.executable, "-m", "ops.cli", "check", str(file)]
        done = subprocess.run(argv, capture_output=True, text=True, cwd=ROOT, check=False)
        return done.stdout + done.stderr

    assert said(tmp_path) == f"{tmp_path}: can't be read: is a directory\n"
    assert said(tmp_path / "empty.yaml").startswith(f"{tmp_path}/empty.yaml:1: the file is empty; expected")
    assert said(tmp_path / "one.yaml") == f"{tmp_path}/one.yaml: good (1 route, 0 limits)\n"


def test_the_gateway_alone_says_when_it_stops(tmp_path: Path, wait_until: Callable[..., Any]) -> None:
    """One line at its start, one at its end."""
    config = tmp_path / "one.yaml"
    config.write_text(
        'upstreams: {a: {servers: ["http://127.0.0.1:1"]}}\nroutes: [{match: "/**", upstream: a}]\n'
        f"admin: {{state_file: {tmp_path}/switches.json}}\n"
    )
    log = tmp_path / "log"
    words = ["gateway", "--config", str(config), "--port", "0", "--admin-port", "0", "--workers", "1"]
    with log.open("w") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "ops.cli", *words],
            stdout=out,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env={**os.environ, "TIDEGATE_ADMIN_TOKEN": "t0ken"},
        )
    try:
        wait_until(lambda: "gateway ready" in log.read_text(), what="the gateway")
    finally:
        process.terminate()
        process.wait(30)

    assert process.returncode == 0
    assert log.read_text().splitlines()[-1] == "gateway stopped"


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
