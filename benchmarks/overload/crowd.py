"""Shoppers who come whether or not anybody answers: open-loop load over raw sockets.

A closed loop, where each client waits for its answer before it asks again, offers less exactly while the
server is slow, and so hides what overload does (Schroeder, Wierman and Harchol-Balter, "Open versus closed: a
cautionary tale", 2006). Here arrivals are a Poisson process drawn beforehand, and latency counts from when a
request was due, not from when we came round to sending it. How late that was is kept too: late shoppers mean
that not the server but this process was measured.
"""

from __future__ import annotations

import contextlib
import gc
import json
import math
import random
import resource
import select
import socket
import subprocess
import sys
import time
from array import array
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import accumulate
from pathlib import Path
from typing import Any

from benchmarks.machine import LOAD_CORE

PRIORITIES = ("critical", "normal", "optional")
GAVE_UP = 0  # in place of a status: no answer within the deadline
BROKEN = 1  # the connection was refused or cut
FALLBACK = 2  # 200, but not the backend's: its feature is switched off
OK = 200
_FILES = 60_000  # connections at most, where the system allows so many
_TICK = 0.001  # seconds; epoll knows no shorter wait
OPENED = 2_000  # connections a second, where they are opened beforehand; the slowest gate takes in so many
_GRACE = 60.0  # seconds beyond its plan after which a crowd is given up
_REQUEST = "GET /{priority}/{page} HTTP/1.1\r\nHost: shop.test\r\nX-Forwarded-For: {address}\r\n\r\n"


class CrowdError(Exception):
    """A crowd fell, or hung; the text says which, and its last words."""


@dataclass(frozen=True, slots=True)
class Phase:
    """So many requests a second for so long."""

    rate: float
    seconds: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Who comes.

    Attributes:
        port: where, on the loopback.
        phases: one after the other.
        mix: the share of each priority.
        users: how many there are, told apart by X-Forwarded-For.
        greedy: how many times as many requests as any other the first user of all sends.
        deadline: seconds after which a shopper leaves, closing the connection.
        seed: of the arrivals; the same for every peer.
        held: connections opened beforehand, which carry requests in turn; 0: as many as it takes, and the one
            that was used last is used next.
        request: what each sends; takes priority, page, user and address.
    """

    port: int
    phases: tuple[Phase, ...]
    mix: tuple[float, float, float] = (0.05, 0.65, 0.30)
    users: int = 500
    greedy: float = 1.0
    deadline: float = 1.0
    seed: int = 1
    held: int = 0
    request: str = _REQUEST

    def to_json(self) -> str:
        """For the command line of another process."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """The reverse."""
        read = json.loads(text)
        read["phases"] = tuple(Phase(**phase) for phase in read["phases"])
        return cls(**read | {"mix": tuple(read["mix"])})


@dataclass(slots=True)
class Records:
    """One entry a request, in the order of coming.

    Attributes:
        began: when the crowd began, on the machine's monotonic clock.
        due: seconds since the crowd began.
        late: seconds until it was sent.
        took: seconds from due to its end.
        status: of the answer, or GAVE_UP, BROKEN, FALLBACK.
        priority: its place in PRIORITIES.
        user: number.
    """

    began: float = 0.0
    due: array[float] = field(default_factory=lambda: array("d"))
    late: array[float] = field(default_factory=lambda: array("d"))
    took: array[float] = field(default_factory=lambda: array("d"))
    status: array[int] = field(default_factory=lambda: array("H"))
    priority: array[int] = field(default_factory=lambda: array("B"))
    user: array[int] = field(default_factory=lambda: array("H"))

    def __len__(self) -> int:
        return len(self.due)

    def write(self, path: Path) -> None:
        """Keep them, for another process."""
        with path.open("wb") as file:
            array("d", [self.began, len(self)]).tofile(file)
            for column in self._columns():
                column.tofile(file)

    @classmethod
    def read(cls, path: Path) -> Records:
        """The reverse."""
        records, head = cls(), array("d")
        with path.open("rb") as file:
            head.fromfile(file, 2)
            records.began = head[0]
            for column in records._columns():
                column.fromfile(file, int(head[1]))
        return records

    def _columns(self) -> tuple[array[Any], ...]:
        return self.due, self.late, self.took, self.status, self.priority, self.user


class _Line:
    """A connection, and the request that it carries, if any."""

    __slots__ = ("closes", "connecting", "number", "request", "seen", "socket", "want")

    def __init__(self, port: int) -> None:
        self.socket = socket.socket()
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connecting = True
        with contextlib.suppress(BlockingIOError):
            self.socket.connect(("127.0.0.1", port))
        self.number = -1  # of the request in Records; -1: idle
        self.request = b""  # to be sent once connected
        self.seen = b""
        self.want = -1  # bytes of the whole answer, once its header was seen
        self.closes = False


class Crowd:
    """One run of a plan."""

    def __init__(self, plan: Plan) -> None:
        self.records = Records()
        self._plan = plan
        self._rng = random.Random(plan.seed)
        self._poll = select.epoll()
        self._lines: dict[int, _Line] = {}
        self._idle: deque[_Line] = deque()
        self._waiting: deque[tuple[float, int, _Line]] = deque()
        self._unsent: deque[tuple[float, int]] = deque()  # all that are held carry others
        self._began = 0.0
        self._most = min(_FILES, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100)
        records = self.records
        records.due.extend(self._arrivals())
        come = len(records.due)
        weights = list(accumulate([plan.greedy] + [1.0] * (plan.users - 1)))
        records.priority.extend(self._rng.choices((0, 1, 2), plan.mix, k=come))
        records.user.extend(self._rng.choices(range(plan.users), cum_weights=weights, k=come))
        records.late.extend([0.0] * come)
        records.took.extend([math.inf] * come)
        records.status.extend([GAVE_UP] * come)

    def run(self) -> Records:
        """Offer it all, and wait for the last to be answered or to leave."""
        self._hold()
        self._began = self.records.began = time.perf_counter()
        for number, due in enumerate(self.records.due):
            while (now := self._now()) < due:
                self._turn(due - now)
            self.records.late[number] = now - due
            self._come(number, due)
        while self._waiting or self._unsent:
            self._turn(_TICK)
        for line in list(self._lines.values()):
            self._drop(line)
        self._poll.close()
        return self.records

    def _hold(self) -> None:
        """Open what is opened beforehand; who can't be in time is missing."""
        self._began = time.perf_counter()
        for number in range(self._plan.held):
            while (now := self._now()) < number / OPENED:
                self._turn(number / OPENED - now)
            self._open()
        until = self._now() + self._plan.deadline
        while len(self._idle) < len(self._lines) and self._now() < until:
            self._turn(_TICK)

    def _open(self) -> _Line:
        line = _Line(self._plan.port)
        self._lines[line.socket.fileno()] = line
        self._poll.register(line.socket.fileno(), select.EPOLLIN | select.EPOLLOUT)
        return line

    def _arrivals(self) -> Sequence[float]:
        due, start, found = 0.0, 0.0, []
        for phase in self._plan.phases:
            due = start
            start += phase.seconds
            while (due := due + self._rng.expovariate(phase.rate)) < start:
                found.append(due)
        return found

    def _now(self) -> float:
        return time.perf_counter() - self._began

    # ---- a shopper comes ---------------------------------------------------------------------

    def _come(self, number: int, due: float) -> None:
        if self._plan.held and not self._idle and self._lines:
            self._unsent.append((due, number))
        elif self._idle:
            self._ask(self._idle.popleft() if self._plan.held else self._idle.pop(), number, due)
        elif not self._plan.held and len(self._lines) < self._most:
            self._ask(self._open(), number, due)
        else:
            self._end(number, BROKEN)

    def _ask(self, line: _Line, number: int, due: float) -> None:
        plan, user = self._plan, self.records.user[number]
        line.number, line.seen, line.want = number, b"", -1
        line.request = plan.request.format(
            priority=PRIORITIES[self.records.priority[number]],
            page=number % 100,
            user=user,
            address=f"10.1.{user >> 8}.{user & 255}",
        ).encode()
        self._waiting.append((due + plan.deadline, number, line))
        if not line.connecting:
            self._send(line)

    def _send(self, line: _Line) -> None:
        try:
            line.socket.send(line.request)  # small enough to go at once
        except OSError:
            self._end(line.number, BROKEN)
            self._drop(line)

    def _end(self, number: int, status: int) -> None:
        self.records.status[number] = status
        self.records.took[number] = self._now() - self.records.due[number]

    def _drop(self, line: _Line) -> None:
        if line.number < 0 and line in self._idle:
            self._idle.remove(line)
        line.number = -1
        del self._lines[line.socket.fileno()]
        line.socket.close()  # leaves the epoll by itself

    # ---- what happens meanwhile --------------------------------------------------------------

    def _turn(self, wait: float) -> None:
        if wait < _TICK:
            time.sleep(wait)
            wait = 0.0
        for descriptor, events in self._poll.poll(min(wait, _TICK * 5)):
            line = self._lines.get(descriptor)
            if line is None:
                continue
            if line.connecting:
                if events & (select.EPOLLERR | select.EPOLLHUP):
                    self._failed(line)
                    continue
                if events & select.EPOLLOUT:
                    line.connecting = False
                    self._poll.modify(descriptor, select.EPOLLIN)
                    if line.number >= 0:
                        self._send(line)
                    else:
                        self._idle.append(line)
            elif events:
                self._read(line)
        now = self._now()
        while self._unsent and (self._unsent[0][0] + self._plan.deadline <= now or not self._lines):
            self._end(self._unsent.popleft()[1], GAVE_UP if self._lines else BROKEN)
        while self._waiting:
            leaves, number, line = self._waiting[0]
            if line.number == number:
                if leaves > now:
                    break
                self._end(number, GAVE_UP)  # it has waited long enough
                self._drop(line)
            self._waiting.popleft()

    def _read(self, line: _Line) -> None:
        try:
            data = line.socket.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._failed(line)
            return
        line.seen += data
        if line.want < 0:
            end = line.seen.find(b"\r\n\r\n")
            if end < 0:
                return
            head = line.seen[:end].lower()
            length = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
            line.want = end + 4 + int(length or 0)
            line.closes = b"\r\nconnection: close" in head
        if len(line.seen) >= line.want and line.number >= 0:
            status = int(line.seen[9:12])
            if status == OK and b"\r\ntidegate-degraded:" in line.seen.lower():
                status = FALLBACK
            self._end(line.number, status)
            line.number = -1
            if line.closes:
                self._drop(line)
            elif self._unsent:
                due, number = self._unsent.popleft()
                self._ask(line, number, due)
            else:
                self._idle.append(line)

    def _failed(self, line: _Line) -> None:
        if line.number >= 0:
            self._end(line.number, BROKEN)
        self._drop(line)


def from_its_core(plan: Plan, path: Path) -> Records:
    """Let a crowd come from a process of its own, on the core of the load.

    Args:
        plan: who comes.
        path: a file for what it saw.

    Raises:
        CrowdError: it fell or hung.
    """
    arguments = ["taskset", "-c", str(LOAD_CORE), sys.executable, "-m", "benchmarks.overload.crowd"]
    length = sum(phase.seconds for phase in plan.phases) + plan.held / OPENED
    try:
        subprocess.run(
            [*arguments, plan.to_json(), str(path)],
            cwd=Path(__file__).resolve().parents[2],
            check=True,
            capture_output=True,
            text=True,
            timeout=length + _GRACE,
        )
    except subprocess.CalledProcessError as error:
        raise CrowdError(f"fell: {error.stderr[-800:]}") from None
    except subprocess.TimeoutExpired:
        raise CrowdError(f"hung for {_GRACE:g} s beyond its end") from None
    return Records.read(path)


def main(plan: str, path: str) -> None:
    """Offer a plan, and write the records to a file."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, _FILES + 100), hard))
    gc.disable()  # a pause would be counted as the server's
    Crowd(Plan.from_json(plan)).run().write(Path(path))


if __name__ == "__main__":
    main(*sys.argv[1:])
