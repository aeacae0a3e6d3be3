"""The command line `tidegate`. Heavy modules are imported by the commands that need them."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from ops.errors import OpsError, Unreachable

if TYPE_CHECKING:
    from ops.admin_client import AdminClient, Json

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
"""


class _Group(click.Group):
    """Turns operator errors into one line and their exit status."""

    def invoke(self, ctx: click.Context) -> object:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except OpsError as error:
            click.echo(f"tidegate: {error}", err=True)
            sys.exit(error.code)


def _data_option(command: Callable[..., None]) -> Callable[..., None]:
    return click.option(
        "--data",
        type=click.Path(file_okay=False, path_type=Path),
        envvar="TIDEGATE_DATA_DIR",
        default=Path(".tidegate"),
        show_default=True,
        help="Folder of the stack.",
    )(command)


def _admin_command(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command its `client` of the admin API, from --data, --admin-url and --token."""

    @functools.wraps(command)
    def with_client(
        *, data: Path, admin_url: str | None, token: str | None, **words: str | int | bool | None
    ) -> None:
        from ops.admin_client import AdminClient

        command(AdminClient.find(data, admin_url, token), **words)

    url = click.option("--admin-url", envvar="TIDEGATE_ADMIN_URL", help="Admin API; else the one of --data.")
    secret = click.option("--token", envvar="TIDEGATE_ADMIN_TOKEN", help="Its token; better by environment.")
    return _data_option(url(secret(with_client)))


_FOR = click.option("--for", "lasting", metavar="DURATION", help="How long, for example 10m; else for good.")
_REASON = click.option("--reason", metavar="TEXT", help="Kept in the audit log.")
_PORT = click.IntRange(1, 65535)
Terms = dict[str, str | None]  # how long and why, as the admin API takes it
Said = tuple["Json", str]  # its answer, and that in a sentence


def _change_command(command: Callable[..., Said]) -> Callable[..., None]:
    """Gives a command that changes something its client and its terms, and prints what it came to."""

    @functools.wraps(command)
    def changing(
        client: AdminClient, *, lasting: str | None, reason: str | None, as_json: bool, **words: str
    ) -> None:
        answer, sentence = command(client, {"for": lasting, "reason": reason}, **words)
        click.echo(json.dumps(answer) if as_json else sentence)

    as_json = click.option("--json", "as_json", is_flag=True, help="The admin API's answer as it is.")
    return _FOR(_REASON(as_json(_admin_command(changing))))


@click.group(cls=_Group, epilog=EXIT_CODES, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="tidegate")
def main() -> None:
    """Keep a shop selling through a flash sale."""


# ---- processes ----------------------------------------------------------------------------------


@main.command(epilog=EXIT_CODES)
@_data_option
@click.option("--port", type=_PORT, default=8000, show_default=True, help="The shop, through the gateway.")
@click.option("--admin-port", type=_PORT, default=9900, show_default=True, help="The admin API and console.")
@click.option("--workers", type=click.IntRange(1, 64), help="Gateway processes; else as configured.")
@click.option("--fresh", is_flag=True, help="Throw away the data in --data first; keys stay.")
@click.option("--config", type=click.Path(path_type=Path), help="Gateway config; else config/gateway.yaml.")
def up(data: Path, port: int, admin_port: int, workers: int | None, fresh: bool, config: Path | None) -> None:
    """Run the whole stack on this machine until Ctrl-C or SIGTERM."""
    from ops import stack

    if port == admin_port:
        raise click.UsageError("--port and --admin-port must differ")
    stack.up(stack.Options(data, port, admin_port, workers, fresh, config))


def _become(*words: str) -> NoReturn:
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", *words])  # noqa: S606 - our own modules


@main.command()
@click.option("--config", type=click.Path(), required=True, help="Config file.")
@click.option("--port", type=click.IntRange(0, 65535), help="Overrides listen.port.")
@click.option("--admin-port", type=click.IntRange(0, 65535), help="Overrides admin.port.")
@click.option("--workers", type=click.IntRange(1, 64), help="Overrides listen.workers.")
def gateway(config: str, port: int | None, admin_port: int | None, workers: int | None) -> None:
    """Run the gateway alone, before any HTTP upstream."""
    words = ["gateway", "serve", "--config", config]
    for name, value in (("--port", port), ("--admin-port", admin_port), ("--workers", workers)):
        if value is not None:
            words += [name, str(value)]
    _become(*words)


@main.command()
@click.argument("file", type=click.Path())
def check(file: str) -> None:
    """Validate a gateway config; one line per mistake, exit status 1 when there are any."""
    _become("gateway", "check", file)


def _shop_process(name: str, summary: str) -> None:
    module_word = "serve" if name == "shop" else name

    @main.command(
        name, help=summary, context_settings={"ignore_unknown_options": True, "help_option_names": []}
    )
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def command(words: tuple[str, ...]) -> None:
        _become("shop_backend", module_word, *words)


_shop_process("shop", "Run one process of the shop; settings come from TIDEGATE_* variables.")
_shop_process("worker", "Run one worker: orders, callbacks, sweeper, outbox.")
_shop_process("sandbox", "Run the sandbox payment provider.")


@main.command(epilog=EXIT_CODES)
@_data_option
def keys(data: Path) -> None:
    """Make the secrets of --data, those that are missing; `up` does it too. For containers."""
    from ops import datadir, secrets

    datadir.prepare(data)
    place = secrets.load_or_make(data.resolve(), {}).admin_token_place
    click.echo(f"keys in {data.resolve() / 'keys'}, admin token in {place}")


def _become_shop(data: Path, *words: str) -> NoReturn:
    """One of the shop's own commands, on the stores of the stack in `data`."""
    from ops import stores

    os.environ.update(stores.client_environment(data, os.environ))
    _become("shop_backend", *words)


@main.command()
@_data_option
@click.option("--retry", is_flag=True, help="Send those again that were given up.")
def outbox(data: Path, retry: bool) -> None:
    """Show which messages to buyers wait, and which were given up and why."""
    _become_shop(data, "outbox", *(["--retry"] if retry else []))


@main.group("dead-letters")
def dead_letters() -> None:
    """Orders and callbacks that the workers gave up."""


@dead_letters.command("list")
@_data_option
@click.option("--all", "every", is_flag=True, help="With those that were replayed.")
def list_dead_letters(data: Path, every: bool) -> None:
    """Show each with its number and why it was given up."""
    _become_shop(data, "dead-letters", *(["--all"] if every else []))


@dead_letters.command("replay")
@click.argument("numbers", nargs=-1, required=True, metavar="NUMBER...|all")
@_data_option
def replay_dead_letters(numbers: tuple[str, ...], data: Path) -> None:
    """Queue them again, once the reason is gone: an order takes its stock anew if there is some."""
    _become_shop(data, "dead-letters", "--replay", *numbers)


@main.command()
@_data_option
@click.option("--retry", is_flag=True, help="Ask the provider again for those that failed.")
def refunds(data: Path, retry: bool) -> None:
    """Show which refunds are not done yet, and which failed."""
    _become_shop(data, "refunds", *(["--retry"] if retry else []))


@main.group()
def cards() -> None:
    """Card keys."""


@cards.command("import")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@_data_option
def import_cards(file: Path, data: Path) -> None:
    """Import card keys from a CSV with the columns sku and secret."""
    _become_shop(data, "import-cards", str(file.resolve()))


# ---- the admin API ------------------------------------------------------------------------------


@main.command(epilog=EXIT_CODES)
@_admin_command
@click.option("--json", "as_json", is_flag=True, help="The admin API's document as it is.")
def status(client: AdminClient, as_json: bool) -> None:
    """Show traffic, limits, features, step, breakers, queues and stock on one screen."""
    document = client.get("/api/status")
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    from ops import status as screen
    from ops import stock

    pages = [screen.fetch_metrics(url) for url in client.shop_metrics]
    fresh = None
    if client.stock_url is not None:
        with contextlib.suppress(Unreachable):  # the metrics know it, a little older
            fresh = stock.read(client.stock_url)
    screen.show(document, pages, fresh)


@main.command(epilog=EXIT_CODES)
@click.argument("feature")
@click.argument("state", type=click.Choice(["on", "off", "auto"]))
@_change_command
def switch(client: AdminClient, terms: Terms, feature: str, state: str) -> Said:
    """Turn a feature off or on, or let the ladder decide (auto)."""
    from ops import change

    answer = client.put("features", feature, {"state": state, **terms})
    return answer, change.feature(answer, feature, state)


@main.command(epilog=EXIT_CODES)
@click.argument("step")
@_change_command
def step(client: AdminClient, terms: Terms, step: str) -> Said:
    """Pin the degradation step by its number or name, or let pressure decide (auto)."""
    from ops import change

    asked = change.step_number(client, step)
    answer = client.put("step", None, {"step": asked, **terms})
    return answer, change.step(answer, asked)


@main.command(epilog=EXIT_CODES)
@click.argument("upstream")
@click.argument("state", type=click.Choice(["open", "closed", "auto"]))
@_change_command
def breaker(client: AdminClient, terms: Terms, upstream: str, state: str) -> Said:
    """Force an upstream's breaker open or closed, or let it decide (auto)."""
    from ops import change

    answer = client.put("breakers", upstream, {"state": state, **terms})
    return answer, change.breaker(answer, upstream, state)


@main.command(epilog=EXIT_CODES)
@click.argument("name")
@click.argument("rate")
@_change_command
def limit(client: AdminClient, terms: Terms, name: str, rate: str) -> Said:
    """Change a limit's rate for a while, for example `limit user 5/second --for 10m`; auto undoes it."""
    from ops import change

    answer = client.put("limits", name, {"rate": rate, **terms})
    return answer, change.limit(answer, name, rate)


# ---- the audit ----------------------------------------------------------------------------------


@main.command(epilog=EXIT_CODES)
@_data_option
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


if __name__ == "__main__":
    main()
