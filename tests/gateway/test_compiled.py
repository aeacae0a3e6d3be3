"""Compiled modules are taken only while their sources are what was compiled; nothing stands in their way."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import compiled

ROOT = compiled.HERE.parent
CONSTANT = re.compile("_?[A-Z][A-Z0-9_]+")


def a_copy(folder: Path) -> Path:
    """The gateway somewhere else, with something in the place of what would be compiled."""
    shutil.copytree(
        compiled.HERE, folder / "gateway", ignore=shutil.ignore_patterns("__pycache__", ".compiled")
    )
    made = folder / "gateway" / compiled.FOLDER / compiled.folder().name
    made.mkdir(parents=True)
    (made / f"gateway.walk{compiled.SUFFIX}").write_bytes(b"no machine code")
    return folder


def walk_of(folder: Path, **environment: str) -> str:
    """Where a new process that looks there has `gateway.walk` from, or why it has none."""
    done = subprocess.run(
        [sys.executable, "-c", "import gateway.walk as it; print(it.__file__)"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder), compiled.VARIABLE: "1", **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or done.stderr.splitlines()[-1]


def test_what_was_compiled_of_these_sources_is_taken(tmp_path: Path) -> None:
    """The machine code is asked for: here it is none, and that is said."""
    assert "ImportError" in walk_of(a_copy(tmp_path))


def test_an_edited_source_is_what_runs(tmp_path: Path) -> None:
    """Whoever changes one of the sources runs all of them as they stand."""
    folder = a_copy(tmp_path)
    with (folder / "gateway" / "exchange.py").open("a") as source:
        source.write("# changed\n")
    assert walk_of(folder) == str(folder / "gateway" / "walk.py")


def test_it_can_be_left_out(tmp_path: Path) -> None:
    """TIDEGATE_COMPILED=0 runs the sources."""
    folder = a_copy(tmp_path)
    assert walk_of(folder, **{compiled.VARIABLE: "0"}) == str(folder / "gateway" / "walk.py")


def test_nothing_interpreted_derives_from_what_is_compiled() -> None:
    """Classes of mypyc have no interpreted subclasses; making one would raise at run time only."""
    sources = {compiled.source(module) for module in compiled.MODULES}
    deriving = []
    for path in sorted(set(compiled.HERE.rglob("*.py")) - sources):
        tree = list(ast.walk(ast.parse(path.read_text())))
        theirs = {
            alias.asname or alias.name
            for node in tree
            if isinstance(node, ast.ImportFrom) and node.module in compiled.MODULES
            for alias in node.names
        }
        deriving += [
            f"{path.relative_to(ROOT)}: {node.name}"
            for node in tree
            if isinstance(node, ast.ClassDef)
            and any(isinstance(base, ast.Name) and base.id in theirs for base in node.bases)
        ]
    assert deriving == []


@pytest.mark.skipif(
    not compiled.built() and os.environ.get("TIDEGATE_REQUIRE_COMPILED") != "1",
    reason="not compiled; scripts/compile does it",
)
def test_all_of_them_are_compiled() -> None:
    """After `scripts/compile` each module that is named comes from machine code, in the tests as well."""
    for module in compiled.MODULES:
        __import__(module)
        assert str(sys.modules[module].__file__).endswith(compiled.SUFFIX), module


@pytest.mark.parametrize("module", compiled.MODULES)
def test_constants_are_final(module: str) -> None:
    """Else mypyc looks each up in a dictionary whenever it is used. Not tuples: these it takes apart."""
    loose = [
        name.id
        for statement in ast.parse(compiled.source(module).read_text()).body
        if isinstance(statement, ast.Assign) and not isinstance(statement.value, ast.Tuple)
        for name in statement.targets
        if isinstance(name, ast.Name) and CONSTANT.fullmatch(name.id)
    ]
    assert not loose, f"{module}: say `{loose[0]}: Final = ...`"
