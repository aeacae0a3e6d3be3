"""The obvious Python gateway: starlette, httpx, slowapi and pybreaker."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from typing_extensions import override

from benchmarks.peers.peer import HERE, Peer, says, venv
from benchmarks.processes import Command
from benchmarks.site import Site

_ASK = (
    "from importlib.metadata import version as v;"
    "print(*(f'{n} {v(n)}' for n in ('starlette', 'httpx', 'slowapi')), sep=', ')"
)


class PythonStack(Peer):
    """What a team writes in an afternoon."""

    name: ClassVar[str] = "starlette+httpx"
    lacks: ClassVar[str] = "one server; breaker counts failures in a row only (pybreaker)"

    @override
    def program(self) -> Path | None:
        needed = ("starlette", "httpx", "slowapi", "pybreaker", "uvicorn")
        here = [path for name in needed for path in venv().glob(f"lib/python3*/site-packages/{name}")]
        return venv() / "bin" / "python" if len(here) == len(needed) else None

    @override
    def version(self) -> str:
        return says(self.installed(), "-c", _ASK)

    @override
    def command(self, site: Site) -> Command:
        return Command(
            (
                *(self.installed(), "-m", "uvicorn", "--app-dir", str(HERE), "python_stack_app:app"),
                *("--port", str(site.port), "--http", "httptools", "--loop", "uvloop"),
                *("--timeout-keep-alive", "75", "--no-server-header", "--no-date-header"),
            ),
            {
                "UPSTREAM": f"http://127.0.0.1:{site.upstreams[0]}",
                "OVERALL_LIMIT": f"{site.overall.count}/{site.overall.seconds} seconds",
                "USER_LIMIT": f"{site.user.count}/{site.user.seconds} seconds",
            },
        )
