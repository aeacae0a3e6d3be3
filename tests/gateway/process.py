"""A gateway as its users run it: a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from jsonschema import Draft202012Validator

from tests.waiting import until

TOKEN = "a-token-for-tests"


def assert_described(document: Any, answer: httpx.Response) -> None:
    """That the OpenAPI document allows this answer to its request, down to its last member."""
    path, method = answer.request.url.path, answer.request.method.lower()
    for template, operations in document["paths"].items():
        if re.fullmatch(re.sub(r"\{\w+\}", "[^/]+", template), path) and method in operations:
            break
    else:
        assert path == "/" or path.startswith("/static/") or answer.status_code in {404, 405}, path
        return
    allowed = operations[method]["responses"]
    assert str(answer.status_code) in allowed, (method, template, answer.status_code, answer.text)
    media = answer.headers.get("content-type", "").partition(";")[0]
    content = allowed[str(answer.status_code)].get("content", {})
    assert media in content or not answer.content, (method, template, media)
    if media.endswith("json") and answer.content:
        schema = {**content[media]["schema"], "components": document["components"]}
        Draft202012Validator(schema).validate(answer.json())


class GatewayProcess:
    """A running `python -m gateway serve`."""

    def __init__(self, config: Path) -> None:
        self.config = config
        self.lines: list[str] = []
        self.url = self.admin_url = ""
        self.process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None
        self._described: Any = None  # the admin API's OpenAPI document

    async def start(self, *words: str, env: dict[str, str] | None = None) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TIDEGATE_")}
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "gateway", "serve", "--config", str(self.config), *words,
            env={**environment, "TIDEGATE_ADMIN_TOKEN": TOKEN, **(env or {})},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        self._reading = asyncio.create_task(self._read())
        await until(lambda: self.url or self.process.returncode is not None, lambda: self.lines)
        assert self.url, self.lines

    async def _read(self) -> None:
        assert self.process is not None
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            text = line.decode()
            self.lines.append(text)
            if found := re.match(r"gateway ready: (\S+) with (?:1 worker|\d+ workers), admin (\S+)", text):
                self.url, self.admin_url = found[1], found[2]

    @property
    def port(self) -> int:
        return int(self.url.rsplit(":", 1)[1])

    def workers(self) -> list[psutil.Process]:
        """The processes that serve, as many as there are just now."""
        assert self.process is not None
        servers = psutil.Process(self.process.pid).children()
        return [worker for fork_server in servers for worker in fork_server.children()]

    async def replaced(self) -> None:
        """Wait until a worker that was killed has its successor."""

        async def all_serve() -> bool:
            restarts = await self.metric("tidegate_worker_restarts_total")
            ready = await self.admin("GET", "/readyz", token=None)
            return restarts == 1 and ready.status_code == 200

        await until(all_serve, self.log)

    def log(self) -> str:
        return "".join(self.lines)

    async def says(self, words: str) -> None:
        """Wait for words in its log, which comes by another way than its answers."""
        await until(lambda: words in self.log(), self.log)

    def edit(self, **changes: Any) -> None:
        """Change top-level keys of the configuration file."""
        text = yaml.safe_dump({**yaml.safe_load(self.config.read_text()), **changes})
        whole = self.config.with_suffix(".new")  # a look at half a file would be one more reload
        whole.write_text(text)
        whole.replace(self.config)

    async def admin(
        self, method: str, path: str, body: Any = None, token: str | None = TOKEN
    ) -> httpx.Response:
        """Ask the admin API; the answer is one that its own description allows."""
        headers = {"authorization": f"Bearer {token}"} if token is not None else {}
        async with httpx.AsyncClient(base_url=self.admin_url) as client:
            sent: Any = {"content": body} if isinstance(body, bytes) else {"json": body}
            answer = await client.request(method, path, headers=headers, **sent)
            if self._described is None:
                self._described = (await client.get("/api/openapi.json")).json()
        assert_described(self._described, answer)
        return answer

    async def metric(self, name: str, **labels: str) -> float:
        """The sum of a metric's samples with these labels."""
        text = (await self.admin("GET", "/metrics", token=None)).text
        total = 0.0
        for line in text.splitlines():
            if found := re.fullmatch(re.escape(name) + r"(?:\{(.*)\})? (\S+)", line):
                given = dict(re.findall(r'(\w+)="([^"]*)"', found[1] or ""))
                if all(given.get(key) == value for key, value in labels.items()):
                    total += float(found[2])
        return total

    async def fresh(self, path: str = "/", **kwargs: Any) -> httpx.Response:
        """A GET over a connection of its own, so that any worker may get it."""
        async with httpx.AsyncClient(base_url=self.url) as client:
            return await client.get(path, **kwargs)

    async def raw(self, request: bytes) -> bytes:
        """Send bytes, return all that comes until the connection closes."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(request)
        answer = b""
        with contextlib.suppress(ConnectionError):
            while some := await reader.read(1 << 16):
                answer += some
        writer.close()
        return answer

    async def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        if self.process.returncode is None:
            self.process.send_signal(number)
        code = await self.process.wait()
        if self._reading is not None:
            await self._reading
        return code
