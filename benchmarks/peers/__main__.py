"""`python -m benchmarks.peers [install]`: who is here; fetch those that aren't."""

from __future__ import annotations

import argparse
import sys

from benchmarks.peers import PEERS
from benchmarks.peers.install import install


def main(arguments: list[str] | None = None) -> int:
    """List the peers, after installing them if asked; returns 1 when one is missing."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("command", nargs="?", choices=("list", "install"), default="list")
    if parser.parse_args(arguments).command == "install":
        for problem in install():
            print(problem, file=sys.stderr)
    absent = 0
    for peer in PEERS:
        absence = peer.missing()
        absent += absence is not None
        print(f"{peer.name:<16}  {f'missing: {absence}' if absence else peer.version()}")
    return 1 if absent else 0


if __name__ == "__main__":
    sys.exit(main())
