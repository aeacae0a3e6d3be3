"""A crowd that meets one worker's app in its own process: as many users, without what sockets cost.

Where a machine can't send a million requests in a minute. `python -m benchmarks.users --direct` starts it,
for each kind of crowd and worker: `python -m benchmarks.crowd KIND FIRST USERS CONFIG`; it prints one line
of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.processes import memory_bytes
from benchmarks.redis_server import until_shared
from benchmarks.tokens import tokens
from gateway import config
from gateway.app import Gateway
from gateway.intake import ABORT
from gateway.metrics import WorkerMetrics
from gateway.parts import Parts
from gateway.state.counters import SharedCounters, shared_memory
from gateway.state.switches import work_out

FEW = 1_000  # users after whom memory is first looked at
TOGETHER = 64  # requests in flight
FORGED = b"Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJ1IiwiZXhwIjo5OTk5OTk5OTk5fQ.%043d"


def fields(kind: str, number: int, secret: str) -> Iterator[tuple[bytes, bytes]]:
    """The header field by which each user after that number differs from the others, without end."""
    signed = tokens(secret, number)
    while True:
        number += 1
        if kind == "header":
            yield b"x-user", b"u%d" % number
        elif kind == "address":
            yield b"x-forwarded-for", b"2001:db8:%x:%x::1" % divmod(number, 65536)
        elif kind == "forged":
            yield b"authorization", FORGED % number
        else:
            yield b"authorization", b"Bearer " + next(signed)


async def crowd(kind: str, number: int, users: int, settings: config.Config, secret: str) -> dict[str, float]:
    """What so many leave behind, those after that number.

    Returns:
        `before` and `after` in bytes (PSS of this process), `seconds`, of them `cpu`, and `failed`: answers
        other than 200.
    """
    parts = Parts(1, WorkerMetrics(), counters=SharedCounters(shared_memory()))
    gateway = Gateway(parts)
    await gateway.adopt(settings)
    await until_shared(parts.limits)
    gateway.apply(work_out(settings, 0, lambda *_: None))
    who, left, failed = fields(kind, number, secret), FEW, 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal failed
        failed += message.get("status", 200) != 200

    async def ask() -> None:
        nonlocal left
        while left > 0:
            left -= 1
            scope = {
                "type": "http",
                "http_version": "1.1",
                "method": "GET",
                "scheme": "http",
                "path": "/seen",
                "raw_path": b"/seen",
                "query_string": b"",
                "client": ("127.0.0.1", 1),
                "headers": [(b"host", b"shop.test"), next(who)],
                ABORT: lambda: None,
            }
            await gateway(scope, receive, send)

    await asyncio.gather(*(ask() for _ in range(TOGETHER)))
    before, began, left = memory_bytes(os.getpid()), (time.monotonic(), time.process_time()), users
    await asyncio.gather(*(ask() for _ in range(TOGETHER)))
    seconds, cpu = time.monotonic() - began[0], time.process_time() - began[1]
    after = memory_bytes(os.getpid())
    await parts.aclose()
    return {"before": before, "after": after, "seconds": seconds, "cpu": cpu, "failed": failed}


def main() -> int:
    """Run the command."""
    kind, number, users, file = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
    settings = config.load(file.read_bytes(), str(file), {})
    assert settings.identity.jwt is not None  # noqa: S101 - users.py wrote it
    secret = settings.identity.jwt.key_file.read_text(encoding="utf-8")
    print(json.dumps(asyncio.run(crowd(kind, number, users, settings, secret))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
