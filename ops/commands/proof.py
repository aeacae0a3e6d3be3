"""Commands that prove something: that the books balance, that the night will go well."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

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


@click.command(epilog=EXIT_CODES)
@data_option
@click.option(
    "--buyers", type=click.IntRange(1, 100_000), default=300, show_default=True, help="Who want to buy."
)
@click.option(
    "--onlookers", type=click.IntRange(0, 100), default=2, show_default=True, help="Who only look, for each."
)
@click.option(
    "--seconds",
    type=click.FloatRange(1, 3600),
    default=30.0,
    show_default=True,
    help="From the first arrival to the last; most come when the sale opens.",
)
@click.option(
    "--cards", type=click.IntRange(1, 1_000_000), default=150, show_default=True, help="Keys made up to sell."
)
@click.option("--sku", help="Sell this product instead, with the stock it has: its keys are spent.")
@click.option("--seed", type=int, default=0, show_default=True, help="Another crowd of the same shape.")
@click.option("--json", "as_json", is_flag=True, help="One JSON document instead of text.")
@click.option(
    "--report",
    "report_file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the outcome as a page with plots, too.",
)
def rehearse(
    data: Path,
    *,
    as_json: bool,
    report_file: Path | None,
    **play: Any,  # noqa: ANN401 - the fields of Play, as click read them
) -> None:
    """Play a flash sale against the running stack, and judge every promise by what its crowd saw.

    Orders are paid at the sandbox provider. Keys are made up, and the product `rehearsal`, which no shelf
    shows, is gone again when it is over. Exit status 1 when a promise was broken.
    """
    from ops.rehearsal import command

    sys.exit(command.run(data, command.Play(**play), as_json=as_json, report_file=report_file))


COMMANDS = (audit, rehearse)
