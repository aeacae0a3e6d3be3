"""The keys that seal card keys, in DATA/keys/card-key: one more, and which of them seals."""

from __future__ import annotations

import base64
import contextlib
import re
import secrets
from pathlib import Path

import psutil

from ops import datadir
from ops.errors import OpsError
from ops.secrets import write_private

_SERVICES = ("shop", "worker")  # who opens card keys


def place(data: Path) -> Path:
    """The file; its text is TIDEGATE_CARD_KEY."""
    return data / "keys" / "card-key"


def add(data: Path) -> str:
    """Make one more key; its id. It only opens until `seal_with` says otherwise: others must learn it first.

    Raises:
        OpsError: there is no key yet, or the file can't be written.
    """
    parts = _parts(data)
    numbers = [int(match[1]) for part in parts if (match := re.match(r"k(\d+):", part))]
    kid = f"k{max(numbers, default=0) + 1}"
    key = base64.urlsafe_b64encode(secrets.token_bytes(32)).decode().rstrip("=")
    _write(data, [*parts, f"{kid}:{key}"])
    return kid


def newest(data: Path) -> str:
    """The id of the key that was made last.

    Raises:
        OpsError: there is no key.
    """
    return _parts(data)[-1].partition(":")[0]


def seal_with(data: Path, kid: str) -> None:
    """From the next start on, new cards are sealed with this key; the others still open.

    Raises:
        OpsError: there is no such key.
    """
    parts = _parts(data)
    chosen = [part for part in parts if part.partition(":")[0] == kid]
    if not chosen:
        raise OpsError(f"{place(data)} has no key {kid}")
    _write(data, chosen + [part for part in parts if part not in chosen])


def require_known(data: Path) -> None:
    """Insist that whoever runs has read the file as it is.

    Raises:
        OpsError: a process of the stack is older than the newest key; it could not open what that seals.
    """
    made = place(data).stat().st_mtime
    pids = datadir.read_state(data).get("pids", {})
    for name in _SERVICES:
        with contextlib.suppress(psutil.Error):
            if isinstance(pids.get(name), int) and psutil.Process(pids[name]).create_time() < made:
                raise OpsError(
                    f"the {name} runs since before the newest key was made and could not open what it seals: "
                    "stop `tidegate up`, start it again, then rotate"
                )


def _parts(data: Path) -> list[str]:
    try:
        text = place(data).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise OpsError(f"{place(data)}: {error.strerror}; has a stack run in {data}?") from error
    return [part.strip() for part in text.split(",")]


def _write(data: Path, parts: list[str]) -> None:
    try:
        write_private(place(data), ",".join(parts) + "\n")
    except OSError as error:
        raise OpsError(f"{place(data)}: {error.strerror}") from error
