"""Commands on what the shop keeps: messages, refunds, and what its workers gave up."""

from __future__ import annotations

from pathlib import Path

import click

from ops.commands.cards import become_shop
from ops.commands.group import Group, data_option


@click.command()
@data_option
@click.option("--retry", is_flag=True, help="Send those again that were given up.")
def outbox(data: Path, retry: bool) -> None:
    """Show which messages to buyers wait, and which were given up and why."""
    become_shop(data, "outbox", *(["--retry"] if retry else []))


@click.group("dead-letters", cls=Group)
def dead_letters() -> None:
    """Orders and callbacks that the workers gave up."""


@dead_letters.command("list")
@data_option
@click.option("--all", "every", is_flag=True, help="With those that were replayed.")
def list_dead_letters(data: Path, every: bool) -> None:
    """Show each with its number and why it was given up."""
    become_shop(data, "dead-letters", *(["--all"] if every else []))


@dead_letters.command("replay")
@click.argument("numbers", nargs=-1, required=True, metavar="NUMBER...|all")
@data_option
def replay_dead_letters(numbers: tuple[str, ...], data: Path) -> None:
    """Queue them again, once the reason is gone: an order takes its stock anew if there is some."""
    become_shop(data, "dead-letters", "--replay", *numbers)


@click.command()
@data_option
@click.option("--retry", is_flag=True, help="Ask the provider again for those that failed.")
def refunds(data: Path, retry: bool) -> None:
    """Show which refunds are not done yet, and which failed."""
    become_shop(data, "refunds", *(["--retry"] if retry else []))


COMMANDS = (outbox, dead_letters, refunds)
