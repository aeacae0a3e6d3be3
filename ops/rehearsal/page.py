"""The outcome as one page with plots, for those who were not there. It needs nothing from anywhere."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC
from html import escape

from ops.rehearsal.report import Report
from ops.rehearsal.timeline import KINDS, Second, marks

_WIDTH, _HEIGHT = 720, 150  # of a plot, in its own units
_AXIS = 22  # below it, for the seconds
_LAST = 30  # a mark so near the right edge has its number on the left
_COLOURS = dict(
    zip(KINDS, ("#2f7d6b", "#c9a227", "#7d8aa0", "#4c78c9", "#b65fa8", "#c8452f", "#111"), strict=True)
)
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2530 }
body { max-width: 46rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.4rem }
h2 { font-size: 1rem; margin: 2rem 0 .3rem }
table { border-collapse: collapse; width: 100% }
td { padding: .35rem .8rem .35rem 0; border-top: 1px solid #dde2e8; vertical-align: top }
.kept { color: #2f7d6b; font-weight: 600 }
.broken { color: #c8452f; font-weight: 700 }
small { color: #5d6876 }
text { font-size: 12px; fill: #5d6876 }
svg { width: 100%; height: auto; background: #f6f7f9 }
i { display: inline-block; width: .7em; height: .7em; margin: 0 .3em 0 .9em }
"""


def render(report: Report) -> str:
    """The page, as HTML."""
    rows = "".join(
        f'<tr><td class="{"kept" if verdict.kept else "broken"}">{"kept" if verdict.kept else "broken"}'
        f"<td>{escape(verdict.promise)}<br><small>{escape(verdict.figure)}</small></tr>"
        for verdict in report.verdicts
    )
    seconds = report.timeline
    busiest = max((second.requests for second in seconds), default=0)
    slowest = max((second.p95 for second in seconds), default=0.0)
    steps = max((second.step for second in seconds), default=0)
    ended = [kind for kind in KINDS if any(second.kinds[kind] for second in seconds)]
    legend = "".join(f'<i style="background:{_COLOURS[kind]}"></i>{kind}' for kind in ended)
    caution = f"<p><b>{escape(report.caution)}</b></p>" if report.caution else ""
    parts = (
        '<!doctype html><html lang="en"><meta charset="utf-8"><title>Rehearsal</title>',
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>',
        f"<h1>Rehearsal: {escape(report.conclusion)}</h1><p>{escape(report.headline)}</p>",
        f"<p><small>Seconds are counted from {report.began.astimezone(UTC):%H:%M:%S} UTC.</small></p>",
        f"{caution}<table>{rows}</table>",
        f"<h2>Answers a second, at most {busiest}</h2>",
        f"{_areas(seconds, busiest)}<p><small>{legend}</small></p>",
        f"<h2>95 of 100 answered within, at most {slowest * 1000:.0f} ms</h2>",
        _line([second.p95 for second in seconds], slowest),
        f"<h2>Step of the ladder, at most {steps}</h2>",
        _line([float(second.step) for second in seconds], max(1.0, float(steps))),
        "</html>",
    )
    return "\n".join(parts) + "\n"


def _svg(inner: str, count: int) -> str:
    """A plot of so many seconds, with its axis."""
    lines, numbers = [], []
    for second in marks(count):
        x = _x(second, count)
        anchor = "start" if x < _LAST else "end" if x > _WIDTH - _LAST else "middle"
        lines.append(f'<path d="M{x:.1f} 0V{_HEIGHT}" stroke="#dde2e8"/>')
        numbers.append(f'<text x="{x:.1f}" y="{_HEIGHT + 16}" text-anchor="{anchor}">{second} s</text>')
    box = f"0 0 {_WIDTH} {_HEIGHT + _AXIS}"
    return f'<svg viewBox="{box}" role="img">{"".join(lines)}{inner}{"".join(numbers)}</svg>'


def _x(number: int, count: int) -> float:
    return number * _WIDTH / max(1, count - 1)


def _y(value: float, highest: float) -> float:
    return _HEIGHT - value / (highest or 1.0) * (_HEIGHT - 6)


def _line(values: Sequence[float], highest: float) -> str:
    points = " ".join(f"{_x(n, len(values)):.1f},{_y(v, highest):.1f}" for n, v in enumerate(values))
    return _svg(f'<polyline points="{points}" fill="none" stroke="#2f5d9b" stroke-width="2"/>', len(values))


def _areas(seconds: Sequence[Second], highest: float) -> str:
    """Each way to end above those before it."""
    below = [0.0] * len(seconds)
    drawn = []
    for kind in KINDS:
        above = [base + second.kinds[kind] for base, second in zip(below, seconds, strict=True)]
        if above != below:
            there = [f"{_x(n, len(above)):.1f},{_y(v, highest):.1f}" for n, v in enumerate(above)]
            back = [f"{_x(n, len(below)):.1f},{_y(v, highest):.1f}" for n, v in enumerate(below)]
            points = " ".join([*there, *reversed(back)])
            drawn.append(f'<polygon points="{points}" fill="{_COLOURS[kind]}"/>')
        below = above
    return _svg("".join(drawn), len(seconds))
