"""Commands that speak to the admin API: look at everything, switch something."""

from __future__ import annotations

import contextlib
import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click
from click.core import ParameterSource

from ops.commands.completion import names
from ops.commands.group import EXIT_CODES, Group, data_option
from ops.errors import Unreachable

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="The admin API's answer as it is.")

if TYPE_CHECKING:
    from ops.admin_client import AdminClient, Json, Token

Terms = dict[str, str | None]  # how long and why, as the admin API takes it
Said = tuple["Json", str]  # its answer, and that in a sentence


def connection_options(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command what finds an admin API: `data`, `admin_url` and `token`."""
    url = click.option("--admin-url", envvar="TIDEGATE_ADMIN_URL", help="Admin API; else the one of --data.")
    says = "Its token; better by environment."
    secret = click.option("--token", envvar="TIDEGATE_ADMIN_TOKEN", callback=_with_place, help=says)
    return data_option(url(secret(command)))


def _with_place(ctx: click.Context, param: click.Parameter, text: str | None) -> Token | None:
    """The token, and whether it came by the command line or the environment."""
    if not text:
        return None
    from ops.admin_client import VARIABLE, Token

    by_environment = ctx.get_parameter_source(str(param.name)) is ParameterSource.ENVIRONMENT
    return Token(text, VARIABLE if by_environment else "--token")


def admin_command(command: Callable[..., None]) -> Callable[..., None]:
    """Gives a command its `client` of the admin API, from --data, --admin-url and --token."""

    @functools.wraps(command)
    def with_client(
        *, data: Path, admin_url: str | None, token: Token | None, **words: str | int | bool | None
    ) -> None:
        from ops.admin_client import AdminClient

        command(AdminClient.find(data, admin_url, token), **words)

    return connection_options(with_client)


def _change_command(command: Callable[..., Said]) -> Callable[..., None]:
    """Gives a command that changes something its client and its terms, and prints what it came to."""

    @functools.wraps(command)
    def changing(
        client: AdminClient, *, lasting: str | None, reason: str | None, as_json: bool, **words: str
    ) -> None:
        answer, sentence = command(client, {"for": lasting, "reason": reason}, **words)
        click.echo(json.dumps(answer) if as_json else sentence)

    lasting = click.option(
        "--for", "lasting", metavar="DURATION", help="How long, for example 10m; else for good."
    )
    reason = click.option("--reason", metavar="TEXT", help="Kept in the trail.")
    return lasting(reason(_AS_JSON(admin_command(changing))))


@click.command(epilog=EXIT_CODES)
@admin_command
@_AS_JSON
def status(client: AdminClient, as_json: bool) -> None:
    """Show traffic, limits, features, step, breakers, queues and stock on one screen."""
    document = client.get("/api/status")
    if as_json:
        click.echo(json.dumps(document, indent=2))
        return
    from ops import shop_status, stock
    from ops import status as screen

    pages = [shop_status.fetch_metrics(url) for url in client.shop_metrics]
    fresh = None
    if client.stock_url is not None:
        with contextlib.suppress(Unreachable):  # the metrics know it, a little older
            fresh = stock.read(client.stock_url)
    screen.show(document, pages, fresh)


@click.command(epilog=EXIT_CODES)
@click.argument("feature", shell_complete=names("features"))
@click.argument("state", type=click.Choice(["on", "off", "auto"]))
@_change_command
def switch(client: AdminClient, terms: Terms, feature: str, state: str) -> Said:
    """Turn a feature off or on, or let the ladder decide (auto)."""
    from ops import change

    answer = client.put("features", feature, {"state": state, **terms})
    return answer, change.feature(answer, feature, state)


@click.command(epilog=EXIT_CODES)
@click.argument("step", shell_complete=names("steps", "auto"))
@_change_command
def step(client: AdminClient, terms: Terms, step: str) -> Said:
    """Pin the degradation step by its number or name, or let pressure decide (auto)."""
    from ops import change

    asked = change.step_number(client, step)
    answer = client.put("step", None, {"step": asked, **terms})
    return answer, change.step(answer, asked)


@click.command(epilog=EXIT_CODES)
@click.argument("upstream", shell_complete=names("breakers"))
@click.argument("state", type=click.Choice(["open", "closed", "auto"]))
@_change_command
def breaker(client: AdminClient, terms: Terms, upstream: str, state: str) -> Said:
    """Force an upstream's breaker open or closed, or let it decide (auto)."""
    from ops import change

    answer = client.put("breakers", upstream, {"state": state, **terms})
    return answer, change.breaker(answer, upstream, state)


@click.command(epilog=EXIT_CODES)
@click.argument("name", shell_complete=names("limits"))
@click.argument("rate")
@_change_command
def limit(client: AdminClient, terms: Terms, name: str, rate: str) -> Said:
    """Change a limit's rate for a while, for example `limit user 5/second --for 10m`; auto undoes it."""
    from ops import change

    answer = client.put("limits", name, {"rate": rate, **terms})
    return answer, change.limit(answer, name, rate)


@click.command(epilog=EXIT_CODES)
@admin_command
@click.option("--refused", is_flag=True, help="The attempts that were refused, in place of the changes.")
@click.option(
    "--last", type=click.IntRange(1), default=20, show_default=True, metavar="N", help="The newest N."
)
@_AS_JSON
def trail(client: AdminClient, *, refused: bool, last: int, as_json: bool) -> None:
    """Show who changed what, when, why and with what effect, the newest first; or who was refused."""
    document = client.get("/api/audit")
    if as_json:
        click.echo(json.dumps(document))
        return
    from ops import trail

    for line in trail.lines(document, refused=refused)[:last] or ["none"]:
        click.echo(line)


@click.group("shut-offs", cls=Group)
def shut_offs() -> None:
    """What upstreams have shut off, a product that is sold out for example."""


@shut_offs.command("list", epilog=EXIT_CODES)
@admin_command
@_AS_JSON
def list_shut_offs(client: AdminClient, *, as_json: bool) -> None:
    """Show what is answered for its upstream, how, and for how long yet."""
    document = client.get("/api/shut-offs")
    if as_json:
        click.echo(json.dumps(document))
        return
    from ops import screen, status

    screen.show([[status.shut_offs(document)]])


@shut_offs.command("clear", epilog=EXIT_CODES)
@click.argument("shut_off", metavar="ID|all", shell_complete=names("shut-offs", "all"))
@admin_command
@_AS_JSON
def clear_shut_offs(client: AdminClient, *, shut_off: str, as_json: bool) -> None:
    """Let one thing through to its upstream again, by its id, or all."""
    from ops import change

    answer = client.delete("shut-offs", None if shut_off == "all" else shut_off)
    click.echo(json.dumps(answer) if as_json else change.cleared(answer))


COMMANDS = (status, switch, step, breaker, limit, trail, shut_offs)
