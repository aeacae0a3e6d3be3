"""The command line `tidegate`: its commands, gathered from ops/commands."""

from __future__ import annotations

import click

from ops.commands import admin, cards, completion, processes, proof, settings, shop
from ops.commands.group import EXIT_CODES, Group


@click.group(cls=Group, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tidegate")
def main() -> None:
    """Keep a shop selling through a flash sale."""


for _room in (processes, settings, shop, cards, admin, proof, completion):
    for _command in _room.COMMANDS:
        main.add_command(_command)


if __name__ == "__main__":
    main()
