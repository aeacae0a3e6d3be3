"""Commands on what the shop keeps: cards, messages, refunds, and what its workers gave up."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NoReturn

import click

from ops.commands.group import become, data_option


def _become_shop(data: Path, *words: str) -> NoReturn:
    """One of the shop's own commands, on the stores of the stack in `data`."""
    from ops import stores

    os.environ.update(stores.client_environment(data, os.environ))
    become("shop_backend", *words)


@click.command()
@data_option
@click.option("--retry", is_flag=True, help="Send those again that were given up.")
def outbox(data: Path, retry: bool) -> None:
    """Show which messages to buyers wait, and which were given up and why."""
    _become_shop(data, "outbox", *(["--retry"] if retry else []))


@click.group("dead-letters")
def dead_letters() -> None:
    """Orders and callbacks that the workers gave up."""


@dead_letters.command("list")
@data_option
@click.option("--all", "every", is_flag=True, help="With those that were replayed.")
def list_dead_letters(data: Path, every: bool) -> None:
    """Show each with its number and why it was given up."""
    _become_shop(data, "dead-letters", *(["--all"] if every else []))


@dead_letters.command("replay")
@click.argument("numbers", nargs=-1, required=True, metavar="NUMBER...|all")
@data_option
def replay_dead_letters(numbers: tuple[str, ...], data: Path) -> None:
    """Queue them again, once the reason is gone: an order takes its stock anew if there is some."""
    _become_shop(data, "dead-letters", "--replay", *numbers)


@click.command()
@data_option
@click.option("--retry", is_flag=True, help="Ask the provider again for those that failed.")
def refunds(data: Path, retry: bool) -> None:
    """Show which refunds are not done yet, and which failed."""
    _become_shop(data, "refunds", *(["--retry"] if retry else []))


@click.group()
def cards() -> None:
    """Card keys."""


@cards.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@data_option
def import_cards(file: Path, data: Path) -> None:
    """Import card keys from a CSV with the columns sku and secret."""
    _become_shop(data, "import-cards", str(file.resolve()))


COMMANDS = (outbox, dead_letters, refunds, cards)
