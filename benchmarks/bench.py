"""The bench: an upstream, and peers started beside one another in a folder that goes away."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.instance import CheckError, Instance
from benchmarks.peers.peer import Peer
from benchmarks.processes import StartError
from benchmarks.upstream import Upstream

Say = Callable[[str], None]


@dataclass(slots=True)
class Run:
    """What any measurement tells about itself.

    Attributes:
        machine: where it ran.
        settings: how it was measured.
        versions: of the peers measured.
        lacks: the part of the common work a peer can't do.
        missing: peers not measured, and why.
    """

    machine: dict[str, Any]
    settings: dict[str, Any]
    versions: dict[str, str] = field(default_factory=dict)
    lacks: dict[str, str] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """For files."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class Bench:
    """Starts peers for one run, and names in it those that can't be measured."""

    run: Run
    say: Say
    folder: Path
    upstream: Upstream
    running: ExitStack

    def present(self, peers: Sequence[Peer]) -> list[Peer]:
        """The peers that are installed, made ready; the others are named as missing."""
        for peer in peers:
            if problem := peer.missing():
                self.run.missing[peer.name] = problem
                self.say(f"missing: {problem}")
            else:
                peer.prepare(self.say)
        return [peer for peer in peers if peer.name not in self.run.missing]

    def start(self, peer: Peer, *, tight: bool = False, routes: int = 3) -> Instance | None:
        """A checked instance; None, and the peer named as missing, when it fails."""
        name = f"{peer.name}-{'tight' if tight else 'wide'}-{routes}"
        try:
            instance = Instance(peer, self.folder / name, self.upstream, tight=tight, routes=routes)
            self.running.enter_context(instance)
            instance.check()
            self.run.versions[peer.name] = peer.version()
        except (StartError, CheckError, OSError) as error:
            self.drop(peer, error)
            return None
        self.run.lacks[peer.name] = peer.lacks
        return instance

    def drop(self, peer: Peer, why: Exception) -> None:
        """Take a peer out, saying why."""
        self.run.missing[peer.name] = f"{type(why).__name__}: {why}"
        self.say(f"dropped {peer.name}: {why}")


@contextmanager
def opened(run: Run, say: Say) -> Iterator[Bench]:
    """A bench for one run; all it started is stopped at its end.

    Args:
        run: where versions, missing peers and load averages are noted.
        say: told of progress.

    Raises:
        MachineError: fewer than two cores.
        StartError: the upstream can't be started.
    """
    machine.require_two_cores()
    run.machine["load_before"] = machine.load_average()
    folder = Path(tempfile.mkdtemp(prefix="tidegate-bench-"))
    folder.chmod(0o755)  # servers that drop their rights must reach their own folders
    try:
        with ExitStack() as running:
            upstream = running.enter_context(Upstream(folder / "upstream"))
            yield Bench(run, say, folder, upstream, running)
            run.machine["load_after"] = machine.load_average()
    finally:
        shutil.rmtree(folder, ignore_errors=True)
