"""Requests that come at moments of their own, over connections that are held open.

wrk lets a connection rest for whole milliseconds, and searches the timers of all whenever one is due: how its
requests bunch, and so how often a gate falls asleep between them, depends on how many connections there are.
Here arrivals are a Poisson process, the same for every number of them, and connections carry them in turn.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from benchmarks.load import Case, LoadError, Outcome
from benchmarks.overload.crowd import BROKEN, GAVE_UP, CrowdError, Phase, Plan, from_its_core

_DEADLINE = 10.0  # seconds until an answer counts as lost


def offer(case: Case, port: int, *, seconds: float, connections: int, users: int, rate: int) -> Outcome:
    """Send a case's requests, open-loop.

    Args:
        case: what to send; one without a body.
        port: where, on the loopback.
        seconds: how long requests come, once all connections are open.
        connections: held open at once.
        users: distinct values of X-User, drawn for each.
        rate: requests a second over all connections, on average.

    Raises:
        LoadError: the load could not be offered.
    """
    request = f"{case.method} {case.path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-User: u{{user}}\r\n\r\n"
    plan = Plan(
        port, (Phase(rate, seconds),), users=users, deadline=_DEADLINE, held=connections, request=request
    )
    with tempfile.TemporaryDirectory() as folder:
        try:
            records = from_its_core(plan, Path(folder) / "records")
        except CrowdError as error:
            raise LoadError(f"the load on port {port} {error}") from None
    lost = sum(status in {GAVE_UP, BROKEN} for status in records.status)
    took = [took for took, status in zip(records.took, records.status, strict=True) if status > BROKEN]
    if len(took) < 2:
        raise LoadError(f"the load on port {port} was not answered")
    parts = statistics.quantiles(took, n=100, method="inclusive")
    return Outcome(
        answered=len(took),
        seconds=seconds,
        refused=sum(status >= 400 for status in records.status),
        broken=lost,
        p50=1000 * parts[49],
        p99=1000 * parts[98],
    )
