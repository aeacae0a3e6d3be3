"""Lets the clock of one host jump: Python imports this at its start, before anything of ours.

`TIDEGATE_CHAOS_CLOCK` is a folder with one file for each host, `gateway` and `shop`: a double, the seconds
by which that host's clock is wrong just now. Wall clocks read from C (`datetime.now`) don't follow; what
the gateway and the shop decide by, they read from `time.time`.
"""

import mmap
import os
import struct
import sys
import time
from collections.abc import Sequence
from pathlib import Path


def _host(words: Sequence[str]) -> str | None:
    if "-m" not in words[:-1]:
        return None
    module, *rest = words[words.index("-m") + 1 :]
    if module.split(".")[0] == "gateway":
        return "gateway"
    # The provider is another company: its clock is right.
    return "shop" if module == "shop_backend" and rest[:1] in (["serve"], ["worker"]) else None


def _install(file: Path) -> None:
    with file.open("rb") as opened:
        wrong = mmap.mmap(opened.fileno(), 8, prot=mmap.PROT_READ)
    seconds, real, real_ns = struct.Struct("d").unpack, time.time, time.time_ns
    time.time = lambda: real() + seconds(wrong)[0]
    time.time_ns = lambda: real_ns() + int(seconds(wrong)[0] * 1e9)


if (folder := os.environ.get("TIDEGATE_CHAOS_CLOCK")) and (host := _host(sys.orig_argv)):
    _install(Path(folder) / host)
