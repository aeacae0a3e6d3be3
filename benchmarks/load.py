"""The load: wrk on a core of its own, and connections that only idle."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from benchmarks.machine import LOAD_CORE

_SCRIPT = Path(__file__).with_name("load.lua")
_RESULT = re.compile(r"^RESULT (\{.*\})$", re.MULTILINE)
_CUT = "the connection was closed before the end of the answer"
_GRACE = 30.0  # seconds beyond its own duration after which wrk is given up


class LoadError(Exception):
    """The load couldn't be offered, or its report can't be read."""


@dataclass(frozen=True, slots=True)
class Case:
    """A kind of request.

    Attributes:
        name: as in tables and on the command line.
        says: what it is, for readers.
        method: of HTTP.
        path: the target.
        body: bytes sent along.
        refused: limits are so low that every answer but the first few is a 429.
        unlike: each request has a field that never comes again.
    """

    name: str
    says: str
    method: str
    path: str
    body: int = 0
    refused: bool = False
    unlike: bool = False


CASES = (
    Case("get-292", "GET answered with 292 bytes of JSON", "GET", "/api/small"),
    Case("get-unlike", "the same, each with a field never seen before", "GET", "/api/small", unlike=True),
    Case("get-16k", "GET answered with 16 KiB", "GET", "/api/large"),
    Case("post-1k", "POST of 1 KiB answered with 292 bytes", "POST", "/api/orders", body=1024),
    Case("refuse", "GET over the user's limit, answered 429", "GET", "/api/small", refused=True),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What wrk saw.

    Attributes:
        answered: requests with a whole answer.
        seconds: how long it ran.
        refused: answers of 400 and above, part of `answered`.
        broken: connections refused or cut, and answers that never came.
        p50: latency in milliseconds.
        p99: latency in milliseconds.
    """

    answered: int
    seconds: float
    refused: int
    broken: int
    p50: float
    p99: float


def offer(case: Case, port: int, *, seconds: float, connections: int = 64, users: int = 100) -> Outcome:
    """Send a case's requests, closed-loop over keep-alive connections.

    Args:
        case: what to send.
        port: where, on the loopback.
        seconds: how long; wrk counts whole seconds.
        connections: held open at once.
        users: distinct values of X-User, in turn.

    Raises:
        LoadError: wrk failed.
    """
    unlike = "1" if case.unlike else "0"
    words = (case.method, case.path, str(case.body), str(users), unlike)
    return run(_SCRIPT, port, *words, seconds=seconds, connections=connections)


def run(script: Path, port: int, *words: str, seconds: float, connections: int) -> Outcome:
    """Let wrk do what a script says; `words` are its own.

    Raises:
        LoadError: wrk failed.
    """
    whole = max(1, round(seconds))
    arguments = [
        *("taskset", "-c", str(LOAD_CORE), "wrk", "--threads", "1", "--connections", str(connections)),
        *("--duration", f"{whole}s", "--timeout", "10s", "--script", str(script)),
        *(f"http://127.0.0.1:{port}", "--", *words),
    ]
    try:
        done = subprocess.run(arguments, capture_output=True, text=True, timeout=whole + _GRACE, check=True)
    except FileNotFoundError as error:
        raise LoadError(
            f"{error.filename} is not installed; run python -m benchmarks.peers install"
        ) from None
    except subprocess.CalledProcessError as error:
        raise LoadError(f"wrk ended with exit code {error.returncode}: {error.stderr[-500:]}") from None
    except subprocess.TimeoutExpired:
        raise LoadError(f"wrk hung for {_GRACE:g} s beyond its end on port {port}") from None
    return parse(done.stdout)


def parse(output: str) -> Outcome:
    """Read the line that load.lua writes.

    Raises:
        LoadError: there is none.
    """
    found = _RESULT.search(output)
    if found is None:
        raise LoadError(f"wrk printed no result: {output[-500:]!r}")
    seen = json.loads(found[1])
    return Outcome(
        answered=seen["requests"],
        seconds=seen["microseconds"] / 1e6,
        refused=seen["refused"],
        broken=seen["broken"],
        p50=seen["p50"] / 1e3,
        p99=seen["p99"] / 1e3,
    )


@contextmanager
def idle_connections(port: int, count: int) -> Iterator[None]:
    """Hold connections open that each made one request and now wait.

    Raises:
        OSError: one was refused or cut.
    """
    with ExitStack() as held:
        for number in range(count):
            line = held.enter_context(socket.create_connection(("127.0.0.1", port), timeout=10))
            request(line, "GET", "/api/small", user=f"u{number % 100}")
        yield


def request(line: socket.socket, method: str, path: str, *, user: str, body: int = 0) -> tuple[int, bytes]:
    """One exchange on an open connection; status and body.

    Raises:
        OSError: the connection was cut.
    """
    payload = b'"' + b"x" * (body - 2) + b'"' if body else b""
    length = f"Content-Type: application/json\r\nContent-Length: {body}\r\n" if body else ""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nX-User: {user}\r\n{length}\r\n"
    line.sendall(head.encode() + payload)
    with line.makefile("rb") as answer:
        status = int(_line(answer).split(None, 2)[1])
        length_told = 0
        chunked = False
        while field := _line(answer).strip():
            name, _, value = field.lower().partition(b":")
            if name == b"content-length":
                length_told = int(value)
            chunked = chunked or (name == b"transfer-encoding" and b"chunked" in value)
        return status, _chunks(answer) if chunked else _exactly(answer, length_told)


def _chunks(answer: BinaryIO) -> bytes:
    whole = b""
    while length := int(_line(answer).split(b";")[0], 16):
        whole += _exactly(answer, length)
        _line(answer)
    _line(answer)  # no peer of ours sends trailers
    return whole


def _line(answer: BinaryIO) -> bytes:
    line = answer.readline()
    if not line.endswith(b"\n"):
        raise ConnectionResetError(_CUT)
    return line


def _exactly(answer: BinaryIO, length: int) -> bytes:
    data = answer.read(length)
    if len(data) < length:
        raise ConnectionResetError(_CUT)
    return data
