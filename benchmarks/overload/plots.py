"""Step responses as pictures; needs matplotlib (the extra `bench`)."""

from __future__ import annotations

from pathlib import Path

from benchmarks.overload.crowd import FALLBACK, OK, PRIORITIES
from benchmarks.overload.scene import Scene
from benchmarks.report import percentile

_BIN = 0.25  # seconds
_COLOURS = {"critical": "#c0392b", "normal": "#2471a3", "optional": "#7d8b8c"}


def draw(scene: Scene, path: Path) -> None:
    """Offered and admitted by priority, limit, latency, pressure and step over time.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    pulse, records = scene.pulse, scene.records
    length = pulse.calm + pulse.seconds + pulse.after
    bins = round(length / _BIN)
    times = [n * _BIN for n in range(bins)]
    offered = [0.0] * bins
    admitted = {name: [0.0] * bins for name in PRIORITIES}
    fallback = [0.0] * bins
    took: list[list[float]] = [[] for _ in range(bins)]
    for n, due in enumerate(records.due):
        place = min(bins - 1, int(due / _BIN))
        name = PRIORITIES[records.priority[n]]
        offered[place] += 1 / _BIN
        if records.status[n] == OK:
            admitted[name][place] += 1 / _BIN
            if name == "critical":
                took[place].append(1e3 * records.took[n])
        elif records.status[n] == FALLBACK:
            fallback[place] += 1 / _BIN
    figure, (flow, limit, latency, ladder) = plt.subplots(
        4, 1, sharex=True, figsize=(9, 10), height_ratios=(3, 2, 2, 2)
    )
    figure.suptitle(
        f"{scene.gate} before the {scene.backend} backend: "
        f"{pulse.factor:g} × capacity for {pulse.seconds:g} s"
    )
    flow.stackplot(times, *admitted.values(), labels=list(admitted), colors=list(_COLOURS.values()))
    flow.plot(times, fallback, color="#b7950b", label="fallbacks", linewidth=1)
    flow.axhline(scene.capacity, color="black", linestyle=":", linewidth=1, label="capacity")
    flow.set_ylabel("answers/s")
    flow.set_ylim(0, scene.capacity * 1.6)
    asked = flow.twinx()
    asked.plot(times, offered, color="#566573", linewidth=1, linestyle="--")
    asked.set_ylabel("offered/s (dashed)")
    asked.set_ylim(bottom=0)
    flow.legend(loc="upper right", fontsize=8)
    _samples(limit, scene, {"limit": "limit", "in_flight": "in flight"})
    limit.set_ylabel("requests")
    latency.plot(times, [percentile(values, 0.5) for values in took], color="#2471a3", label="p50")
    latency.plot(times, [percentile(values, 0.99) for values in took], color="#c0392b", label="p99")
    latency.set_ylabel("critical, ms")
    latency.set_ylim(bottom=0)
    latency.legend(loc="upper right", fontsize=8)
    _samples(ladder, scene, {"pressure": "pressure", "step": "step"})
    ladder.set_xlabel("seconds")
    for axes in (flow, limit, latency, ladder):
        axes.axvspan(pulse.calm, pulse.calm + pulse.seconds, color="#f2f3f4", zorder=0)
    figure.tight_layout()
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _samples(axes: object, scene: Scene, names: dict[str, str]) -> None:
    for name, label in names.items():
        points = [(row["at"], row[name]) for row in scene.samples if name in row]
        if points:
            axes.plot(*zip(*points, strict=True), drawstyle="steps-post", label=label, linewidth=1)  # type: ignore[attr-defined]
    axes.set_ylim(bottom=0)  # type: ignore[attr-defined]
    if scene.samples:
        axes.legend(loc="upper right", fontsize=8)  # type: ignore[attr-defined]
