"""What operators have pinned, for how long and why; kept in a file, shared through Redis, newest wins."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.exchange import Clock

_log = logging.getLogger("gateway.pins")
KINDS = frozenset({"feature", "step", "breaker", "limit"})
_NEVER = 1 << 53  # milliseconds since 1970 that no clock of ours comes to


@dataclass(frozen=True, slots=True)
class Pin:
    """One operator's word on one switch.

    Attributes:
        kind: "feature", "step", "breaker" or "limit".
        name: of the feature, upstream or limit; empty for the step.
        value: what it is pinned to; "auto" leaves it to itself again.
        old: what it was pinned to before.
        at: when, milliseconds since 1970; also the version: the newest wins.
        until: when it ends by itself, seconds since 1970, or None.
        reason: why.
        by: who.
    """

    kind: str
    name: str
    value: str
    old: str = "auto"
    at: int = 0
    until: float | None = None
    reason: str = ""
    by: str = ""

    @classmethod
    def parse(cls, raw: bytes | str) -> Pin:
        """The pin that `json` wrote.

        Raises:
            ValueError: it is no pin.
        """
        try:
            pin = cls(**json.loads(raw))
        except TypeError:
            raise ValueError("not a pin") from None
        texts = (pin.kind, pin.name, pin.value, pin.old, pin.reason, pin.by)
        if not all(isinstance(text, str) for text in texts) or pin.kind not in KINDS:
            raise ValueError("not a pin")
        if type(pin.at) is not int or not 0 <= pin.at < _NEVER:
            raise ValueError("not a pin")
        if pin.until is not None and (type(pin.until) not in {int, float} or not 0 <= pin.until < _NEVER):
            raise ValueError("not a pin")
        return pin

    def json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))


class Pins:
    """The newest pin of every switch.

    Args:
        path: where they are kept over a restart; None keeps them in memory only.
        clock: seconds since 1970.
    """

    def __init__(self, path: Path | None, clock: Clock) -> None:
        self._path = path
        self._clock = clock
        self._newest: dict[tuple[str, str], Pin] = {}
        self.on_change: Callable[[], None] = lambda: None
        self.on_heard: Callable[[Pin], None] = lambda _: None  # told of each pin that another host put
        self._load()

    def value(self, kind: str, name: str) -> str | None:
        """What a switch is pinned to, or None when it is left to itself."""
        pin = self.get(kind, name)
        return pin.value if pin is not None else None

    def get(self, kind: str, name: str) -> Pin | None:
        """The pin that holds now, or None."""
        pin = self._newest.get((kind, name))
        if pin is None or pin.value == "auto" or (pin.until is not None and pin.until <= self._clock()):
            return None
        return pin

    def put(self, kind: str, name: str, value: str, *, lasts: float | None, reason: str, by: str) -> Pin:
        """Pin a switch, now.

        Args:
            kind: which kind of switch.
            name: which one.
            value: to what; "auto" takes the pin away.
            lasts: seconds, or None for ever.
            reason: why.
            by: who.
        """
        before = self._newest.get((kind, name))
        now = self._clock()
        pin = Pin(
            kind,
            name,
            value,
            old=self.value(kind, name) or "auto",
            # Later than what it replaces, even on a host whose clock is behind.
            at=max(int(now * 1000), before.at + 1 if before else 0),
            until=None if lasts is None or value == "auto" else now + lasts,
            reason=reason,
            by=by,
        )
        self._newest[kind, name] = pin
        self._changed()
        return pin

    def merge(self, pins: Iterable[Pin]) -> bool:
        """Take those of another host that are newer than ours; say whether any was."""
        newer = []
        for pin in pins:
            known = self._newest.get((pin.kind, pin.name))
            if known is None or (pin.at, pin.json()) > (known.at, known.json()):
                self._newest[pin.kind, pin.name] = pin
                newer.append(pin)
        if newer:
            self._changed()
            for pin in newer:
                self.on_heard(pin)
        return bool(newer)

    def _changed(self) -> None:
        self._save()
        self.on_change()

    def all(self) -> list[Pin]:
        """The newest of every switch, those that ended among them."""
        return list(self._newest.values())

    def _load(self) -> None:
        if self._path is None:
            return
        try:
            kept: dict[str, Any] = json.loads(self._path.read_bytes())
            pins = [Pin.parse(json.dumps(pin)) for pin in kept["pins"]]
        except FileNotFoundError:
            return
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.warning("%s can't be read (%s); starting with no switch pinned", self._path, error)
            return
        self._newest = {(pin.kind, pin.name): pin for pin in pins}

    def _save(self) -> None:
        if self._path is None:
            return
        kept = {"pins": [asdict(pin) for pin in self.all()]}
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=".pins-")
            with os.fdopen(handle, "w") as file:
                json.dump(kept, file)
            Path(temporary).replace(self._path)
        except OSError as error:
            # The switch works all the same; only a restart would forget it.
            _log.warning("%s can't be written (%s); switches won't outlive a restart", self._path, error)
            with contextlib.suppress(OSError, NameError):
                Path(temporary).unlink()
