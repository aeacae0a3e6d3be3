"""Moments as the API writes them: RFC 3339 in UTC, to the millisecond."""

from __future__ import annotations

from datetime import UTC, datetime


def iso(moment: datetime) -> str:
    """E.g. `2026-11-28T05:00:00.000Z`."""
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def from_ms(milliseconds: int) -> str:
    """The same, of Unix time in milliseconds."""
    return iso(datetime.fromtimestamp(milliseconds / 1000, UTC))
