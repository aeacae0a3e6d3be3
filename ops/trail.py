"""The trail of changes as lines for people: who changed what, when and why, and who was refused."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ops.admin_client import Json


def lines(document: Json, *, refused: bool) -> list[str]:
    """One line for each entry, the newest first.

    Args:
        document: the answer of GET /api/audit.
        refused: the attempts that were refused, in place of the changes.
    """
    kept = document if isinstance(document, dict) else {}
    entries = kept.get("refused" if refused else "changes") or []
    told = _refusal if refused else _change
    return [_printable(f"{_when(one)}  {told(one)}") for one in entries if isinstance(one, dict)]


def taken(document: Json, version: object) -> str:
    """When, by whom and by what differences a configuration came to hold, if the trail says."""
    kept = document if isinstance(document, dict) else {}
    entries = [one for one in kept.get("changes") or [] if isinstance(one, dict)]
    edits = [one for one in entries if one.get("kind") == "config"]
    if not edits or edits[0].get("value") != str(version):  # a gateway that starts counts from 1 again
        return ""
    said = f"since {_when(edits[0])} ({edits[0].get('by') or '?'}): {edits[0].get('detail') or ''}"
    return _printable(said)


def _when(entry: Mapping[str, Any]) -> str:
    return _clock(float(entry.get("at") or 0) / 1000)


def _clock(seconds: float) -> str:
    """A moment, seconds since 1970, in this machine's time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _change(entry: Mapping[str, Any]) -> str:
    what = " ".join(str(entry[key]) for key in ("kind", "name") if entry.get(key))
    change = " -> ".join(str(entry[key]) for key in ("old", "value") if entry.get(key))
    detail = f" ({entry['detail']})" if change and entry.get("detail") else entry.get("detail") or ""
    text = f"{entry.get('by') or '?'}  {what}: {change}{detail}"
    if entry.get("until"):
        text += f" until {_clock(float(entry['until']))}"
    if entry.get("result") == "heard":
        text += " (from another host)"
    if entry.get("workers") is not None:
        text += f" in {entry.get('applied')} of {entry['workers']} workers after {entry.get('ms'):.0f} ms"
    return f"{text}: {entry['reason']}" if entry.get("reason") else text


def _refusal(entry: Mapping[str, Any]) -> str:
    more = f" ({entry['left_out']} more before it)" if entry.get("left_out") else ""
    return f"{entry.get('by') or '?'}  {entry.get('name')}: {entry.get('status')} {entry.get('detail')}{more}"


def _printable(text: str) -> str:
    """Without what would move the terminal's cursor: a refused path is spelt by whoever sent it."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)
