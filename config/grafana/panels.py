"""The words dashboards are made of, and the panels that stand on several."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

RATE = "$__rate_interval"  # what Grafana makes of the scrape interval and the time shown
GOOD, WARN, BAD, CALM = "green", "orange", "red", "blue"
OUTCOMES = {  # what went well is green, what was refused in time is yellow, what broke is red
    "proxied": "green",
    "cached": "semi-dark-green",
    "limited": "yellow",
    "shed": "orange",
    "degraded": "blue",
    "rejected": "purple",
    "broken": "red",
    "failed": "dark-red",
}


@dataclass(frozen=True)
class Query:
    """One query; `legend` in Grafana's words, e.g. `{{route}}`."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel.

    Attributes:
        title: what it shows.
        queries: from which series.
        says: the question it answers, shown as its help.
        unit: Grafana's name of the unit, e.g. "s", "reqps", "percentunit".
        kind: Grafana's panel type.
        width: columns of 24.
        height: rows of some 30 pixels.
        steps: thresholds as (from, colour), the first from the lowest value on.
        colours: of series, by their name.
        stack: whether areas stand on one another.
        words: what to show instead of a number.
        top: the axis's end, when it is known.
    """

    title: str
    queries: tuple[Query, ...]
    says: str
    unit: str = "short"
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    steps: tuple[tuple[float | None, str], ...] = ((None, GOOD),)
    colours: dict[str, str] = field(default_factory=dict)
    stack: bool = False
    words: dict[str, tuple[str, str]] = field(default_factory=dict)
    top: float | None = None


def stat(title: str, expr: str, says: str, **more: Any) -> Panel:  # noqa: ANN401 - Panel's own
    """A number with its recent past."""
    return Panel(title, (Query(expr),), says, kind="stat", **({"width": 4, "height": 4} | more))


def quantile(q: float, metric: str, by: str, where: str = "") -> str:
    """A percentile over all series that agree in `by`."""
    labels = f"{by}, le" if by else "le"
    return f"histogram_quantile({q:g}, sum by ({labels}) (rate({metric}_bucket{where}[{RATE}])))"


# ---- on several dashboards ---------------------------------------------------------------------

BY_OUTCOME = f"sum by (outcome) (rate(tidegate_requests_total[{RATE}]))"
STEP = stat(
    "Ladder",
    "max(tidegate_degradation_step)",
    "Which rung of the degradation ladder holds; 0 is normal. `tidegate step` pins it.",
    steps=((None, GOOD), (1, WARN), (3, BAD)),
)
FIRING = stat(
    "Alerts firing",
    'count(ALERTS{alertstate="firing"}) or vector(0)',
    "Each is explained in docs/observe.md.",
    steps=((None, GOOD), (1, BAD)),
)
BREAKERS = stat(
    "Breakers open",
    'sum(tidegate_breaker_state{state="open"})',
    "Upstreams that are left alone for now.",
    steps=((None, GOOD), (1, BAD)),
)
OUTCOME_PANEL = Panel(
    "Requests by outcome",
    (Query(BY_OUTCOME, "{{outcome}}"),),
    "How each request ended. limited, shed, degraded: the gateway at work; broken, failed: trouble.",
    unit="reqps",
    width=12,
    stack=True,
    colours=OUTCOMES,
)
PRESSURE = Panel(
    "Pressure and ladder",
    (
        Query("max(tidegate_pressure)", "pressure"),
        Query("max(tidegate_degradation_step)", "step"),
    ),
    "1 is full. Held above degradation.climb it lifts the ladder, held below descend it lowers it.",
)
