"""The walk of a request as machine code: modules that mypyc compiled, taken in place of their sources.

The sources are the truth, and all that is needed; `scripts/compile` makes a request cheaper. What it built is
used only by the interpreter that it was built for, and only while every compiled source is as it was: whoever
edits one runs what was edited. TIDEGATE_COMPILED=0 leaves it out.
"""

from __future__ import annotations

import hashlib
import os
import sys
import sysconfig
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).parent
VARIABLE = "TIDEGATE_COMPILED"
GROUP = "tidegate_compiled"  # the library that all of them share
FOLDER = ".compiled"
SUFFIX = str(sysconfig.get_config_var("EXT_SUFFIX"))  # names the interpreter and the machine
# What a plain request meets. Left out is what derives from classes of libraries: mypyc does little for it.
MODULES = (
    "gateway.access_log",
    "gateway.accounts",
    "gateway.answer",
    "gateway.app",
    "gateway.bounds",
    "gateway.client",
    "gateway.digits",
    "gateway.exchange",
    "gateway.fields",
    "gateway.generations",
    "gateway.head",
    "gateway.identity",
    "gateway.intake",
    "gateway.metrics",
    "gateway.policies.bases",
    "gateway.policies.breaker",
    "gateway.policies.circuit",
    "gateway.policies.concurrency",
    "gateway.policies.concurrency_window",
    "gateway.policies.degrade",
    "gateway.policies.lane",
    "gateway.policies.limit_key",
    "gateway.policies.limit_rule",
    "gateway.policies.load_shed",
    "gateway.policies.rate_limit",
    "gateway.policies.ratio_window",
    "gateway.policies.short_queue",
    "gateway.policies.shut_off",
    "gateway.policies.shut_offs",
    "gateway.policies.trial",
    "gateway.request",
    "gateway.routes",
    "gateway.state.algorithms",
    "gateway.state.counters",
    "gateway.state.limits_full",
    "gateway.state.limits_local",
    "gateway.tally",
    "gateway.timed",
    "gateway.turn",
    "gateway.upstream.balance",
    "gateway.upstream.forward",
    "gateway.upstream.http1",
    "gateway.upstream.plain",
    "gateway.upstream.pool",
    "gateway.upstream.proxy",
    "gateway.upstream.response",
    "gateway.upstream.retries",
    "gateway.walk",
    "gateway.whole",
)


def source(module: str) -> Path:
    """Where a module's source stands."""
    return HERE.parent.joinpath(*module.split(".")).with_suffix(".py")


def digest() -> str:
    """Of all sources that are compiled, as they are now.

    Raises:
        OSError: one can't be read.
    """
    whole = hashlib.sha256()
    for module in MODULES:
        whole.update(source(module).read_bytes())
    return whole.hexdigest()[:16]


def folder() -> Path:
    """Where what belongs to the sources as they are now is, or would be.

    Raises:
        OSError: one of them can't be read.
    """
    return HERE / FOLDER / f"{digest()}{SUFFIX.removesuffix('.so').removesuffix('.pyd')}"


class Finder(MetaPathFinder):
    """Finds compiled modules in a folder of theirs."""

    def __init__(self, where: Path) -> None:
        self.files = {path.name.removesuffix(SUFFIX): path for path in where.glob(f"*{SUFFIX}")}

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None = None,  # noqa: ARG002 - the import system's
        target: ModuleType | None = None,  # noqa: ARG002 - the same
    ) -> ModuleSpec | None:
        """The compiled form of a module, if there is one."""
        file = self.files.get(fullname)
        if file is None:
            return None
        return spec_from_file_location(fullname, file, loader=ExtensionFileLoader(fullname, str(file)))


def built() -> bool:
    """Whether there is something compiled, of the sources as they are now, that may be used."""
    return os.environ.get(VARIABLE) != "0" and (HERE / FOLDER).is_dir() and folder().is_dir()


def take() -> None:
    """From now on import what is compiled, if it may be used."""
    if built():
        sys.meta_path.insert(0, Finder(folder()))
