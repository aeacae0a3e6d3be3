"""The scripts that a stranger runs first."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("there", "chosen"),
    [
        ({"python3": "plain", "python3.13": "profiled"}, "python3.13"),
        ({"python3": "profiled", "python3.13": "profiled"}, "python3"),
        ({"python3": "too old", "python3.12": "plain"}, "python3.12"),
        ({"python3": "too old"}, None),
    ],
)
def test_the_fastest_python_is_chosen(tmp_path: Path, there: dict[str, str], chosen: str | None) -> None:
    """One built with profile-guided optimisation first, else the first that is new enough."""
    (tmp_path / "scripts").mkdir()
    shutil.copy(ROOT / "scripts/venv", tmp_path / "scripts")
    # The system's own Python is left out, so that the result doesn't depend on it.
    script = (tmp_path / "scripts/venv").read_text().replace(" /usr/bin/python3;", ";")
    (tmp_path / "scripts/venv").write_text(script)
    for name in ("pyproject.toml", "constraints.txt"):
        (tmp_path / name).write_text("")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("sh", "cat", "cksum", "dirname"):
        (tools / name).symlink_to(shutil.which(name) or "")
    for name, build in there.items():
        answer = "exit 1" if build == "too old" else f"echo {build}"
        text = f'#!/bin/sh\n[ "$1" = -c ] && {{ {answer}; exit; }}\necho "$0 $*" >>called\nexit 1\n'
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    done = subprocess.run(
        [tools / "sh", "scripts/venv"],
        cwd=tmp_path,
        env={"PATH": str(tools)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0, "none of these can make an environment"
    if chosen is None:
        assert "needs Python 3.11 or newer" in done.stderr
    else:
        assert (tmp_path / "called").read_text() == f"{tools / chosen} -m venv .venv\n"
