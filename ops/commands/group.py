"""What the commands have in common: their exit status, their folder, and how they end."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click

from ops.errors import OpsError

EXIT_CODES = """
\b
Exit status:
  0  done, or nothing wrong was found
  1  failed, or violations were found
  2  wrong words on the command line
  3  a server program is missing
  4  a port is in use
  5  a stack already runs in that folder
  6  a process of the stack did not start
  7  the admin API, a store or the provider did not answer
  8  the admin API said no
  9  no stack has run in that folder, and no token or address was given instead
"""
STANDARD_DATA = Path(".tidegate")


class Group(click.Group):
    """Turns operator errors into one line and their exit status; lists its commands with whole sentences."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Each command and what it does, not cut where the terminal ends."""
        commands = {name: self.commands[name] for name in self.list_commands(ctx)}
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(500)) for name, one in commands.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except OpsError as error:
            click.echo(f"tidegate: {error}", err=True)
            sys.exit(error.code)


def data_option(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command `data`, the folder of a stack."""
    return click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="TIDEGATE_DATA_DIR",
        default=STANDARD_DATA,
        show_default=True,
        help="Folder of the stack.",
    )(command)


def become(*words: str) -> NoReturn:
    """Go on as one of our modules: `python -m WORDS`."""
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", *words])  # noqa: S606 - our own modules
