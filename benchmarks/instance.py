"""One running peer: started in its site, checked to do its work, measured, stopped."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks import arrivals, load
from benchmarks.load import Case, Outcome
from benchmarks.machine import PEER_CORE
from benchmarks.peers.peer import Peer
from benchmarks.processes import Process, accepts, free_port
from benchmarks.redis_server import RedisServer
from benchmarks.site import TIGHT, WIDE, Site
from benchmarks.upstream import LARGE, SMALL, Upstream

_ERRORS_AT_MOST = 0.01  # share of answers; beyond it something else is measured
_TAIL = 1.0  # seconds that a run goes on after what is read of it
_REFUSED_AT_LEAST = 0.9  # share; a tight limit still admits each user's first request


class CheckError(Exception):
    """A peer doesn't do the work that is to be measured."""


@dataclasses.dataclass(frozen=True, slots=True)
class Reading:
    """One run of wrk against one peer.

    Attributes:
        outcome: what wrk saw.
        errors: answers of 400 and above that no limit asked for, and broken lines.
        cpu: microseconds of user and system time of the peer's whole tree, per answered request.
        own: user time among it.
        redis_calls: Redis round trips per answered request; None without Redis.
        redis_cpu: microseconds of Redis's own time per answered request; None without Redis.
    """

    outcome: Outcome
    cpu: float
    errors: int = 0
    own: float = 0.0
    redis_calls: float | None = None
    redis_cpu: float | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Steady:
    """A window of one run, in which nothing begins.

    Attributes:
        cpu: as of a Reading.
        own: as of a Reading.
        rate: answered requests a second.
    """

    cpu: float
    own: float
    rate: float


class Instance:
    """A peer at work. `tight` limits refuse; wide ones are evaluated and admit."""

    def __init__(
        self, peer: Peer, folder: Path, upstream: Upstream, *, tight: bool = False, routes: int = 3
    ) -> None:
        self.peer = peer
        folder.mkdir(parents=True)
        self._upstream = upstream
        self.redis = RedisServer(folder) if peer.uses_redis else None
        self.site = Site(
            folder=folder,
            port=free_port(),
            admin_port=free_port(),
            upstreams=upstream.ports,
            overall=WIDE,
            user=TIGHT if tight else WIDE,
            routes=routes,
            redis=self.redis.socket if self.redis else None,
        )
        try:
            self.process = Process(peer.command(self.site), core=PEER_CORE, folder=folder, name=peer.name)
        except BaseException:
            if self.redis:
                self.redis.stop()
            raise

    def __enter__(self) -> Instance:
        try:
            self.process.wait_until(lambda: accepts(self.site.port))
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """End it and its Redis."""
        self.process.stop()
        if self.redis:
            self.redis.stop()

    def check(self) -> None:
        """See that it answers what the upstream answers, or refuses when it is to refuse.

        Raises:
            CheckError: it does not.
        """
        with socket.create_connection(("127.0.0.1", self.site.port), timeout=10) as line:
            if self.site.user == TIGHT:
                self._check_refusal(line)
            else:
                self._check_answers(line)

    def _check_answers(self, line: socket.socket) -> None:
        for method, path, length, expected in (
            ("GET", "/api/large", 0, LARGE),
            ("POST", "/api/orders", 1024, SMALL),
            ("GET", "/api/small", 0, SMALL),
        ):
            status, seen = load.request(line, method, path, user="check", body=length)
            if (status, seen) != (200, expected.encode()):
                raise CheckError(
                    f"{self.peer.name} answered {method} {path} with {status} and {len(seen)} bytes, "
                    f"not with 200 and the {len(expected)} of the upstream"
                )

    def _check_refusal(self, line: socket.socket) -> None:
        seen = [load.request(line, "GET", "/api/small", user="check")[0] for _ in range(3)]
        if seen[0] != 200 or seen[-1] != 429:
            raise CheckError(
                f"{self.peer.name} answered a user's first three requests in a minute with {seen}: "
                "its limit of one is not evaluated"
            )

    def measure(
        self,
        case: Case,
        *,
        seconds: float,
        connections: int = 64,
        users: int = 100,
        rate: int | None = None,
    ) -> Reading:
        """Offer a case's load and read what it cost.

        Args:
            case: what is asked.
            seconds: how long.
            connections: held open at once.
            users: who ask.
            rate: requests a second, which come when it is time, see `arrivals`; None: each connection asks
                anew once it is answered, see `load`.

        Raises:
            CheckError: answers were not those that the case is about.
            LoadError: the load couldn't be offered.
        """
        redis_before = self.redis.usage() if self.redis else None
        before, user = self.process.cpu_seconds(), self.process.user_and_system()[0]
        port = self.site.port
        if rate is None:
            outcome = load.offer(case, port, seconds=seconds, connections=connections, users=users)
        else:
            outcome = arrivals.offer(
                case, port, seconds=seconds, connections=connections, users=users, rate=rate
            )
        spent = self.process.cpu_seconds() - before
        own = self.process.user_and_system()[0] - user
        redis_after = self.redis.usage() if self.redis else None
        self._empty_logs()
        errors = self._judge(case, outcome)
        answered = outcome.answered
        cpu, own = spent / answered * 1e6, own / answered * 1e6
        if redis_before is None or redis_after is None:
            return Reading(outcome, cpu, errors, own)
        calls = redis_after.calls - redis_before.calls
        redis_cpu = redis_after.cpu_seconds - redis_before.cpu_seconds
        return Reading(outcome, cpu, errors, own, calls / answered, redis_cpu / answered * 1e6)

    def steady(
        self,
        case: Case,
        *,
        after: float,
        seconds: float,
        connections: int,
        users: int,
        rate: int | None = None,
    ) -> Steady:
        """Offer a load as `measure` does, and read what a window of it cost, in which nothing is opened.

        Args:
            case: one whose requests all reach the upstream, which counts them.
            after: seconds until the window begins.
            seconds: of the window.
            connections: as of `measure`.
            users: as of `measure`.
            rate: as of `measure`.

        Raises:
            CheckError: as `measure`, or nothing was answered within the window.
            LoadError: the load couldn't be offered.
            OSError: the upstream doesn't say what it has answered.
        """
        with ThreadPoolExecutor(1) as beside:
            whole = after + seconds + _TAIL
            run = beside.submit(
                self.measure, case, seconds=whole, connections=connections, users=users, rate=rate
            )
            time.sleep(after)
            first = self._reading()
            time.sleep(seconds)
            last = self._reading()
            run.result()
        answered, cpu, own, passed = (b - a for a, b in zip(first, last, strict=True))
        if answered <= 0:
            raise CheckError(f"{self.peer.name}, {case.name}: nothing was answered within {seconds:g} s")
        return Steady(cpu=cpu / answered * 1e6, own=own / answered * 1e6, rate=answered / passed)

    def _reading(self) -> tuple[int, float, float, float]:
        user, system = self.process.user_and_system()
        return self._upstream.answered(), user + system, user, time.monotonic()

    def idle_bytes(self, connections: int) -> float:
        """Memory that one more idle connection costs, from the growth that many cause."""
        before = self.process.memory_bytes()
        with load.idle_connections(self.site.port, connections):
            return (self.process.memory_bytes() - before) / connections

    def _judge(self, case: Case, outcome: Outcome) -> int:
        """Count what went wrong; a few accidents are told in the report, more spoil the figure."""
        who = f"{self.peer.name}, {case.name}"
        if outcome.answered == 0:
            raise CheckError(f"{who}: nothing was answered")
        if case.refused:
            share = outcome.refused / outcome.answered
            if share < _REFUSED_AT_LEAST:
                raise CheckError(f"{who}: only {share:.1%} were refused; the limit is not at work")
            return outcome.broken
        errors = outcome.refused + outcome.broken
        if errors > outcome.answered * _ERRORS_AT_MOST:
            raise CheckError(
                f"{who}: {outcome.refused} answers of 400 and above, {outcome.broken} broken lines, "
                f"among {outcome.answered}"
            )
        return errors

    def _empty_logs(self) -> None:
        for log in self.site.folder.glob("*.log"):
            os.truncate(log, 0)  # all are opened for appending; a full disk would be measured else
