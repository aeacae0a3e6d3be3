"""Tables for people (Markdown, so that they can be kept), JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.bench import Run
from benchmarks.harness import Results
from benchmarks.load import Case
from benchmarks.scale import Growth


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up in a terminal too; all but the first right-aligned."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return f"| {' | '.join(padded)} |"

    rule = (
        "|" + "|".join("-" * (w + 2) if c == 0 else "-" * (w + 1) + ":" for c, w in enumerate(widths)) + "|"
    )
    return "\n".join((line(head), rule, *(line(row) for row in rows)))


def percentile(values: Iterable[float], share: float) -> float:
    """The smallest of the values that so large a share of them does not exceed (nearest rank).

    Args:
        values: in any order; there is no number for none.
        share: 0 to 1.
    """
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def comparison(results: Results, cases: Sequence[Case], against: str) -> str:
    """The whole report: a table per case, memory, versions, and what is missing."""
    parts = [conditions(results)]
    for case in cases:
        rows: list[tuple[str, ...]] = [
            (
                one.peer,
                f"{one.cpu:.1f}",
                f"{one.cpu_low:.1f}–{one.cpu_high:.1f}",
                _number(results.ratio(one.peer, case.name, against), "{:.2f}"),
                f"{one.rate:,.0f}",
                f"{one.p99:.1f}",
                str(one.errors),
                _number(one.redis_calls, "{:.3f}"),
                _number(one.redis_cpu, "{:.1f}"),
            )
            for one in results.summaries
            if one.case == case.name
        ]
        head: tuple[str, ...] = (
            "peer",
            "CPU µs",
            "low–high",
            f"× {against}",
            "req/s",
            "p99 ms",
            "errors",
            "Redis calls/req",
            "Redis µs",
        )
        if all(row[7] == "–" for row in rows):
            head, rows = head[:7], [row[:7] for row in rows]
        parts.append(f"**{case.name}**: {case.says}\n\n{table(head, rows)}")
    memory = [
        (name, f"{size / 2**20:.1f}", _number(results.idle_bytes.get(name), "{:,.0f}"))
        for name, size in results.memory_bytes.items()
    ]
    if memory:
        parts.append(
            "**memory** (PSS)\n\n" + table(("peer", "MiB after load", "bytes per idle connection"), memory)
        )
    parts.append(versions(results))
    parts.extend(missing(results))
    return "\n\n".join(parts)


def conditions(results: Run) -> str:
    """Where, when and how it was measured, in two lines."""
    at, how = results.machine, results.settings
    load = (
        f"load average {at['load_before']:.2f} before, {at.get('load_after', 0.0):.2f} after (ours included)"
    )
    said = ", ".join(f"{name} {value}" for name, value in how.items())
    return (
        f"{at['date']}; {at['cores']} cores, {at['cpu']}, {at['memory']}; {at['system']}, "
        f"kernel {at['kernel']}, Python {at['python']}; {load}.\n{said}."
    )


def versions(results: Run) -> str:
    """Each peer's version, and the part of the work that it can't do."""
    rows = [
        (name, version, results.lacks.get(name) or "nothing") for name, version in results.versions.items()
    ]
    return "**versions**\n\n" + table(("peer", "version", "part of the work it lacks"), rows)


def write_json(results: Run, path: Path) -> None:
    """Keep the figures for programs.

    Raises:
        OSError: the file can't be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results.as_json(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _number(value: float | None, form: str) -> str:
    return "–" if value is None else form.format(value)


def growth(results: Growth, *, flat: float) -> str:
    """How cost grows with work: one table per axis, each point against the axis's first.

    Args:
        results: what was found.
        flat: the share above the first point that still counts as flat.
    """
    parts = [conditions(results)]
    for axis in dict.fromkeys(point.axis for point in results.points):
        rows = [
            (
                point.peer,
                f"{point.amount:,}",
                f"{point.cpu:.1f}",
                f"{point.cpu_low:.1f}–{point.cpu_high:.1f}",
                f"{ratio:.2f}",
                "yes" if ratio <= 1 + flat else "no",
                f"{point.own:.1f}",
                f"{results.own_ratio(point) or math.nan:.2f}",
                f"{point.rate:,.0f}",
            )
            for point in results.points
            if point.axis == axis and (ratio := results.ratio(point))
        ]
        head = (
            "peer",
            axis,
            "CPU µs",
            "low–high",
            "× first",
            f"within {flat:.0%}",
            "own µs",
            "× first",
            "req/s",
        )
        parts.append(f"**{axis}**\n\n{table(head, rows)}")
    parts.append(versions(results))
    parts.extend(missing(results))
    return "\n\n".join(parts)


def missing(results: Run) -> list[str]:
    """Who wasn't measured, and why; empty when all were."""
    if not results.missing:
        return []
    return ["**not measured**\n\n" + "\n".join(f"- {name}: {why}" for name, why in results.missing.items())]
