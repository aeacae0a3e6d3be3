"""Chaos schedules by their seeds.

    python -m tests.chaos --seeds 1-50 --seconds 60      seeded faults of every kind
    python -m tests.chaos --seeds 1 --kills 10           kill -9 of each store, shop and worker ten times

One line for each seed; what is wrong stands below it, and the folder with journals and logs is kept.
Exit status 1 when anything was.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path

from tests.chaos.run import Outcome, run
from tests.chaos.schedule import KINDS, draw, draw_kills


def main() -> int:
    """Run every seed, one after the other."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", default="1-3", help="for example 7, or 1-50")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long each sale lasts")
    parser.add_argument("--kills", type=int, default=0, help="instead: kill each process so many times")
    parser.add_argument("--folder", type=Path, help="where runs are kept; else a temporary folder")
    parser.add_argument("--keep", action="store_true", help="keep the folders of clean runs, too")
    parser.add_argument("--show", action="store_true", help="print the schedules, run nothing")
    words = parser.parse_args()
    first, _, last = words.seeds.partition("-")
    folder = words.folder or Path(tempfile.mkdtemp(prefix="tgc-", dir="/tmp"))
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o711)
    outcomes: list[Outcome] = []
    for seed in range(int(first), int(last or first) + 1):
        schedule = draw_kills(seed, words.kills) if words.kills else draw(seed, words.seconds)
        if words.show:
            _say(f"seed {seed}: {'wired' if schedule.wired else 'plain'}", *map(str, schedule.faults))
            continue
        place = folder / f"seed-{seed}"
        outcome = asyncio.run(run(schedule, place))
        outcomes.append(outcome)
        _say(str(outcome), *(f"  {violation}" for violation in outcome.violations))
        with (folder / "outcomes.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(outcome.document()) + "\n")
        if outcome.violations:
            _say(
                f"  kept in {place}",
                f"  again: python -m tests.chaos --seeds {seed} "
                + (f"--kills {words.kills}" if words.kills else f"--seconds {words.seconds:g}"),
            )
        elif not words.keep:
            shutil.rmtree(place)
    if outcomes:
        _sum_up(outcomes)
    return 1 if any(outcome.violations for outcome in outcomes) else 0


def _sum_up(outcomes: list[Outcome]) -> None:
    counts: Counter[str] = sum((outcome.counts for outcome in outcomes), Counter())
    done: Counter[tuple[str, str]] = sum((Counter(outcome.done) for outcome in outcomes), Counter())
    _say(
        f"{len(outcomes)} schedules, {sum(len(outcome.violations) for outcome in outcomes)} violations",
        f"  faults: {', '.join(f'{kind} {target} {n}' for (kind, target), n in sorted(done.items()))}",
        f"  operations: {', '.join(f'{name} {n}' for name, n in sorted(counts.items()))}",
    )
    if never := [" ".join(kind) for kind in KINDS if kind not in done]:
        _say(f"  never: {', '.join(never)}")


def _say(*lines: str) -> None:
    print(*lines, sep="\n", flush=True)  # noqa: T201 - a command


if __name__ == "__main__":
    sys.exit(main())
