"""An admin API for tests of commands: it answers with what it is told to, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
from typing import Any

from click.testing import CliRunner, Result

from ops.cli import main
from tests.ops.http_server import Asked, serving


class Api:
    """An admin API that answers with what it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str, Any]] = []  # method, path, authorization, body
        self.answer: tuple[int, bytes] = (200, b"{}")

    def serve(self) -> contextlib.AbstractContextManager[str]:
        """Its URL, while the block lasts."""
        return serving(self._said)

    def _said(self, asked: Asked) -> tuple[int, bytes]:
        body = json.loads(asked.body) if asked.body else None
        self.asked.append((asked.method, asked.path, asked.header["Authorization"], body))
        return self.answer


def run(api: Api, *words: str) -> Result:
    with api.serve() as url:
        return CliRunner().invoke(main, [*words, "--admin-url", url, "--token", "t0ken"])
