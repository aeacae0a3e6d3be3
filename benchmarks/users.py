"""What a million users leave in a worker's memory: `python -m benchmarks.users`.

Each request comes from somebody else: another value of a header, another address, another forged token,
another valid one. All limits are evaluated for each, and admit it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks import load, machine, report
from benchmarks.gateway import Gateway
from benchmarks.peers.tidegate import ROOT
from benchmarks.processes import StartError
from benchmarks.proxy import stopped_by_signals
from benchmarks.redis_server import RedisServer
from benchmarks.tokens import tokens

USERS = 1_000_000
GOAL = 50.0  # MiB
KINDS = ("header", "address", "forged", "token")
STORES = ("shared", "local")
CHUNK = 10.0  # seconds of one run of wrk
CONNECTIONS = 64
WORKERS = 2  # that a crowd without sockets comes to, one a core
WARM = 2.0  # seconds: buffers and pools have grown by then
_SCRIPT = Path(__file__).with_name("users.lua")
_SECRET = "a secret of this measurement, of more than thirty-two bytes"  # noqa: S105 - opens nothing
SETTINGS: dict[str, Any] = {
    "upstreams": {"shop": {"servers": ["http://127.0.0.1:9"]}},  # asked by nobody
    "features": {"off": {"fallback": {"json": {}}, "state": "off"}},
    "limits": {
        "all": {"rate": "1000000000/minute", "per": "global"},
        "user": {"rate": "100000000/minute", "per": "user"},  # the anonymous by address
        "header": {"rate": "100000000/minute", "per": "header:x-user"},
    },
    "routes": [{"match": "/seen", "upstream": "shop", "feature": "off", "limits": ["all", "user", "header"]}],
    "access_log": {"file": "/dev/null"},
}


@dataclass(frozen=True, slots=True)
class Crowd:
    """What many distinct users left behind.

    Attributes:
        store: "shared" in Redis, or "local".
        kind: how they differ.
        users: distinct ones that were answered.
        seconds: that took.
        before: bytes of the gateway's whole tree (PSS) when few had been; without sockets, of the worker that
            grew the most.
        after: bytes when all had been.
        failed: answers other than 200, and broken connections.
        counters: in Redis at the end, one for each who came lately; 0 without Redis.
        cpu: seconds of processor time, of the busier worker; 0 with sockets, where it was not asked.
    """

    store: str
    kind: str
    users: int
    seconds: float
    before: int
    after: int
    failed: int
    counters: int
    cpu: float = 0.0

    @property
    def growth(self) -> float:
        """MiB."""
        return (self.after - self.before) / 2**20


def write_tokens(path: Path, users: int) -> None:
    """A valid token a line."""
    with path.open("wb") as file:
        file.writelines(token + b"\n" for token in islice(tokens(_SECRET), users))


def weigh_direct(folder: Path, store: str, kind: str, users: int) -> Crowd:
    """Let so many users meet the app of two workers, each in a process of its own, without sockets.

    Raises:
        StartError: one of these processes failed.
    """
    folder.mkdir()
    with ExitStack() as running:
        server = running.enter_context(RedisServer(folder)) if store == "shared" else None
        file = folder / "gateway.json"
        file.write_text(json.dumps(_settings(folder, server, listen={"trusted_proxies": ["127.0.0.1"]})))
        share, apart = (
            users // WORKERS,
            users * 2,
        )  # of the numbers they begin with: some come before the count
        crowds = [
            subprocess.Popen(
                (sys.executable, "-m", "benchmarks.crowd", kind, str(n * apart), str(share), str(file)),
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            for n in range(WORKERS)
        ]
        seen = [json.loads(one.communicate()[0] or "{}") for one in crowds]
        if any(one.returncode for one in crowds):
            raise StartError(f"benchmarks.crowd ended with {[one.returncode for one in crowds]}")
        most = max(seen, key=lambda one: one["after"] - one["before"])
        return Crowd(
            store,
            f"{kind}, direct",
            share * WORKERS,
            max(one["seconds"] for one in seen),
            most["before"],
            most["after"],
            sum(one["failed"] for one in seen),
            server.keys() if server else 0,
            max(one["cpu"] for one in seen),
        )


def _settings(folder: Path, server: RedisServer | None, **more: object) -> dict[str, Any]:
    secret = folder / "secret"
    secret.write_text(_SECRET, encoding="utf-8")
    identity = {"header": "authorization", "jwt": {"algorithm": "HS256", "key_file": str(secret)}}
    # Users are to be counted in Redis, however busy the machine is.
    redis = {"redis": {"url": server.url, "timeout": "2s"}} if server is not None else {}
    return {**SETTINGS, **redis, "identity": identity, **more}


def weigh(folder: Path, store: str, kind: str, users: int) -> Crowd:
    """Send so many users past a gateway of one worker.

    Raises:
        LoadError: wrk failed.
        StartError: the gateway or Redis didn't come up.
    """
    folder.mkdir()
    file = folder / "tokens"
    margin = 10_000  # more than wrk sends and does not count
    if kind == "token":
        write_tokens(file, users * 2 + margin)
    with ExitStack() as running:
        server = running.enter_context(RedisServer(folder)) if store == "shared" else None
        settings = _settings(folder, server)
        gateway = running.enter_context(Gateway(folder / "gateway", 1, trusted=["127.0.0.1"], **settings))

        def offer(first: int, seconds: float) -> load.Outcome:
            words = (kind, str(first), str(file))
            return load.run(_SCRIPT, gateway.port, *words, seconds=seconds, connections=CONNECTIONS)

        first = offer(0, WARM).answered + CONNECTIONS
        before, answered, seconds, failed = gateway.memory_bytes(), 0, 0.0, 0
        while answered < users:
            outcome = offer(first, CHUNK if users == USERS else 1.0)
            first += outcome.answered + CONNECTIONS
            answered += outcome.answered
            seconds += outcome.seconds
            failed += outcome.refused + outcome.broken
        counters = server.keys() if server else 0
        return Crowd(store, kind, answered, seconds, before, gateway.memory_bytes(), failed, counters)


def text(crowds: Sequence[Crowd]) -> str:
    """The table."""
    rows = [
        (
            f"{one.store}, by {one.kind}",
            f"{one.users:,}",
            f"{one.seconds:.0f}",
            f"{one.cpu:.0f}" if one.cpu else "–",
            f"{one.before / 2**20:.1f}",
            f"{one.after / 2**20:.1f}",
            f"{one.growth:.1f}",
            str(one.failed),
            "yes" if one.growth < GOAL else "no",
        )
        for one in crowds
    ]
    head = (
        "limits",
        "users",
        "seconds",
        "CPU s",
        "MiB before",
        "after",
        "growth",
        "failed",
        f"below {GOAL:g}",
    )
    return report.table(head, rows)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.users", description=__doc__)
    parser.add_argument("--users", type=int, default=USERS, help="distinct ones (%(default)s)")
    parser.add_argument("--kinds", default=",".join(KINDS), help="how they differ (%(default)s)")
    parser.add_argument("--stores", default=",".join(STORES), help="of limits (%(default)s)")
    parser.add_argument("--direct", action="store_true", help="without sockets, where they take too long")
    given = parser.parse_args(arguments)
    how = weigh_direct if given.direct else weigh
    machine.require_two_cores()
    crowds = []
    with stopped_by_signals(), tempfile.TemporaryDirectory() as place:
        for store in given.stores.split(","):
            for kind in given.kinds.split(","):
                crowds.append(how(Path(place) / f"{store}-{kind}", store, kind, given.users))
                print(text(crowds[-1:]), file=sys.stderr, flush=True)
    print(json.dumps(machine.describe() | {"load": machine.load_average()}))
    where = f"of the one of {WORKERS} workers that grew the most" if given.direct else "of the whole gateway"
    print(f"a worker on a core of its own; memory is PSS {where}\n\n{text(crowds)}")
    return 0 if all(one.growth < GOAL and not one.failed for one in crowds) else 1


if __name__ == "__main__":
    sys.exit(main())
