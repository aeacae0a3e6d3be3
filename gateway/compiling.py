"""`python -m gateway compile`: build what `compiled` takes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

from gateway import compiled

# In a process and a folder of its own: mypyc leaves its work beside it, setuptools changes the process.
# Where mypy wrongly believes that an attribute is what it was before a call, mypyc makes a TypeError of it;
# much of that shows as something that can't be reached.
_BUILD = """
import sys
from mypyc.build import mypycify
from setuptools import setup

group, *files = sys.argv[1:]
sys.argv = ["compile", "-q", "build_ext", "--build-lib", "built", "--build-temp", "made"]
flags = ["--warn-unreachable", "--follow-imports=silent"]
modules = mypycify([*flags, *files], group_name=group, opt_level="3", debug_level="0")
setup(name=group, packages=[], ext_modules=modules)
"""
_LINES = 30  # of what the compilers said


class CompileError(Exception):
    """It could not be built; the text says why and what to do."""


def build() -> tuple[Path, bool]:
    """Compile the sources as they are now, unless that is done, and drop what was built of former ones.

    Returns:
        Where the compiled modules are, and whether they had to be built.

    Raises:
        CompileError: there is no mypyc or no C compiler, or a source that they refuse.
        OSError: the folder can't be written.
    """
    place = compiled.folder()
    if place.is_dir():
        return place, False
    if find_spec("mypyc") is None or find_spec("setuptools") is None:
        raise CompileError("mypyc is not installed: pip install 'tidegate[compile]'")
    with tempfile.TemporaryDirectory(prefix="tidegate-compile-") as made:
        _compile(Path(made))
        ready = place.with_name(f"{place.name}.{os.getpid()}")
        ready.mkdir(parents=True)
        built = Path(made) / "built"
        for file in built.rglob(f"*{compiled.SUFFIX}"):
            shutil.copyfile(file, ready / ".".join(file.relative_to(built).parts))
        try:
            ready.rename(place)  # whole or not at all; somebody else may be building too
        except OSError:
            shutil.rmtree(ready)
            if not place.is_dir():
                raise
    for former in place.parent.glob(f"*.{place.name.partition('.')[2]}"):
        if former != place:
            shutil.rmtree(former, ignore_errors=True)
    return place, True


def _compile(folder: Path) -> None:
    package = compiled.HERE.name
    shutil.copytree(
        compiled.HERE, folder / package, ignore=shutil.ignore_patterns(compiled.FOLDER, "__pycache__")
    )
    sources = [
        str(Path(package) / compiled.source(module).relative_to(compiled.HERE)) for module in compiled.MODULES
    ]
    done = subprocess.run(
        [sys.executable, "-c", _BUILD, compiled.GROUP, *sources],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        said = "\n".join(done.stdout.splitlines()[-_LINES:])
        raise CompileError(f"{said}\nThe gateway runs from its sources all the same, only slower.")
