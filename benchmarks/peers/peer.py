"""What every peer must tell: whether it is here, its version, and how it is started."""

from __future__ import annotations

import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import ClassVar

from benchmarks.processes import Command
from benchmarks.site import Site

HERE = Path(__file__).parent


def cache_folder() -> Path:
    """Where what is installed for measuring lives, outside the repository."""
    return Path(os.environ.get("TIDEGATE_BENCH_CACHE", "~/.cache/tidegate-bench")).expanduser()


def venv() -> Path:
    """The virtualenv of the peers that come as wheels; theirs must not mix with ours."""
    return cache_folder() / "venv"


class Peer(ABC):
    """A gateway to measure.

    Attributes:
        name: as in tables and on the command line.
        lacks: the part of the common work that it can't do, for readers; empty when it does all.
        proxies: false for a baseline that answers by itself.
        limits: whether it can refuse over a limit.
        uses_redis: whether it needs a Redis in its site.
        many_routes: whether its configuration takes the number of routes from the site.
    """

    name: ClassVar[str]
    lacks: ClassVar[str] = ""
    proxies: ClassVar[bool] = True
    limits: ClassVar[bool] = True
    uses_redis: ClassVar[bool] = False
    many_routes: ClassVar[bool] = False

    @abstractmethod
    def program(self) -> Path | None:
        """Its executable, or None when it isn't installed."""

    @abstractmethod
    def version(self) -> str:
        """Its version, for the report."""

    @abstractmethod
    def command(self, site: Site) -> Command:
        """Write its configuration into the site's folder; say what to run."""

    def missing(self) -> str | None:
        """What isn't there, or None when it can be measured."""
        return None if self.program() is not None else f"{self.name} is not installed"

    def prepare(self, say: Callable[[str], None]) -> None:  # noqa: B027 - most have nothing to do
        """Make it what its users run, where that takes a while; called once before it is measured."""

    def installed(self) -> str:
        """The path of its executable.

        Raises:
            FileNotFoundError: it isn't there.
        """
        program = self.program()
        if program is None:
            raise FileNotFoundError(f"{self.missing()}; run python -m benchmarks.peers install")
        return str(program)


def on_path(name: str) -> Path | None:
    """A program of the system; servers live in sbin, which isn't on everybody's PATH."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin:/sbin")
    return Path(found) if found else None


def says(*arguments: str) -> str:
    """What a program prints about itself, on one line."""
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)
    return " ".join((done.stdout + done.stderr).split())
