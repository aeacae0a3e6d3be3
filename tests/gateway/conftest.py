"""A gateway as its users run it, a process of its own, before an upstream that the test scripts."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import pytest_asyncio
import yaml
from jsonschema import Draft202012Validator

from ops import embedded
from tests import unsupervised
from tests.waiting import until

TOKEN = "a-token-for-tests"
Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter, "Seen"], Awaitable[None]]


class Seen:
    """One request as the upstream got it."""

    def __init__(self, head: bytes, body: bytes) -> None:
        lines = head.split(b"\r\n")
        self.method, self.target, _ = lines[0].decode("latin-1").split(" ")
        self.fields = [tuple(line.decode("latin-1").split(": ", 1)) for line in lines[1:] if line]
        self.body = body

    def values(self, name: str) -> list[str]:
        return [value for field, value in self.fields if field.lower() == name.lower()]


class FakeShop:
    """An upstream over real sockets; answers 200 with a small JSON unless a path is scripted."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.scripts: dict[str, Answer] = {}
        self.lost = 0  # connections that were closed on us while we answered
        self.port = 0
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[Any]] = set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=4096)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"(?im)^content-length: (\d+)\r$", head)
                body = await reader.readexactly(int(length[1])) if length else b""
                seen = Seen(head, body)
                self.seen.append(seen)
                await self.scripts.get(seen.target.partition("?")[0], self.ok)(reader, writer, seen)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._connections.discard(task)
            writer.close()

    @staticmethod
    async def ok(_: asyncio.StreamReader, writer: asyncio.StreamWriter, seen: Seen) -> None:
        body = b'{"ok": true}'
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
        writer.write(head if seen.method == "HEAD" else head + body)


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
            if found := re.match(r"gateway ready: (\S+) with \d+ workers, admin (\S+)", text):
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
        with contextlib.suppress(ConnectionError):
            answer = await reader.read()
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


@pytest.fixture(name="until", scope="session")
def until_fixture() -> Any:
    return until


@pytest.fixture
async def shop() -> AsyncIterator[FakeShop]:
    """An upstream to script."""
    fake = FakeShop()
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def start_gateway(tmp_path: Path, shop: FakeShop) -> AsyncIterator[Any]:
    """Starts a gateway before the fake shop; keys given replace those of its configuration."""
    running: list[GatewayProcess] = []

    async def start(*words: str, env: dict[str, str] | None = None, **keys: Any) -> GatewayProcess:
        config = {
            "listen": {"port": 0, "workers": 2, "drain": "30s"},
            "admin": {"port": 0},
            "upstreams": {
                "shop": {"servers": [f"http://127.0.0.1:{shop.port}"], "timeout": {"total": "60s"}}
            },
            "features": {"recommendations": {"fallback": {"json": {"items": []}}}},
            "routes": [
                {"match": "/recommendations", "upstream": "shop", "feature": "recommendations"},
                {"match": "/**", "upstream": "shop"},
            ],
        } | keys
        file = tmp_path / f"gateway-{len(running)}.yaml"
        file.write_text(yaml.safe_dump(config))
        gateway = GatewayProcess(file)
        running.append(gateway)
        await gateway.start(*words, env=env)
        return gateway

    yield start
    for gateway in running:
        if gateway.process is not None and gateway.process.returncode is None:
            gateway.process.kill()
        await gateway.stop()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def one_gateway(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayProcess]:
    """A gateway for tests that leave it as they found it; nothing stands behind it."""
    file = tmp_path_factory.mktemp("gateway") / "gateway.yaml"
    config = {
        "listen": {"port": 0, "workers": 1},
        "admin": {"port": 0},
        "upstreams": {"shop": {"servers": ["http://127.0.0.1:9"]}},
        "features": {"recommendations": {"fallback": {"json": {"items": []}}}},
        "limits": {"all": {"rate": "100/second", "per": "global"}},
        "routes": [{"match": "/**", "upstream": "shop", "feature": "recommendations", "limits": ["all"]}],
    }
    file.write_text(yaml.safe_dump(config))
    gateway = GatewayProcess(file)
    await gateway.start()
    yield gateway
    await gateway.stop()


class OwnRedis:
    """A Redis server that a test may freeze, kill and start again."""

    def __init__(self, folder: Path) -> None:
        self._server = embedded.EmbeddedRedis("volatile", folder / "data", folder)
        self._log = folder / "redis.log"
        self.url = self._server.url()
        self.start()

    def start(self) -> None:
        self._service = self._server.service()
        self._process = unsupervised.start(self._service, self._log)

    def stop(self) -> None:
        self.thaw()
        unsupervised.stop(self._process, self._service)

    def freeze(self) -> None:
        os.kill(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGCONT)


@pytest.fixture
def own_redis(tmp_path_factory: pytest.TempPathFactory, short_tmp: Path) -> Iterator[OwnRedis]:
    """A Redis of this test's own."""
    folder = short_tmp / tmp_path_factory.mktemp("own").name
    folder.mkdir()
    server = OwnRedis(folder)
    yield server
    server.stop()
