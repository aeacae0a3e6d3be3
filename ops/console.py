"""Lines of news on the console of `tidegate up`."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path


def say(line: str) -> None:
    """One line of news, with its time."""
    show(f"{time.strftime('%Y-%m-%d %H:%M:%S')}  {line}")


def show(line: str) -> None:
    """One line of the console; one that has gone away stops nothing."""
    try:
        print(line, flush=True)
    except OSError:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115 - lives as long as we do
