"""Commands that prove something: that the books balance."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from ops.commands.group import EXIT_CODES, data_option


@click.command(epilog=EXIT_CODES)
@data_option
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text.")
@click.option(
    "--wait",
    type=click.FloatRange(0, 3600),
    default=30.0,
    show_default=True,
    help="Seconds to let streams drain first.",
)
@click.option(
    "--answered",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with one order id per line that was answered 202, for I7.",
)
@click.option(
    "--running", is_flag=True, help="Look once at what holds at every moment; a sale may go on meanwhile."
)
def audit(data: Path, as_json: bool, wait: float, answered: Path | None, running: bool) -> None:
    """Check every invariant against PostgreSQL, Redis and the provider."""
    from ops.audit import command

    sys.exit(command.run(data, as_json=as_json, wait=wait, answered=answered, running=running))


COMMANDS = (audit,)
