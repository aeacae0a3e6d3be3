"""An admin API for tests of commands: it answers with what it is told to, and remembers what it was asked."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from click.testing import CliRunner, Result

from ops.cli import main


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

            do_GET = do_PUT = do_DELETE = do_POST = _handle  # noqa: N815 - named by http.server

            def log_message(self, *_: object) -> None:
                """Stay quiet."""

        with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
            thread.start()
            yield f"http://127.0.0.1:{server.server_port}"
            server.shutdown()
            thread.join()


def run(api: Api, *words: str) -> Result:
    with api.serve() as url:
        return CliRunner().invoke(main, [*words, "--admin-url", url, "--token", "t0ken"])
