"""Metrics as text for a scraper: Prometheus's own format, or OpenMetrics where that is asked for.

Written here, not by prometheus-client, since a scrape is made in the process that throws the switches: with
200 routes its general encoder holds that process up for 20 ms, this for 4. The tests compare the two.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import lru_cache

from gateway.metrics import BUCKETS, METRICS, Labels
from gateway.totals import Reading

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
_BOUNDS = (*(str(bound) for bound in BUCKETS), "+Inf")


def wants_open_metrics(accept: str) -> bool:
    """Whether a scraper takes OpenMetrics, and says that it likes it no less than plain text."""
    likes = {"application/openmetrics-text": 0.0, "text/plain": 0.0}
    for choice in accept.lower().split(","):
        media, *parameters = (part.strip() for part in choice.split(";"))
        if media in likes:
            quality = next((part[2:] for part in parameters if part.startswith("q=")), "1")
            try:
                likes[media] = max(likes[media], float(quality))
            except ValueError:  # then it is as good as not named
                continue
    return (
        likes["application/openmetrics-text"] > 0
        and likes["application/openmetrics-text"] >= likes["text/plain"]
    )


def render(reading: Reading, *, open_metrics: bool = False) -> bytes:
    """All metrics of a reading, in the order in which they are stated."""
    lines: list[str] = []
    for name, spec in METRICS.items():
        family = name.removesuffix("_total") if open_metrics and spec.kind == "counter" else name
        lines += f"# HELP {family} {spec.help}", f"# TYPE {family} {spec.kind}"
        if spec.kind == "histogram":
            for labels, cells in reading.histograms.get(name, {}).items():
                lines += _histogram(name, _pairs(spec.labels, labels), cells)
            continue
        rows = reading.counters if spec.kind == "counter" else reading.gauges
        # A counter without labels is there from the start.
        bare: dict[Labels, float] = {(): 0.0} if spec.kind == "counter" and not spec.labels else {}
        for labels, value in (rows.get(name) or bare).items():
            pairs = _pairs(spec.labels, labels)
            lines.append(f"{name}{{{pairs}}} {_number(value)}" if pairs else f"{name} {_number(value)}")
    if open_metrics:
        lines.append("# EOF")
    return ("\n".join(lines) + "\n").encode()


def _histogram(name: str, pairs: str, cells: list[float]) -> Iterator[str]:
    running = 0.0
    start = f'{name}_bucket{{{pairs},le="'
    for bound, count in zip(_BOUNDS, cells, strict=False):  # the sum comes after the last of them
        running += count
        yield f'{start}{bound}"}} {running}'
    yield f"{name}_count{{{pairs}}} {running}"
    yield f"{name}_sum{{{pairs}}} {_number(cells[-1])}"


@lru_cache(maxsize=4096)
def _pairs(names: tuple[str, ...], values: Labels) -> str:
    """Labels as they stand in the braces; of routes there are as many as configured, so they are kept."""
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in zip(names, values, strict=True))


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


def _number(value: float) -> str:
    if math.isfinite(value):
        return repr(float(value))
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"
