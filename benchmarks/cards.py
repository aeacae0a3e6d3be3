"""Importing many cards: rows a second, and memory meanwhile: `python -m benchmarks.cards`."""

from __future__ import annotations

import argparse
import csv
import json
import subprocess
import sys
import time
from pathlib import Path

from benchmarks import machine
from benchmarks.orders.goods import SKU
from benchmarks.orders.ours import ROOT, Tidegate, short_folder
from benchmarks.processes import tree_cpu_seconds, tree_memory_bytes

_EVERY = 0.25  # seconds between two looks at the memory
_BAD = 1000  # of so many rows one is bad


def _write(file: Path, rows: int) -> None:
    """A file with keys, each of its own, and here and there a bad line."""
    with file.open("w", newline="", encoding="utf-8") as out:
        writer = csv.writer(out)
        writer.writerow(["sku", "secret"])
        for number in range(rows):
            writer.writerow(["no-such-sku" if number % _BAD == 1 else SKU, f"KEY-{number:010d}-ABCDE-FGHIJ"])


def _measure(rows: int) -> int:
    print(json.dumps(machine.describe()))
    print(f"load average {machine.load_average():.2f} before")
    with short_folder() as folder, Tidegate(folder / "stack", cards=1) as shop:
        file = folder / "cards.csv"
        _write(file, rows)
        memory: list[int] = []
        began = time.monotonic()
        with subprocess.Popen(
            [sys.executable, "-m", "ops.cli", "cards", "import", str(file)],
            env=shop.environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            text=True,
        ) as importing:
            spent = 0.0
            while importing.poll() is None:
                memory.append(tree_memory_bytes(importing.pid))
                spent = max(spent, tree_cpu_seconds(importing.pid))
                time.sleep(_EVERY)
            said = importing.stdout.read() if importing.stdout else ""
        seconds = time.monotonic() - began
        added = shop.count("SELECT count(*) FROM cards") - 1
        print(said.splitlines()[0] if said else "said nothing")
        print(
            f"{rows:,} rows, {file.stat().st_size / (1 << 20):.1f} MiB, in {seconds:.1f} s:"
            f" {rows / seconds:,.0f} a second;"
            f" {spent / rows * 1e6:.0f} µs of the importer's CPU each; {added:,} cards added"
        )
        fifths = [memory[len(memory) * n // 5 : len(memory) * (n + 1) // 5] for n in range(5)]
        told = ", ".join(f"{max(part, default=0) / (1 << 20):.1f}" for part in fifths)
        print(f"memory (PSS) in each fifth of the time, at most: {told} MiB")
    print(f"load average {machine.load_average():.2f} after")
    wanted = rows - len(range(1, rows, _BAD))
    return 0 if importing.returncode == 0 and added == wanted else 1


def main() -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cards", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    return _measure(parser.parse_args().rows)


if __name__ == "__main__":
    sys.exit(main())
