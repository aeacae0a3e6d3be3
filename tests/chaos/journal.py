"""What a client saw, written down by itself: invoke, then ok, fail or unknown (after Jepsen)."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

End = Literal["ok", "fail", "unknown"]


@dataclass(frozen=True, slots=True)
class Operation:
    """One thing a client tried.

    Attributes:
        op: order, pay, read or callback.
        end: ok: it happened; fail: it surely did not; unknown: nobody told, it may happen yet.
        asked: what the client wanted.
        told: what it heard.
    """

    op: str
    end: End
    asked: dict[str, Any] = field(default_factory=dict)
    told: dict[str, Any] = field(default_factory=dict)


class Journal:
    """One client's file: a line before each try, and one after it. What has no second line is unknown."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)
        self._numbers = itertools.count()

    def invoke(self, op: str, **asked: object) -> int:
        """About to try; returns the try's number."""
        number = next(self._numbers)
        self._write({"n": number, "phase": "invoke", "op": op, **asked})
        return number

    def end(self, number: int, end: End, **told: object) -> None:
        """What came of it."""
        self._write({"n": number, "phase": end, **told})

    def close(self) -> None:
        """No more is tried."""
        self._file.close()

    def _write(self, line: dict[str, object]) -> None:
        self._file.write(json.dumps({"at": round(time.time(), 3), **line}) + "\n")


def read(files: Iterable[Path]) -> Iterator[Operation]:
    """Every operation of every client, as it was invoked."""
    for file in files:
        asked: dict[int, dict[str, Any]] = {}
        ended: dict[int, dict[str, Any]] = {}
        for line in file.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            (asked if entry["phase"] == "invoke" else ended)[entry.pop("n")] = entry
        for number, wanted in asked.items():
            told = ended.get(number, {"phase": "unknown"})
            yield Operation(wanted.pop("op"), told.pop("phase"), wanted, told)
