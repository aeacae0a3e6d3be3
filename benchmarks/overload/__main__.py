"""`python -m benchmarks.overload`: a pulse of many times the capacity, before Tidegate and others."""

from __future__ import annotations

import argparse
import math
import sys
import tempfile
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import machine, report
from benchmarks.bench import Run
from benchmarks.machine import MachineError
from benchmarks.overload import plots
from benchmarks.overload.crowd import Plan
from benchmarks.overload.findings import Finding, find
from benchmarks.overload.gates import GATES, Gate, TidegateGate
from benchmarks.overload.scene import Backend, Pulse, capacity, play
from benchmarks.peers.peer import cache_folder
from benchmarks.processes import StartError
from benchmarks.proxy import stopped_by_signals

DEGRADING = 0.02  # service times that each request beyond the slots adds, of the backend that degrades
_LATE = 5.0  # milliseconds; later shoppers mean that the machine was too busy to measure on


@dataclass(slots=True)
class Findings(Run):
    """What the scenes showed."""

    findings: list[Finding] = field(default_factory=list)


def main(arguments: list[str] | None = None) -> int:
    """Measure, print the tables, write JSON and pictures; returns the exit code."""
    given = _parser().parse_args(arguments)
    if given.quick:
        given.factors, given.calm, given.pulse, given.after = "5", 2.0, 3.0, 2.0
    with stopped_by_signals():
        try:
            found = _measure(given)
        except (ValueError, MachineError, StartError, OSError) as error:
            print(error, file=sys.stderr)
            return 1
    print(text(found))
    path = given.json or cache_folder() / "results" / f"overload-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.json"
    report.write_json(found, path)
    _say(f"written: {path}")
    return 0 if found.findings else 1


def _measure(given: argparse.Namespace) -> Findings:
    machine.require_two_cores()
    gates = _chosen(given.gates)
    backends = [
        Backend(name, given.slots, given.service / 1e3, DEGRADING if name == "degrading" else 0.0)
        for name in given.backends.split(",")
    ]
    mix = tuple(float(share) for share in given.mix.split(","))
    plan = Plan(0, (), mix, given.users, given.greedy, given.deadline)  # type: ignore[arg-type]
    settings: dict[str, Any] = {
        name: getattr(given, name) for name in ("slots", "service", "mix", "users", "greedy", "deadline")
    }
    dwell = TidegateGate.dwell
    settings["ladder"] = f"climb after {dwell.climb} s, descend after {dwell.descend} s"
    found = Findings(machine.describe() | {"load_before": machine.load_average()}, settings)
    with tempfile.TemporaryDirectory(prefix="tidegate-bench-") as name:
        folder = Path(name)
        folder.chmod(0o755)  # servers that drop their rights must reach their own folders
        for backend in backends:
            most = capacity(backend, folder / f"{backend.name}-alone")
            _say(f"{backend.name}: {most:,.0f} requests a second")
            for factor in (float(factor) for factor in given.factors.split(",")):
                for gate in gates:
                    gate.capacity = most
                    place = folder / f"{backend.name}-{factor:g}-{gate.name}"
                    place.mkdir()
                    pulse = Pulse(factor, given.calm, given.pulse, given.after)
                    _scene(found, gate, backend, pulse, plan, place, given.plots)
    found.machine["load_after"] = machine.load_average()
    return found


def _scene(
    found: Findings,
    gate: Gate,
    backend: Backend,
    pulse: Pulse,
    plan: Plan,
    place: Path,
    pictures: Path | None,
) -> None:
    if gate.name in found.missing:
        return
    if problem := gate.missing():
        found.missing[gate.name] = problem
        return
    gate.prepare(_say)
    found.versions.setdefault(gate.name, gate.version())
    found.lacks[gate.name] = gate.lacks
    scene = play(gate, backend, pulse, plan, place)
    found.findings.append(find(scene))
    _say(_line(found.findings[-1]))
    if pictures is not None:
        plots.draw(scene, pictures / f"overload-{backend.name}-{pulse.factor:g}x-{gate.name}.png")


def _chosen(names: str) -> list[Gate]:
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    known = {gate.name: gate for gate in GATES}
    for name in wanted:
        if name not in known:
            raise ValueError(f"no gate is called {name!r}; there are {', '.join(known)}")
    return [gate() for gate in GATES if gate.name in wanted]


# ---- what is told ----------------------------------------------------------------------------


def text(found: Findings) -> str:
    """The whole report."""
    parts = [report.conditions(found)]
    for backend in dict.fromkeys(one.backend for one in found.findings):
        mine = [one for one in found.findings if one.backend == backend]
        title = f"**{backend} backend**, {mine[0].capacity:,.0f} requests a second at most"
        parts.append(f"{title}\n\n{_table(mine)}")
    parts += [report.versions(found), *report.missing(found)]
    if late := [one for one in found.findings if one.late_p99 > _LATE]:
        names = ", ".join(f"{one.gate} {one.factor:g}× ({one.late_p99:.0f} ms)" for one in late)
        parts.append(f"Shoppers came late by our own doing, so these say little: {names}.")
    return "\n\n".join(parts)


def _table(findings: list[Finding]) -> str:
    head = (
        *("gate", "offered", "goodput", "critical ok", "p50", "p99 ms", "× calm p99"),
        *("normal ok", "p99 ms", "optional ok", "fallback", "refused", "lost"),
        *("recovered s", "all on s", "step", "at 0 after s", "greedy", "cores"),
    )
    rows = []
    for one in findings:
        critical, normal, optional = one.served.values()
        asked = sum(served.offered for served in one.served.values())
        rows.append(
            (
                f"{one.gate} {one.factor:g}×",
                f"{one.offered:,.0f}/s",
                f"{one.goodput:.3f}",
                f"{critical.ok:.2%}",
                f"{critical.p50:.0f}",
                f"{critical.p99:.0f}",
                f"{critical.p99 / one.calm_p99:.2f}",
                f"{normal.ok:.1%}",
                f"{normal.p99:.0f}",
                f"{optional.ok:.1%}",
                f"{optional.fallback:.1%}",
                *(
                    f"{sum(getattr(s, kind) * s.offered for s in one.served.values()) / asked:.1%}"
                    for kind in ("refused", "lost")
                ),
                _seconds(one.recovered),
                _seconds(one.whole),
                "–" if one.step_zero is None else str(one.top_step),
                "–" if one.step_zero is None else f"{one.step_zero:.1f}",
                f"{one.greedy:.2f}",
                f"{one.cpu:.2f}",
            )
        )
    return report.table(head, rows)


def _seconds(value: float) -> str:
    return "not seen" if math.isinf(value) else f"{value:.1f}"


def _line(one: Finding) -> str:
    critical = one.served["critical"]
    return (
        f"{one.backend} {one.factor:g}× {one.gate}: goodput {one.goodput:.3f}, critical {critical.ok:.3%}, "
        f"p99 {critical.p99:.0f} ms (calm {one.calm_p99:.0f}), recovered {_seconds(one.recovered)}, "
        f"late p99 {one.late_p99:.1f} ms"
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.overload", description=__doc__)
    add = parser.add_argument
    add(
        "--gates",
        default="tidegate,envoy,nginx,bare",
        help=f"of {', '.join(g.name for g in GATES)} (%(default)s)",
    )
    add("--backends", default="fixed,degrading", help="(%(default)s)")
    add("--factors", default="1,2,5,10", help="offered load, in capacities (%(default)s)")
    add("--pulse", type=float, default=30.0, help="seconds (%(default)s)")
    add("--calm", type=float, default=5.0, help="seconds before it (%(default)s)")
    add("--after", type=float, default=15.0, help="seconds after it (%(default)s)")
    add("--slots", type=int, default=16, help="requests that the backend works on at once (%(default)s)")
    add("--service", type=float, default=50.0, help="milliseconds for each (%(default)s)")
    add("--mix", default="0.05,0.65,0.30", help="shares of critical, normal, optional (%(default)s)")
    add("--users", type=int, default=500, help="(%(default)s)")
    add("--greedy", type=float, default=50.0, help="times as many requests of one user (%(default)s)")
    add("--deadline", type=float, default=1.0, help="seconds until a shopper leaves (%(default)s)")
    add("--plots", type=Path, help="folder for step responses as PNG; needs the extra bench")
    add("--quick", action="store_true", help="one short pulse: does it work at all?")
    add("--json", type=Path, help="where to write; default below the cache folder")
    return parser


if __name__ == "__main__":
    sys.exit(main())
