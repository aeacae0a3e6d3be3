"""A rehearsal's outcome: for the terminal, and as plain values for scripts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ops.rehearsal.notes import Notes, percentile
from ops.rehearsal.promises import LATE, Verdict
from ops.rehearsal.timeline import KINDS, Second, axis, bars
from ops.screen import standard_output


@dataclass(frozen=True, slots=True)
class Report:
    """What a rehearsal came to.

    Attributes:
        began: when the crowd's first second began.
        sku: what was sold.
        people: buyers and onlookers.
        seconds: how long they came for, as planned.
        notes: what they wrote down.
        timeline: second by second.
        verdicts: promise by promise.
    """

    began: datetime
    sku: str
    people: int
    seconds: float
    notes: Notes
    timeline: Sequence[Second]
    verdicts: Sequence[Verdict]

    @property
    def kept(self) -> bool:
        """Whether every promise was."""
        return all(verdict.kept for verdict in self.verdicts)

    @property
    def behind(self) -> float:
        """Seconds by which one arrival of a hundred was late, or more."""
        return percentile(self.notes.late, 0.99)

    @property
    def when(self) -> str:
        """The day and the minute it began."""
        return f"{self.began.astimezone(UTC):%Y-%m-%d %H:%M} UTC"

    @property
    def headline(self) -> str:
        """What was played."""
        buyers = len(self.notes.buyers)
        busiest = max((second.requests for second in self.timeline), default=0)
        return (
            f"{self.when}: {buyers} buyers and {self.people - buyers} onlookers came within "
            f"{self.seconds:g} s for {self.notes.cards} cards of {self.sku}: "
            f"{len(self.notes.requests)} requests, {busiest} in the busiest second"
        )

    @property
    def conclusion(self) -> str:
        """The verdict over all."""
        broken = sum(not verdict.kept for verdict in self.verdicts)
        if not broken:
            return "every promise was kept"
        return f"{broken} of {len(self.verdicts)} promises were broken"

    @property
    def caution(self) -> str:
        """What takes away from the proof; empty when nothing does."""
        if self.behind <= LATE:
            return ""
        return (
            f"the crowd itself was up to {self.behind:.1f} s late: this machine can't play one of that size "
            "beside the stack; read the figures as those of a smaller crowd"
        )

    def document(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "kept": self.kept,
            "began": self.began.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
            "sku": self.sku,
            "cards": self.notes.cards,
            "buyers": dict(self.notes.ends()),
            "requests": dict(self.notes.kinds()),
            "crowd_late_seconds": round(self.behind, 3),
            "promises": [asdict(verdict) for verdict in self.verdicts],
            "timeline": [
                {
                    "second": second.number,
                    **{kind: second.kinds[kind] for kind in KINDS if second.kinds[kind]},
                    "p95_seconds": round(second.p95, 4),
                    "step": second.step,
                    "pressure": second.pressure,
                }
                for second in self.timeline
            ],
        }


def show(report: Report, console: Console | None = None) -> None:
    """Print it: what was played, how it went second by second, and each promise with its verdict."""
    out = console or standard_output()
    out.print(Text(report.headline))
    out.print()
    curves = Table.grid(padding=(0, 2))
    slowest = max((second.p95 for second in report.timeline), default=0.0)
    steps = max((second.step for second in report.timeline), default=0)
    for name, values, most in (
        ("answers a second", [float(s.requests) for s in report.timeline], None),
        (
            "turned away",
            [float(s.kinds["limited"] + s.kinds["shed"]) for s in report.timeline],
            None,
        ),
        ("p95", [s.p95 for s in report.timeline], f"{slowest * 1000:.0f} ms"),
        ("ladder", [float(s.step) for s in report.timeline], f"step {steps}"),
    ):
        highest = most or f"{max(values, default=0):.0f}"
        curves.add_row(Text(name, style="dim"), Text(bars(values), style="cyan"), Text(f"at most {highest}"))
    curves.add_row("", Text(axis(len(report.timeline)), style="dim"), "")
    out.print(curves)
    out.print()
    table = Table.grid(padding=(0, 2))
    for verdict in report.verdicts:
        mark = Text("kept", style="green") if verdict.kept else Text("BROKEN", style="bold red")
        table.add_row(mark, Text(verdict.promise), Text(verdict.figure, style="dim"))
    out.print(table)
    out.print()
    if report.caution:
        out.print(Text(report.caution, style="yellow"))
    out.print(Text(report.conclusion, style="green" if report.kept else "bold red"))
