"""Commands on card keys, which are written down with who gave them, and on stock before a sale."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import click

from ops.commands.group import Group, become, data_option
from ops.errors import OpsError

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


def become_shop(data: Path, *words: str) -> NoReturn:
    """One of the shop's own commands, on the stores of the stack in `data`."""
    from ops import stores

    os.environ.update(stores.client_environment(data, os.environ))
    become("shop_backend", *words)


def _written_down(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command `by` and `reason`."""
    by = click.option("--by", metavar="NAME", help="Who does it; else the account's name.")
    reason = click.option("--reason", metavar="TEXT", help="Why; kept with the rest.")
    return data_option(by(reason(command)))


def _told(by: str | None, reason: str | None) -> list[str]:
    return [*(["--by", by] if by else []), *(["--reason", reason] if reason else [])]


@click.group(cls=Group)
def cards() -> None:
    """Card keys."""


@cards.command("import")
@click.argument("file", type=_FILE)
@_written_down
def import_cards(file: Path, data: Path, by: str | None, reason: str | None) -> None:
    """Import card keys from a CSV with the columns sku and secret."""
    become_shop(data, "import-cards", str(file.resolve()), *_told(by, reason))


@cards.command()
@click.argument("sku", required=False)
@click.argument("count", required=False, metavar="[COUNT|all]")
@click.option("--id", "ids", type=int, multiple=True, help="This card; may be repeated.")
@click.option("--file", type=_FILE, help="The cards that a CSV with the columns sku and secret names.")
@_written_down
def disable(
    sku: str | None,
    count: str | None,
    ids: tuple[int, ...],
    file: Path | None,
    data: Path,
    by: str | None,
    reason: str | None,
) -> None:
    """Take cards off sale that nobody bought or was promised; exit status 1 when that is not all of them."""
    words = [word for word in (sku, count) if word is not None]
    words += ["--id", *map(str, ids)] if ids else []
    words += ["--file", str(file.resolve())] if file else []
    become_shop(data, "disable-cards", *words, *_told(by, reason))


@cards.command()
@click.argument("sku")
@click.argument("count", metavar="COUNT|all")
@_written_down
def enable(sku: str, count: str, data: Path, by: str | None, reason: str | None) -> None:
    """Put disabled cards back on sale."""
    become_shop(data, "enable-cards", sku, count, *_told(by, reason))


@cards.command()
@click.argument("sku")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--state", type=click.Choice(["available", "held", "delivered", "disabled"]), default="disabled",
    show_default=True, help="Which of them.",
)  # fmt: skip
@click.option("--with-keys", is_flag=True, help="With the card keys in clear; needs a reason.")
@_written_down
def export(
    sku: str, file: Path, state: str, data: Path, by: str | None, reason: str | None, *, with_keys: bool
) -> None:
    """Write a product's cards to a CSV file that only its owner may read."""
    words = ["--state", state, *(["--with-keys"] if with_keys else [])]
    become_shop(data, "export-cards", sku, str(file.absolute()), *words, *_told(by, reason))


@cards.command("new-key")
@data_option
def new_key(data: Path) -> None:
    """Make one more key to seal card keys with; restart the stack, then `tidegate cards rotate`."""
    from ops import card_keys

    if os.environ.get("TIDEGATE_CARD_KEY"):
        raise OpsError(
            "TIDEGATE_CARD_KEY is set: add a key at its end there, restart, then rotate --to its id"
        )
    kid = card_keys.add(data)
    click.echo(f"key {kid} is in {card_keys.place(data)}; restart the stack, then: tidegate cards rotate")


@cards.command()
@click.option("--to", metavar="KID", help="The key to seal with; else the newest in the stack's folder.")
@_written_down
def rotate(to: str | None, data: Path, by: str | None, reason: str | None) -> None:
    """Seal every card key with another key, while the shop sells; the old one may go afterwards."""
    from ops import card_keys, stores

    ours = not os.environ.get("TIDEGATE_CARD_KEY")  # else the keys are somebody else's to keep in order
    words = ["--to", to] if to else []
    if ours:
        to = to or card_keys.newest(data)
        words = ["--to", to]
        card_keys.require_known(data)
    environment = {**os.environ, **stores.client_environment(data, os.environ)}
    argv = [sys.executable, "-m", "shop_backend", "rotate-cards", *words, *_told(by, reason)]
    done = subprocess.run(argv, env=environment, check=False)
    if done.returncode == 0 and ours and to:
        card_keys.seal_with(data, to)
        click.echo(f"new cards are sealed with {to} from the next start on; older keys open backups only")
    sys.exit(done.returncode)


@cards.command("log")
@click.option("--newest", type=click.IntRange(1), default=50, show_default=True, help="So many.")
@data_option
def log(newest: int, data: Path) -> None:
    """Show what was done to card keys: when, by whom, why."""
    become_shop(data, "card-log", "--newest", str(newest))


@click.command()
@data_option
def warm(data: Path) -> None:
    """Before a sale: count the stock anew, fill the caches, and ask for every page once."""
    from ops import datadir, stores, warming

    environment = {**os.environ, **stores.client_environment(data, os.environ)}
    done = subprocess.run([sys.executable, "-m", "shop_backend", "warm"], env=environment, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    url = datadir.read_state(data).get("urls", {}).get("gateway") or os.environ.get("TIDEGATE_PUBLIC_URL")
    if url:
        click.echo(warming.pages(url))


COMMANDS = (cards, warm)
