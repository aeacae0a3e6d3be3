"""Completion: what a shell offers after `tidegate`, by the shell's own means and a running stack's names."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
PRESS_TAB = """
eval "$(tidegate completion bash)"
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
_tidegate_completion tidegate
printf '%s\\n' "${COMPREPLY[@]}"
"""


def offered(*words: str, env: dict[str, str] | None = None, cwd: Path = ROOT) -> list[str]:
    """What bash offers for the last word."""
    environment = {**(env or {}), "PATH": f"{BIN}:/usr/bin:/bin", "HOME": "/nonexistent"}
    argv = ["bash", "-c", PRESS_TAB, "bash", "tidegate", *words]
    done = subprocess.run(argv, env=environment, cwd=cwd, capture_output=True, text=True, check=True)
    assert not done.stderr
    return done.stdout.split()


def test_commands_and_states_are_offered(tmp_path: Path) -> None:
    """Words that need no gateway."""
    assert offered("sw") == ["switch"]
    assert offered("breaker", "shop", "", cwd=tmp_path) == ["open", "closed", "auto"]
    assert "--reason" in offered("step", "1", "--rea")


def test_names_of_the_running_gateway_are_offered(stack: Any, wait_until: Callable[..., Any]) -> None:
    """Features, limits, breakers and rungs, as configured there."""

    def names(*words: str, env: dict[str, str] | None) -> list[str]:
        # Nobody waits at a keyboard for a gateway that is slow to answer: then nothing is offered.
        return list(wait_until(lambda: offered(*words, env=env)))

    assert names("switch", "", env=stack.env) == ["recommendations", "profile"]
    assert names("switch", "pro", env=stack.env) == ["profile"]
    assert names("limit", "che", env=stack.env) == ["checkout"]
    assert names("breaker", "", env=stack.env) == ["shop"]
    rungs = ["normal", "elevated", "high", "emergency", "auto"]
    wait_until(lambda: offered("step", "", env=stack.env) == rungs)
    assert offered("shut-offs", "clear", "", env=stack.env) == ["all"]
    assert names("switch", "--data", str(stack.data_dir), "pro", env=None) == ["profile"]


def test_without_a_gateway_nothing_is_offered_and_nothing_complains(tmp_path: Path) -> None:
    """No stack, no token, or nobody at the address."""
    assert offered("switch", "", cwd=tmp_path) == []
    nobody = {"TIDEGATE_ADMIN_URL": "http://127.0.0.1:1", "TIDEGATE_ADMIN_TOKEN": "t0ken"}
    assert offered("switch", "", env=nobody) == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_script_is_good_to_its_shell(shell: str) -> None:
    """It asks `tidegate` and nothing else; where the shell is installed, its syntax holds."""
    done = subprocess.run(
        [BIN / "tidegate", "completion", shell], capture_output=True, text=True, check=True, cwd=ROOT
    )

    assert f"_TIDEGATE_COMPLETE={shell}_complete" in done.stdout
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=done.stdout, text=True, check=True)
