"""What a scene shows: goodput, latency and refusals by priority, recovery."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from benchmarks.overload.crowd import FALLBACK, GAVE_UP, OK, PRIORITIES, Records
from benchmarks.overload.scene import Scene
from benchmarks.report import percentile

BIN = 0.5  # seconds; so finely is recovery seen
WARM_UP = 1.0  # seconds of the calm that are not looked at: connections are made, code is read
_WELL = 0.98  # of a bin's shoppers are answered when all is normal
_PROMPT = 1.5  # times the calm median: so long may the median be when all is normal


@dataclass(frozen=True, slots=True)
class Served:
    """How one priority fared in the pulse.

    Attributes:
        offered: requests.
        ok: share answered by the backend within the deadline.
        fallback: share answered in its place.
        refused: share turned away.
        lost: share that got no answer in time, or a broken line.
        p50, p99: milliseconds, of those answered by the backend.
    """

    offered: int
    ok: float
    fallback: float
    refused: float
    lost: float
    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Finding:
    """A scene in figures.

    Attributes:
        gate, backend, factor: which scene.
        capacity: of the backend, requests a second.
        offered: requests a second in the pulse.
        calm_p99: milliseconds, of all priorities before the pulse.
        goodput: answers of the backend within the deadline, in capacities.
        served: by priority.
        recovered: seconds after the pulse until nobody is refused or slow any more; inf: not seen.
        whole: the same until nothing is answered by fallbacks any more.
        top_step: the highest of the ladder.
        step_zero: seconds after the pulse until it was at 0; None without a ladder.
        greedy: the first user's share of its priority's answers in the pulse, over the mean of the others'.
        late_p99: milliseconds that shoppers came late by, of our own doing.
        cpu: cores that the gate used.
    """

    gate: str
    backend: str
    factor: float
    capacity: float
    offered: float
    calm_p99: float
    goodput: float
    served: dict[str, Served]
    recovered: float
    whole: float
    top_step: int
    step_zero: float | None
    greedy: float
    late_p99: float
    cpu: float


def find(scene: Scene) -> Finding:
    """Work out a scene's figures."""
    records, pulse = scene.records, scene.pulse
    start, end = pulse.calm, pulse.calm + pulse.seconds
    inside = [n for n, due in enumerate(records.due) if start <= due < end]
    calm = [n for n, due in enumerate(records.due) if WARM_UP <= due < start]
    good = sum(records.status[n] == OK for n in inside)
    steps = [(row["at"], int(row["step"])) for row in scene.samples if "step" in row]
    return Finding(
        gate=scene.gate,
        backend=scene.backend,
        factor=pulse.factor,
        capacity=scene.capacity,
        offered=len(inside) / pulse.seconds,
        calm_p99=1e3 * percentile((records.took[n] for n in calm if records.status[n] == OK), 0.99),
        goodput=good / pulse.seconds / scene.capacity,
        served={name: _served(records, place, inside) for place, name in enumerate(PRIORITIES)},
        recovered=_recovered(scene, calm, {OK, FALLBACK}),
        whole=_recovered(scene, calm, {OK}),
        top_step=max((step for _, step in steps), default=0),
        step_zero=max((at - end for at, step in steps if step and at > end), default=0.0) if steps else None,
        greedy=greed(records, inside),
        late_p99=1e3 * percentile(records.late, 0.99),
        cpu=scene.cpu,
    )


def _served(records: Records, place: int, inside: Sequence[int]) -> Served:
    mine = [n for n in inside if records.priority[n] == place]
    status = [records.status[n] for n in mine]
    took = [1e3 * records.took[n] for n in mine if records.status[n] == OK]
    all_of = max(1, len(mine))
    return Served(
        offered=len(mine),
        ok=status.count(OK) / all_of,
        fallback=status.count(FALLBACK) / all_of,
        refused=sum(code > OK for code in status) / all_of,
        lost=sum(code < OK and code != FALLBACK for code in status) / all_of,
        p50=percentile(took, 0.5),
        p99=percentile(took, 0.99),
    )


def _recovered(scene: Scene, calm: Sequence[int], fine: set[int]) -> float:
    """Seconds from the pulse's end to that of the last bin that was not normal."""
    records, pulse = scene.records, scene.pulse
    end = pulse.calm + pulse.seconds
    usual = percentile((records.took[n] for n in calm if records.status[n] == OK), 0.5)
    bins: dict[int, list[int]] = {}
    for n, due in enumerate(records.due):
        if due >= end:
            bins.setdefault(int((due - end) / BIN), []).append(n)
    bad = []
    for number, members in bins.items():
        took = (records.took[n] for n in members if records.status[n] != GAVE_UP)
        well = sum(records.status[n] in fine for n in members) >= _WELL * len(members)
        if not well or percentile(took, 0.5) > _PROMPT * usual:
            bad.append(number)
    last = max(bad, default=-1)
    return math.inf if bins and last == max(bins) else (last + 1) * BIN


def greed(records: Records, inside: Sequence[int]) -> float:
    """The first user's share of the normal priority's answers, over the mean share of the others."""
    answers: dict[int, int] = {}
    asked = set()
    for n in inside:
        if records.priority[n] == PRIORITIES.index("normal"):
            asked.add(records.user[n])
            if records.status[n] == OK:
                answers[records.user[n]] = answers.get(records.user[n], 0) + 1
    others = sum(count for user, count in answers.items() if user) / max(1, len(asked - {0}))
    return answers.get(0, 0) / others if others else math.nan
