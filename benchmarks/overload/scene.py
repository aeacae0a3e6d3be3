"""One gate before one backend: calm, a pulse, and what comes after."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.machine import LOAD_CORE, PEER_CORE
from benchmarks.overload.crowd import CrowdError, Phase, Plan, Records, from_its_core
from benchmarks.overload.gates import Bare, Gate
from benchmarks.peers.tidegate import ROOT
from benchmarks.processes import Command, Process, StartError, accepts, free_port
from benchmarks.site import Site

CALM = 0.3  # of the capacity, before and after the pulse
_SAMPLE = 0.2  # seconds
_ENVOY = "http.front.adaptive_concurrency.gradient_controller."
# What is read off a gate's metrics: our name, and the beginnings of its line.
_METRICS = {
    "limit": ('tidegate_concurrency_limit{upstream="shop"}', f"{_ENVOY}concurrency_limit:"),
    "in_flight": ('tidegate_in_flight{upstream="shop"}',),
    "queue_delay": ('tidegate_queue_delay_seconds{upstream="shop"}',),
    "pressure": ("tidegate_pressure ",),
    "step": ("tidegate_degradation_step ",),
}


@dataclass(frozen=True, slots=True)
class Backend:
    """What is behind the gate.

    Attributes:
        name: as in tables.
        slots: requests worked on at once.
        service: seconds for each on average.
        degrading: what each further one held adds, in service times.
    """

    name: str
    slots: int
    service: float
    degrading: float


@dataclass(frozen=True, slots=True)
class Pulse:
    """How a scene goes.

    Attributes:
        factor: offered load, in capacities.
        calm: seconds before it.
        seconds: of the pulse.
        after: seconds after it.
    """

    factor: float
    calm: float
    seconds: float
    after: float


@dataclass(slots=True)
class Scene:
    """What was seen.

    Attributes:
        gate, backend: whose scene.
        pulse: how it went.
        capacity: of the backend alone, requests a second.
        deadline: seconds after which a shopper leaves.
        records: of every request.
        samples: seconds since the crowd began, and metrics by name.
        cpu: cores that the gate used during the scene.
    """

    gate: str
    backend: str
    pulse: Pulse
    capacity: float
    deadline: float
    records: Records
    samples: list[dict[str, float]] = field(default_factory=list)
    cpu: float = 0.0


@contextmanager
def running(backend: Backend, folder: Path, *, core: int = LOAD_CORE) -> Iterator[int]:
    """A backend at work; its port.

    Raises:
        StartError: it can't be started.
    """
    folder.mkdir(parents=True)
    port = free_port()
    command = Command(
        (
            *(sys.executable, "-m", "benchmarks.overload.backend"),
            *(str(port), str(backend.slots), str(backend.service), str(backend.degrading)),
        ),
        {"PYTHONPATH": str(ROOT)},
    )
    with Process(command, core=core, folder=folder, name="backend") as process:
        process.wait_until(lambda: accepts(port))
        yield port


def capacity(backend: Backend, folder: Path, seconds: float = 2.0) -> float:
    """The most that it answers a second: asked by as many clients as it has slots, then by a quarter more."""
    with running(backend, folder) as port:
        return max(
            asyncio.run(_closed_loop(port, clients, seconds))
            for clients in (backend.slots, backend.slots * 5 // 4)
        )


async def _closed_loop(port: int, clients: int, seconds: float) -> float:
    ends = time.monotonic() + seconds
    answered = 0

    async def ask() -> None:
        nonlocal answered
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while time.monotonic() < ends:
            writer.write(b"GET / HTTP/1.1\r\nHost: shop.test\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0]))
            answered += 1
        writer.close()

    await asyncio.gather(*(ask() for _ in range(clients)))
    return answered / seconds


def play(gate: Gate, backend: Backend, pulse: Pulse, plan: Plan, folder: Path) -> Scene:
    """Let the crowd come.

    Args:
        gate: told the backend's capacity, for those that need it.
        backend: started for this scene.
        pulse: how much, how long.
        plan: mix, users, deadline and seed; port and phases are filled in.
        folder: for this scene alone.

    Raises:
        StartError: gate, backend or crowd failed.
    """
    rate = gate.capacity
    bare = isinstance(gate, Bare)
    # Without a gate its core is free, and the backend has thousands of connections to take.
    with running(backend, folder / "backend", core=PEER_CORE if bare else LOAD_CORE) as behind:
        if bare:
            return _offer(gate, None, backend, pulse, _at(plan, behind, pulse, rate), folder)
        place = folder / gate.name
        place.mkdir()
        folder.chmod(0o755)
        site = Site(folder=place, port=free_port(), admin_port=free_port(), upstreams=(behind, behind))
        with Process(gate.command(site), core=PEER_CORE, folder=place, name=gate.name) as process:
            process.wait_until(lambda: _answers(site.port) and (not _doors(gate) or accepts(site.admin_port)))
            sampler = _Sampler(site.admin_port, gate)
            before = process.cpu_seconds()
            with sampler:
                scene = _offer(gate, sampler, backend, pulse, _at(plan, site.port, pulse, rate), folder)
            scene.cpu = (process.cpu_seconds() - before) / (pulse.calm + pulse.seconds + pulse.after)
            return scene


def _answers(port: int) -> bool:
    """Whether a request comes through; a door may be open before anybody serves behind it."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/normal/0", timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


def _doors(gate: Gate) -> bool:
    return gate.name in {"tidegate", "envoy"}


def _at(plan: Plan, port: int, pulse: Pulse, rate: float) -> Plan:
    phases = (
        Phase(CALM * rate, pulse.calm),
        Phase(pulse.factor * rate, pulse.seconds),
        Phase(CALM * rate, pulse.after),
    )
    return Plan(port, phases, plan.mix, plan.users, plan.greedy, plan.deadline, plan.seed)


def _offer(
    gate: Gate, sampler: _Sampler | None, backend: Backend, pulse: Pulse, plan: Plan, folder: Path
) -> Scene:
    try:
        records = from_its_core(plan, folder / "records")
    except CrowdError as error:
        raise StartError(f"the crowd before {gate.name} {error}") from None
    scene = Scene(gate.name, backend.name, pulse, gate.capacity, plan.deadline, records)
    if sampler is not None:
        scene.samples = [{**row, "at": row["at"] - records.began} for row in sampler.rows]
    return scene


class _Sampler:
    """Reads a gate's metrics five times a second, in a thread."""

    def __init__(self, port: int, gate: Gate) -> None:
        path = {"tidegate": "/metrics", "envoy": "/stats?filter=adaptive_concurrency"}.get(gate.name)
        self.rows: list[dict[str, float]] = []
        self._url = f"http://127.0.0.1:{port}{path}" if path is not None else None
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while self._url is not None and not self._over.wait(_SAMPLE):
            try:
                with urllib.request.urlopen(self._url, timeout=2) as answer:  # noqa: S310 - our own URL
                    text = answer.read().decode()
            except OSError:
                continue
            row = {"at": time.perf_counter()}
            for line in text.splitlines():
                for name, beginnings in _METRICS.items():
                    if line.startswith(beginnings):
                        row[name] = float(line.split()[-1])
            self.rows.append(row)
