"""`python -m gateway serve | check | routes | schema | compile` (`workers` is for the master only)."""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import signal
import socket
import sys
from collections.abc import Sized
from pathlib import Path

from gateway.config import ConfigError, remarks
from gateway.trial import load_and_try


def main(arguments: list[str] | None = None) -> int:
    """Run a command; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m gateway", description="Tidegate's gateway.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="run the gateway")
    serve.add_argument("--config", type=Path, required=True, metavar="FILE")
    serve.add_argument("--port", type=_port, help="over listen.port")
    serve.add_argument("--admin-port", type=_port, help="over admin.port")
    serve.add_argument("--workers", type=_workers, help="over listen.workers")
    for name, said in (("check", "validate a configuration"), ("routes", "show its route table")):
        commands.add_parser(name, help=said).add_argument("file", type=Path, metavar="FILE")
    commands.add_parser("compile", help="build the walk of a request as machine code")
    commands.add_parser("schema", help="print the configuration's JSON Schema")
    commands.add_parser("workers").add_argument("line_fd", type=int)
    given = parser.parse_args(arguments)
    logging.basicConfig(
        level=logging.INFO, stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("uvicorn").setLevel(logging.ERROR)  # its refusals of bad requests are counted, not told
    logging.getLogger("httpx").setLevel(logging.WARNING)
    if given.command in {"check", "routes", "schema"}:
        # Whoever reads what these print may have read enough, as `head` does; that is no error of ours.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    match given.command:
        case "serve":
            from gateway import master

            overrides = master.Overrides(given.port, given.admin_port, given.workers)
            return master.main(given.config, overrides)
        case "workers":
            from gateway import fork_server, worker

            gc.freeze()
            return fork_server.serve(socket.socket(fileno=given.line_fd), worker.main)
        case "compile":
            return _compile()
        case "schema":
            from gateway.schema import json_schema

            print(json.dumps(json_schema(), indent=2))
            return 0
        case _:
            return _with_config(given.command, given.file)


def _compile() -> int:
    from gateway.compiling import CompileError, build

    try:
        place, new = build()
    except (CompileError, OSError) as error:
        print(f"not compiled: {error}", file=sys.stderr)
        return 1
    print(f"{'compiled' if new else 'compiled already'}: {place}")
    return 0


def _with_config(command: str, file: Path) -> int:
    try:
        raw = file.read_bytes()
    except OSError as error:
        print(f"{file}: can't be read: {(error.strerror or str(error)).lower()}", file=sys.stderr)
        return 1
    try:
        config = load_and_try(raw, str(file), os.environ)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 1
    if command == "check":
        print(f"{file}: good ({_count(config.routes, 'route')}, {_count(config.limits, 'limit')})")
        for line in remarks(config, raw, str(file), os.environ):
            print(line)
        return 0
    width = max(len(route.match) for route in config.routes)
    for route in config.routes:
        limits = ", ".join(route.limits) or "-"
        print(
            f"{route.match:<{width}}  {'|'.join(route.methods) or 'any':<10}  -> {route.upstream:<10}"
            f"  {route.priority:<8}  feature: {route.feature or '-'}  limits: {limits}"
        )
    return 0


def _count(things: Sized, noun: str) -> str:
    return f"{len(things)} {noun}" if len(things) == 1 else f"{len(things)} {noun}s"


def _port(text: str) -> int:
    number = int(text)
    if not 0 <= number <= 65535:
        raise argparse.ArgumentTypeError("a port is between 0 and 65535")
    return number


def _workers(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 64:
        raise argparse.ArgumentTypeError("between 1 and 64 workers")
    return number


if __name__ == "__main__":
    sys.exit(main())
