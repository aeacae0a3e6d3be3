"""The upstream: nginx answering the same bytes from memory, on two ports."""

from __future__ import annotations

import getpass
import re
import urllib.request
from pathlib import Path

from benchmarks.machine import LOAD_CORE
from benchmarks.processes import Command, Process, accepts, free_port
from benchmarks.site import render

_TEMPLATE = Path(__file__).with_name("upstream.conf")
SMALL = ('{"items":[' + ",".join(f'{{"sku":"card-{n:02}","price":999}}' for n in range(9)) + "]").ljust(
    291
) + "}"  # 292 bytes
LARGE = "0123456789abcdef" * 1024  # 16 KiB


class Upstream:
    """The server behind every peer."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.ports = (free_port(), free_port())
        self._status = free_port()
        (folder / "api").mkdir()
        (folder / "api" / "large").write_text(LARGE, encoding="utf-8")
        config = folder / "upstream.conf"
        config.write_text(
            render(
                _TEMPLATE,
                folder=folder,
                user=getpass.getuser(),
                first=self.ports[0],
                second=self.ports[1],
                status=self._status,
                small=SMALL,
            ),
            encoding="utf-8",
        )
        self.process = Process(
            Command(("nginx", "-p", str(folder), "-e", "error.log", "-c", str(config)), {}),
            core=LOAD_CORE,
            folder=folder,
            name="upstream (nginx)",
        )

    def __enter__(self) -> Upstream:
        self.process.wait_until(lambda: all(accepts(port) for port in self.ports))
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()

    def answered(self) -> int:
        """How many requests it has answered so far.

        Raises:
            OSError: it does not say so.
        """
        with urllib.request.urlopen(f"http://127.0.0.1:{self._status}/", timeout=10) as page:
            text = page.read().decode()
        found = re.search(r"\n (\d+) (\d+) (\d+) ", text)  # connections accepted, handled; requests
        if found is None:
            raise OSError(f"no stub_status of nginx: {text[:200]!r}")
        return int(found[3])
