"""The README, pasted line by line."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.waiting import PATIENCE

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_purchase_with_curl_works_as_it_is_written(stack: Any, tmp_path: Path) -> None:
    """From the session to the card key, without a word to fill in; every answer has a line of its own."""
    if shutil.which("curl") is None:
        pytest.skip("no curl on PATH")
    _, _, after = README.read_text("utf-8").partition("## The same with curl\n")
    found = re.search(r"```sh\n(.*?)```", after, re.DOTALL)
    assert found is not None
    script = found[1].replace("http://127.0.0.1:8000", stack.url)
    assert stack.url in script
    done = subprocess.run(
        ["/bin/sh", "-euc", script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer.get("status") for answer in answers] == [None, None, "pending", None, "delivered"]
    assert len(answers[-1]["cards"]) == 1
