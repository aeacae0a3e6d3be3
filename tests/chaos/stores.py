"""Both Redis servers beside a stack, started again when they die: `python -m tests.chaos.stores FOLDER`.

The stack then finds them by URL, through proxies. Their process ids stand in FOLDER/pids.json.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

from ops.embedded import EmbeddedRedis
from ops.secrets import write_private
from ops.supervisor import Supervisor


def servers(folder: Path) -> tuple[EmbeddedRedis, EmbeddedRedis]:
    """The durable one and the volatile one."""
    return (
        EmbeddedRedis("durable", folder / "redis-durable", folder),
        EmbeddedRedis("volatile", folder / "redis-volatile", folder),
    )


def main(folder: Path) -> None:
    """Run until SIGTERM."""

    def changed(pids: Mapping[str, int]) -> None:
        write_private(folder / "pids.json", json.dumps(dict(pids)))

    supervisor = Supervisor(folder / "logs", lambda line: print(line, flush=True), changed)  # noqa: T201 - its log
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: supervisor.request_stop())
    with supervisor:
        supervisor.start(*(server.service() for server in servers(folder)))
        print("ready", flush=True)  # noqa: T201 - its log
        supervisor.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
