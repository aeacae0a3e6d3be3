"""The file behind memory that the workers of a host share: the master opens it, they inherit it."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def open_memory(name: str, path: Path | None = None) -> int:
    """A descriptor of a file to be mapped; a new one is empty, and takes no more memory than is written to.

    Args:
        name: by which an anonymous one is told in /proc.
        path: where it outlives every process of the gateway; None keeps it in memory, for as long as anybody
            has it open.

    Raises:
        OSError: it can't be made there.
    """
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if hasattr(os, "memfd_create"):
        return os.memfd_create(name)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
